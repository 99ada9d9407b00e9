// What modules export: whether somebody takes it, and whether what the package offers says what it is.
import { posix } from "node:path"
import { dotted, isNode, literal, type Node, type Source } from "./source.ts"

/** Modules whose exports are for others: what a reader of the package imports by its name. */
const entryPoints = /^(?:core|traces|scenarios|sim|exec|testing)\/index\.ts$/u

/** Names that a declaration exports: `export const a`, `export interface B`, `export { c }`. */
const exportedBy = (node: Node): ReadonlyArray<string> => {
  if (node.type !== "ExportNamedDeclaration" || literal(node["source"]) !== undefined) return []
  const declaration = node["declaration"]
  if (!isNode(declaration)) {
    return (node["specifiers"] as ReadonlyArray<Node>).flatMap(({ exported }) => dotted(exported) ?? [])
  }
  const declared = (declaration["declarations"] ?? [declaration]) as ReadonlyArray<Node>
  return declared.flatMap(({ id }) => dotted(id) ?? [])
}

/** Names that a statement takes from another module; "*" where it takes everything. */
const takenBy = (node: Node): ReadonlyArray<string> => {
  switch (node.type) {
    case "ImportDeclaration":
      return (node["specifiers"] as ReadonlyArray<Node>).map((one) => dotted(one["imported"]) ?? "*")
    case "ExportNamedDeclaration":
      return (node["specifiers"] as ReadonlyArray<Node>).map((one) => dotted(one["local"]) ?? "*")
    default:
      return ["*"]
  }
}

/** Of exports "path: name", those that stand in their own module only where they are declared. */
export const unusedAtHome = (
  exports: ReadonlyArray<string>,
  textOf: (path: string) => string
): ReadonlyArray<string> =>
  exports.filter((one) => {
    const [path, name] = one.split(": ") as [string, string]
    return (textOf(path).match(new RegExp(`(?<![\\w$])${name}(?![\\w$])`, "gu"))?.length ?? 0) < 2
  })

/** Exports that no other module imports, but for those of entry points; files in the folders of `of`. */
export const deadExports = (
  sources: ReadonlyArray<Source>,
  of: (path: string) => boolean
): ReadonlyArray<string> => {
  const taken = new Map<string, Set<string>>()
  for (const { path, nodes } of sources) {
    for (const { node } of nodes) {
      const specifier = literal(node["source"])
      if (specifier === undefined || !specifier.startsWith(".")) continue
      const module = posix.join(posix.dirname(path), specifier)
      const names = taken.get(module) ?? new Set()
      for (const name of takenBy(node)) names.add(name)
      taken.set(module, names)
    }
  }
  return sources
    .filter(({ path }) => of(path) && !entryPoints.test(path))
    .flatMap(({ path, nodes }) => {
      const names = taken.get(path)
      if (names?.has("*") === true) return []
      return nodes
        .flatMap(({ node }) => exportedBy(node))
        .filter((name) => names?.has(name) !== true)
        .map((name) => `${path}: ${name}`)
    })
}

/** Exports that an entry point passes on, and that have no docstring where they are declared. */
export const undocumentedExports = (sources: ReadonlyArray<Source>): ReadonlyArray<string> => {
  const passedOn = new Map<string, Set<string>>()
  for (const { path, nodes } of sources) {
    if (!entryPoints.test(path)) continue
    for (const { node } of nodes) {
      const specifier = node.type === "ExportNamedDeclaration" ? literal(node["source"]) : undefined
      if (specifier === undefined) continue
      const module = posix.join(posix.dirname(path), specifier)
      passedOn.set(module, new Set([...(passedOn.get(module) ?? []), ...takenBy(node)]))
    }
  }
  return sources.flatMap(({ path, nodes, text }) => {
    const names = passedOn.get(path) ?? new Set()
    const declared = new Map<string, boolean>()
    for (const { node } of nodes)
      for (const name of exportedBy(node)) {
        const documented = /\/\*\*(?:(?!\*\/).)*\*\/\s*$/su.test(text.slice(0, node.start))
        // A schema and its type are one thing, of which one is documented.
        declared.set(name, documented || declared.get(name) === true)
      }
    return [...declared].flatMap(([name, documented]) =>
      names.has(name) && !documented ? [`${path}: ${name}`] : []
    )
  })
}
