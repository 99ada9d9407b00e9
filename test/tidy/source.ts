// A TypeScript file as the tidy rules see it: its text, its imports and its syntax tree. Knows no rule.
import { parseAst } from "vitest/node"

export interface Node {
  readonly type: string
  readonly start: number
  readonly [key: string]: unknown
}

interface Import {
  readonly specifier: string
  /** Erased before anything runs. */
  readonly typeOnly: boolean
  /** `import()`: loaded when it is reached. */
  readonly dynamic: boolean
  readonly line: number
}

export interface Source {
  /** From the root of the repository, with slashes. */
  readonly path: string
  readonly text: string
  /** Every node of the tree, parents before children, with its parent. */
  readonly nodes: ReadonlyArray<{ readonly node: Node; readonly parent: Node | undefined }>
  readonly imports: ReadonlyArray<Import>
  readonly lineOf: (node: Node) => number
}

export const isNode = (value: unknown): value is Node =>
  typeof value === "object" && value !== null && "type" in value && typeof value.type === "string"

export const parse = (path: string, text: string): Source => {
  const nodes: Array<{ node: Node; parent: Node | undefined }> = []
  const visit = (value: unknown, parent: Node | undefined): void => {
    if (Array.isArray(value)) {
      for (const item of value) visit(item, parent)
    } else if (isNode(value)) {
      nodes.push({ node: value, parent })
      for (const child of Object.values(value)) if (typeof child === "object") visit(child, value)
    }
  }
  visit(parseAst(text, { lang: "ts" }), undefined)
  const lineOf = ({ start }: Node): number => text.slice(0, start).split("\n").length
  const imports = nodes.flatMap(({ node }): ReadonlyArray<Import> => {
    const specifier = literal(node["source"])
    if (specifier === undefined) return []
    const typeOnly =
      node["importKind"] === "type" || node["exportKind"] === "type" || node.type === "TSImportType"
    return [{ specifier, typeOnly, dynamic: node.type === "ImportExpression", line: lineOf(node) }]
  })
  return { path, text, nodes, imports, lineOf }
}

/** The text of a string literal. */
export const literal = (value: unknown): string | undefined =>
  isNode(value) && value.type === "Literal" && typeof value["value"] === "string" ? value["value"] : undefined

/** `a.b.c` of an expression made of names only; the name itself of an identifier. */
export const dotted = (value: unknown): string | undefined => {
  if (!isNode(value)) return undefined
  if (value.type === "Identifier") return String(value["name"])
  if (value.type !== "MemberExpression") return undefined
  const object = dotted(value["object"])
  const property = value["computed"] === true ? literal(value["property"]) : dotted(value["property"])
  return object === undefined || property === undefined ? undefined : `${object}.${property}`
}

/** Is this name used for what it stands for, rather than as a property or a key of that name? */
export const isReference = (node: Node, parent: Node | undefined): boolean => {
  if (node.type !== "Identifier" && node.type !== "MemberExpression") return false
  if (parent === undefined || parent["computed"] === true) return true
  if (parent.type === "MemberExpression") return parent["property"] !== node
  return parent["key"] !== node || parent["shorthand"] === true
}
