// What is wrong with a value, seen against a shape: every problem at once, each against the alternative that the person
// evidently meant. Decoding itself is the schema's; this only finds the words. Knows nothing of files.
import { didYouMean } from "./similar.ts"
import { discriminatorOf, fieldPaths, isRecord, oneOf, type FieldsShape, type Shape } from "./shape.ts"

export type FieldPath = ReadonlyArray<string | number>

export interface Problem {
  readonly path: FieldPath
  /** The problem is the field's name, not its value. */
  readonly atKey: boolean
  /** What was found; undefined when something is missing. */
  readonly value: string | undefined
  readonly accepted: string
}

const longestShown = 80

/** A value as short text, as it would be written. */
export const show = (value: unknown): string => {
  if (value === undefined) return "nothing"
  if (typeof value === "number") return String(value)
  const text = JSON.stringify(value) ?? String(value)
  return text.length > longestShown ? `${text.slice(0, longestShown)}...` : text
}

/** Every problem of `value`; none when the schema will accept it. `whole` is the shape that it is a part of, if it is one. */
export const problemsOf = (
  shape: Shape,
  value: unknown,
  path: FieldPath = [],
  whole: Shape = shape
): ReadonlyArray<Problem> => {
  const refuse = (accepted: string, found = show(value)): ReadonlyArray<Problem> => [
    { path, atKey: false, value: found, accepted }
  ]
  switch (shape.kind) {
    case "value": {
      const reason = shape.refusal(value)
      if (reason === undefined) return []
      const hint =
        typeof value === "string" && shape.literals !== undefined
          ? didYouMean(value, shape.literals.map(String))
          : ""
      return refuse(shape.accepted + hint, reason === "" ? show(value) : `${show(value)} (${reason})`)
    }
    case "record":
      if (!isRecord(value)) return refuse(describe(shape))
      return Object.entries(value).flatMap(([key, each]) =>
        problemsOf(shape.value, each, [...path, key], whole)
      )
    case "list": {
      if (!Array.isArray(value)) return refuse(describe(shape))
      if (value.length < shape.minLength) return refuse(`a list of at least ${shape.minLength}`)
      return value.flatMap((each: unknown, index) => problemsOf(shape.item, each, [...path, index], whole))
    }
    case "fields":
      return isRecord(value) ? fieldProblems(shape, value, path, [], whole) : refuse(describe(shape))
    case "choice": {
      const discriminator = discriminatorOf(shape.options)
      if (discriminator !== undefined) {
        const { field, byValue } = discriminator
        const names = [...byValue.keys()]
        if (!isRecord(value)) return refuse(oneOf(names))
        const given = value[field]
        const meant = byValue.get(String(given))
        if (meant !== undefined) return fieldProblems(meant, value, path, shape.options, whole)
        const accepted = oneOf(names) + (typeof given === "string" ? didYouMean(given, names) : "")
        const found = given === undefined ? undefined : show(given)
        return [{ path: [...path, field], atKey: false, value: found, accepted }]
      }
      const meant = meantOption(shape.options, value)
      if (meant === undefined) {
        const named = isRecord(value)
          ? Object.values(value).find((each) => isName(each, shape.options))
          : undefined
        return refuse(describe(shape) + (named === undefined ? "" : `; here ${show(named)} alone`))
      }
      return meant.kind === "fields" && isRecord(value)
        ? fieldProblems(meant, value, path, shape.options, whole)
        : problemsOf(meant, value, path, whole)
    }
  }
}

const fieldProblems = (
  shape: FieldsShape,
  value: Readonly<Record<string, unknown>>,
  path: FieldPath,
  alternatives: ReadonlyArray<Shape>,
  whole: Shape
): ReadonlyArray<Problem> => {
  const problems: Array<Problem> = []
  const known = `${shape.fields.size === 1 ? "" : "one of "}${[...shape.fields.keys()].join(", ")}`
  for (const [key, each] of Object.entries(value)) {
    const field = shape.fields.get(key)
    if (field !== undefined) {
      for (const problem of problemsOf(field.shape, each, [...path, key], whole)) problems.push(problem)
      continue
    }
    const elsewhere = alternatives.flatMap((other) =>
      other.kind === "fields" && other.fields.has(key) ? [titleOf(other, alternatives)] : []
    )
    const own = titleOf(shape, alternatives)
    const hint =
      elsewhere.length > 0
        ? elsewhere.includes(`the field ${key}`)
          ? `; "${key}" excludes ${own}: leave one out, or replace all at once with ${path.join(".")}={...}`
          : `; "${key}" goes with ${oneOf(elsewhere)}, not with ${own}`
        : isName(each, alternatives)
          ? `, or ${show(each)} alone in place of all fields`
          : didYouMean(key, shape.fields.keys()) || belongsTo(key, whole)
    problems.push({ path: [...path, key], atKey: true, value: "an unknown field", accepted: known + hint })
  }
  for (const [key, field] of shape.fields) {
    if (field.required && value[key] === undefined)
      problems.push({
        path: [...path, key],
        atKey: false,
        value: undefined,
        accepted: `${describe(field.shape)} (it is missing)`
      })
  }
  return problems
}

/** Whether an alternative that is one of some names is this one: what is wrong is the form that it is given in. */
const isName = (value: unknown, alternatives: ReadonlyArray<Shape>): boolean =>
  alternatives.some(
    (other) => other.kind === "value" && other.literals !== undefined && other.refusal(value) === undefined
  )

const mostPlaces = 4

type Owners = ReadonlyMap<string, ReadonlySet<string>>

/** Of shapes that fields were looked up in: a file with much wrong in it asks for each. */
const ownersOf = new WeakMap<Shape, Owners>()

/** By the name of a field, where the whole shape has it. */
const ownersIn = (whole: Shape): Owners => {
  const known = ownersOf.get(whole)
  if (known !== undefined) return known
  const owners = new Map<string, Set<string>>()
  for (const path of fieldPaths(whole)) {
    const key = path.at(-1)!
    const own = owners.get(key) ?? new Set()
    owners.set(key, own.add(`of ${path.slice(0, -1).join(".") || "the scenario itself"}`))
  }
  ownersOf.set(whole, owners)
  return owners
}

/** `; "x" is a field of a or b`, where the whole shape has it in few other places; or nothing. */
const belongsTo = (key: string, whole: Shape): string => {
  const owners = [...(ownersIn(whole).get(key) ?? [])]
  return owners.length === 0 || owners.length > mostPlaces ? "" : `; "${key}" is a field ${oneOf(owners)}`
}

/** What an alternative is called: its discriminating value, or the fields it must have. */
const titleOf = (shape: FieldsShape, alternatives: ReadonlyArray<Shape>): string => {
  const discriminator = discriminatorOf(alternatives)
  for (const [value, option] of discriminator?.byValue ?? []) if (option === shape) return value
  return describe(shape)
}

/** The alternative a value was evidently meant as; undefined when nothing speaks for any. */
export const meantOption = (options: ReadonlyArray<Shape>, value: unknown): Shape | undefined => {
  if (Array.isArray(value)) return options.find(({ kind }) => kind === "list")
  if (!isRecord(value)) {
    // A text or number is judged by the alternative that takes one, which then says why not.
    const simple = options.filter(({ kind }) => kind === "value")
    return simple.length === 1 ? simple[0] : undefined
  }
  const keys = Object.keys(value)
  let meant: Shape | undefined
  let best = Number.NEGATIVE_INFINITY
  for (const option of options) {
    if (option.kind !== "fields" && option.kind !== "record") continue
    const score = option.kind === "record" ? 0 : agreement(option, keys)
    if (score > best) {
      best = score
      meant = option
    }
  }
  return best < 0 ? undefined : meant
}

/** How much speaks for an alternative: fields it knows, or nearly knows; below 0 when it lacks what it needs and has nothing. */
const agreement = (option: FieldsShape, keys: ReadonlyArray<string>): number => {
  let known = 0
  for (const key of keys) {
    if (option.fields.has(key)) known += option.fields.get(key)!.required ? 1.25 : 1
    else if (isNearly(key, option)) known += 0.5
  }
  const missing = [...option.fields].filter(([key, { required }]) => required && !keys.includes(key)).length
  return known === 0 && missing > 0 ? -1 : known - 0.01 * missing
}

const nearly = new WeakMap<FieldsShape, Map<string, boolean>>()

/** Whether an alternative nearly knows a field. Looked up: points of a study ask the same a million times. */
const isNearly = (key: string, option: FieldsShape): boolean => {
  let known = nearly.get(option)
  if (known === undefined) nearly.set(option, (known = new Map()))
  const before = known.get(key)
  if (before !== undefined) return before
  const is = didYouMean(key, option.fields.keys()) !== ""
  known.set(key, is)
  return is
}

/** What a shape accepts, in a phrase. */
const describe = (shape: Shape): string => {
  switch (shape.kind) {
    case "value":
      return shape.accepted
    case "record":
      return `names with ${describe(shape.value)} each`
    case "list":
      return `a list${shape.item.kind === "fields" ? ` of entries with ${describe(shape.item)}` : ""}`
    case "fields": {
      const required = [...shape.fields].filter(([, field]) => field.required).map(([key]) => key)
      const names = required.length > 0 ? required : [...shape.fields.keys()]
      const joined =
        names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`
      return names.length === 1 ? `the field ${joined}` : `the fields ${joined}`
    }
    case "choice": {
      const discriminator = discriminatorOf(shape.options)
      if (discriminator !== undefined) return oneOf([...discriminator.byValue.keys()])
      return shape.options.map(describe).join(", or ")
    }
  }
}

/**
 * Writes out what a file may abbreviate: a text in place of an alternative is its discriminating field, in fields of an alternative
 * too.
 */
export const expand = (shape: Shape, value: unknown): unknown => {
  if (shape.kind === "choice") {
    const discriminator = discriminatorOf(shape.options)
    if (discriminator === undefined) {
      const meant = meantOption(shape.options, value)
      return meant === undefined || !isRecord(value) ? value : expand(meant, value)
    }
    const whole = typeof value === "string" ? { [discriminator.field]: value } : value
    const meant = isRecord(whole) ? discriminator.byValue.get(String(whole[discriminator.field])) : undefined
    return meant === undefined ? whole : expand(meant, whole)
  }
  if (shape.kind !== "fields" || !isRecord(value)) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => {
      const field = shape.fields.get(key)
      return [key, field === undefined ? each : expand(field.shape, each)]
    })
  )
}
