// Changes to a scenario from outside it: `--set path=value`, a study's axes. Finds the field that a short path means,
// and puts the value there. Works on plain data and shapes; knows nothing of files.
import { meantOption, type FieldPath } from "./check.ts"
import { parseInline } from "./source.ts"
import { discriminatorOf, fieldPaths, isRecord, type Shape } from "./shape.ts"
import { similarTo } from "./similar.ts"

interface Override {
  /** As given: "ranks=4". */
  readonly text: string
  readonly path: string
  readonly value: unknown
}

/** "path=value" with the value as YAML; a string says what is wrong with it. */
export const parseOverride = (text: string): Override | string => {
  const equals = text.indexOf("=")
  const path = text.slice(0, equals).trim()
  if (equals < 0 || path === "") return "path=value, such as ranks=4 or world.links.inter.bandwidth=1Gbit/s"
  const parsed = parseInline(text.slice(equals + 1))
  if (parsed === undefined) return "path=value, with a value that is YAML, such as 4, 10gbit or {name: ddp}"
  const glued = gluedKey(parsed.value)
  if (glued !== undefined)
    return `path=value, with a space after each colon of a section: ${glued.replace(/:(?! )/u, ": ")} (YAML takes "${glued}" for one word)`
  return { text, path, value: parsed.value }
}

/** A field and its value that YAML takes for a name, for want of a space: {name:ddp}. */
const gluedKey = (value: unknown): string | undefined => {
  if (Array.isArray(value)) return value.map(gluedKey).find((found) => found !== undefined)
  if (!isRecord(value)) return undefined
  for (const [key, each] of Object.entries(value)) {
    const found = each === null && /^[A-Za-z]\w*:./u.test(key) ? key : gluedKey(each)
    if (found !== undefined) return found
  }
  return undefined
}

export const pathText = (path: FieldPath): string => path.join(".")

/** The steps of a path, written with dots or brackets: "faults[0].of". */
export const segmentsOf = (text: string): ReadonlyArray<string> =>
  text.replaceAll(/\[(\d+)\]/gu, ".$1").split(".")

const endsWith = (path: FieldPath, suffix: ReadonlyArray<string>): boolean => {
  const from = path.length - suffix.length
  return from >= 0 && suffix.every((segment, i) => String(path[from + i]) === segment)
}

/** Paths of every field that the data has, inner and outer. */
const presentPaths = (value: unknown, path: FieldPath = []): ReadonlyArray<FieldPath> => {
  const below = Array.isArray(value)
    ? value.flatMap((each: unknown, index) => presentPaths(each, [...path, index]))
    : isRecord(value)
      ? Object.entries(value).flatMap(([key, each]) => presentPaths(each, [...path, key]))
      : []
  return path.length === 0 ? below : [path, ...below]
}

/** As `fieldPaths`, but of alternatives only those that the data has chosen; `entries`: also of the lists that it has. */
const chosenPaths = (
  shape: Shape,
  value: unknown,
  entries: boolean,
  path: FieldPath = []
): Array<FieldPath> => {
  switch (shape.kind) {
    case "value":
    case "record":
      return []
    case "list":
      return entries && Array.isArray(value)
        ? value.flatMap((each: unknown, index) => chosenPaths(shape.item, each, entries, [...path, index]))
        : []
    case "fields":
      return [...shape.fields].flatMap(([key, field]) => {
        const inner = isRecord(value) ? value[key] : undefined
        return [[...path, key], ...chosenPaths(field.shape, inner, entries, [...path, key])]
      })
    case "choice":
      return chosen(shape.options, value).flatMap((option) => chosenPaths(option, value, entries, path))
  }
}

const chosen = (options: ReadonlyArray<Shape>, value: unknown): ReadonlyArray<Shape> => {
  if (value === undefined) return options
  const discriminator = discriminatorOf(options)
  const meant =
    discriminator !== undefined && isRecord(value)
      ? discriminator.byValue.get(String(value[discriminator.field]))
      : meantOption(options, value)
  return meant === undefined ? options : [meant]
}

const unique = (paths: ReadonlyArray<FieldPath>): ReadonlyArray<FieldPath> => [
  ...new Map(paths.map((path) => [pathText(path), path])).values()
]

type Resolution =
  | { readonly path: FieldPath }
  | { readonly candidates: ReadonlyArray<string> }
  /** `fields`: all that the section has which the path names, where none of them is similar. */
  | { readonly similar: ReadonlyArray<string>; readonly fields?: ReadonlyArray<string> }

/**
 * The field that a path, or the end of one, means: an exact path; else the one field that is there and ends so; else the
 * one that could be added beside fields that are there; else the one the schema has. Several: `candidates`. None: `similar`.
 */
export const resolveField = (
  shape: Shape,
  value: unknown,
  text: string,
  alsoPresent: ReadonlyArray<FieldPath> = []
): Resolution => {
  const suffix = segmentsOf(text)
  const present = unique([...presentPaths(value), ...alsoPresent])
  const presentNames = new Set(present.map(pathText))
  // Whoever names no entry means none.
  const entries = suffix.some((segment) => /^\d+$/u.test(segment))
  const narrowed = unique(chosenPaths(shape, value, entries))
  const possible = unique(fieldPaths(shape))
  const exact = [...present, ...narrowed, ...possible].find(
    (path) => path.length === suffix.length && endsWith(path, suffix)
  )
  if (exact !== undefined) return { path: exact }
  const beside = narrowed.filter((path) => path.length === 1 || presentNames.has(pathText(path.slice(0, -1))))
  for (const tier of [present, beside, narrowed, possible]) {
    const candidates = tier.filter((path) => endsWith(path, suffix))
    if (candidates.length === 1) return { path: candidates[0]! }
    if (candidates.length > 1) return { candidates: candidates.map(pathText) }
  }
  const last = suffix.at(-1)!
  const outer =
    suffix.length > 1 ? resolveField(shape, value, suffix.slice(0, -1).join("."), alsoPresent) : undefined
  const section = outer !== undefined && "path" in outer ? outer.path : undefined
  const inside =
    section === undefined
      ? []
      : [narrowed, possible]
          .map((paths) => paths.filter((path) => pathText(path.slice(0, -1)) === pathText(section)))
          .find((paths) => paths.length > 0)
  // Whoever names a section means one of its fields.
  const known = inside === undefined || inside.length === 0 ? [...present, ...possible] : inside
  const near = new Set(
    similarTo(
      last,
      known.map((path) => String(path.at(-1)))
    ).slice(0, 3)
  )
  const similar = [...new Set(known.filter((path) => near.has(String(path.at(-1)))).map(pathText))]
  return similar.length === 0 && known === inside
    ? { similar, fields: inside.map(pathText) }
    : { similar: similar.slice(0, 6) }
}

/** The data with `path` set to `set`; what is on the way there and not a container is replaced by one. */
export const setField = (value: unknown, path: FieldPath, set: unknown): unknown => {
  const [key, ...rest] = path
  if (key === undefined) return set
  if (Array.isArray(value)) {
    const copy: Array<unknown> = [...value]
    copy[Number(key)] = setField(copy[Number(key)], rest, set)
    return copy
  }
  const fields = isRecord(value) ? value : {}
  return { ...fields, [key]: setField(fields[key], rest, set) }
}

/** The value at `path`; undefined when something on the way is missing. */
export const getField = (value: unknown, path: FieldPath): unknown => {
  let at = value
  for (const key of path) {
    if (Array.isArray(at)) at = at[Number(key)]
    else if (isRecord(at)) at = at[key]
    else return undefined
  }
  return at
}

/** The text at `path`, or those of a list there; none where it is neither. */
export const textsAt = (value: unknown, path: FieldPath): ReadonlyArray<string> =>
  [getField(value, path)].flat().filter((one) => typeof one === "string")
