// The form of a schema as a person sees it in a file: fields, lists, choices, values. Made from the schema itself, so that
// paths, suggestions and messages cannot drift from what decoding accepts. Knows no particular schema.
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import * as SchemaIssue from "effect/SchemaIssue"

interface FieldShape {
  readonly shape: Shape
  readonly required: boolean
}

export interface FieldsShape {
  readonly kind: "fields"
  readonly fields: ReadonlyMap<string, FieldShape>
}

interface ValueShape {
  readonly kind: "value"
  /** What would be accepted, as a phrase. */
  readonly accepted: string
  /** The only values accepted, where they can be listed. */
  readonly literals: ReadonlyArray<string | number | boolean> | undefined
  readonly quantity: boolean
  /** Why the value is not accepted; undefined when it is. */
  readonly refusal: (value: unknown) => string | undefined
  /** SI number or other decoded form of an accepted value. */
  readonly decode: (value: unknown) => unknown
}

export type Shape =
  | FieldsShape
  | ValueShape
  | { readonly kind: "record"; readonly value: Shape }
  | { readonly kind: "list"; readonly item: Shape; readonly minLength: number }
  | { readonly kind: "choice"; readonly options: ReadonlyArray<Shape> }

/** The shape of what a schema decodes from. */
export const shapeOf = (schema: Schema.Constraint): Shape => fromAst(schema.ast)

const fromAst = (ast: SchemaAST.AST): Shape => {
  if (SchemaAST.isObjects(ast)) {
    const index = ast.indexSignatures[0]
    if (index !== undefined) return { kind: "record", value: fromAst(index.type) }
    const fields = new Map<string, FieldShape>()
    for (const { name, type } of ast.propertySignatures) {
      const required = !SchemaAST.isOptional(SchemaAST.toEncoded(type))
      fields.set(String(name), { shape: fromAst(type), required })
    }
    return { kind: "fields", fields }
  }
  if (SchemaAST.isArrays(ast)) {
    const item = ast.rest[0]
    if (item === undefined) throw new RangeError("a scenario has no tuples")
    const least = checksOf(ast).find(({ id }) => id === "effect/schema/isMinLength")
    return { kind: "list", item: fromAst(item), minLength: Number(least?.payload["minLength"] ?? 0) }
  }
  if (SchemaAST.isUnion(ast) && ast.types.some(isStructural)) {
    return { kind: "choice", options: ast.types.map(fromAst) }
  }
  return valueShape(ast)
}

const isStructural = (ast: SchemaAST.AST): boolean =>
  SchemaAST.isObjects(ast) ||
  SchemaAST.isArrays(ast) ||
  (SchemaAST.isUnion(ast) && ast.types.some(isStructural))

const valueShape = (ast: SchemaAST.AST): ValueShape => {
  const decode = Schema.decodeUnknownExit(Schema.make<Schema.ConstraintDecoder<unknown>>(ast))
  const quantity = quantityPhrase(ast)
  const literals = literalsOf(ast)
  const accepted = [quantity ?? (literals === undefined ? basePhrase(ast) : oneOf(literals)), ...bounds(ast)]
    .filter((part) => part !== "")
    .join(", ")
  return {
    kind: "value",
    accepted,
    literals,
    quantity: quantity !== undefined,
    refusal: (value) => {
      if (quantity === undefined && typeof value === "number" && !Number.isFinite(value))
        return "it is not finite"
      const exit = decode(value)
      if (Exit.isSuccess(exit)) return undefined
      return quantity === undefined ? "" : unitReason(exit.cause, value, quantity)
    },
    decode: (value) => {
      const exit = decode(value)
      return Exit.isSuccess(exit) ? exit.value : value
    }
  }
}

/** "a, b or c", each as it would be written. */
export const oneOf = (values: ReadonlyArray<string | number | boolean>): string => {
  const words = values.map(String)
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`
}

const literalsOf = (ast: SchemaAST.AST): ReadonlyArray<string | number | boolean> | undefined => {
  if (SchemaAST.isLiteral(ast)) return typeof ast.literal === "bigint" ? undefined : [ast.literal]
  if (SchemaAST.isBoolean(ast)) return [true, false]
  if (!SchemaAST.isUnion(ast)) return undefined
  const all = ast.types.map(literalsOf)
  return all.some((some) => some === undefined) ? undefined : all.flatMap((some) => some ?? [])
}

/** The accepted forms that a quantity of core/units carries on its encoded side. */
const quantityPhrase = (ast: SchemaAST.AST): string | undefined => {
  const expected = ast.encoding === undefined ? undefined : SchemaAST.toEncoded(ast).annotations?.["expected"]
  return typeof expected === "string" ? expected : undefined
}

const basePhrase = (ast: SchemaAST.AST): string => {
  const ids = new Set(checksOf(ast).map(({ id }) => id))
  if (SchemaAST.isNumber(ast)) return ids.has("effect/schema/isInt") ? "a whole number" : "a number"
  if (SchemaAST.isString(ast)) return ids.has("effect/schema/isMinLength") ? "text that is not empty" : "text"
  return SchemaAST.isUnknown(ast) ? "any value" : "a value"
}

const bounds = (ast: SchemaAST.AST): ReadonlyArray<string> =>
  checksOf(ast).flatMap(({ id, payload }) => {
    if (id === "effect/schema/isBetween") return [`from ${payload["minimum"]} to ${payload["maximum"]}`]
    if (id === "effect/schema/isGreaterThan") return [`greater than ${payload["exclusiveMinimum"]}`]
    if (id === "effect/schema/isGreaterThanOrEqualTo") return [`at least ${payload["minimum"]}`]
    if (id === "effect/schema/isLessThan") return [`less than ${payload["exclusiveMaximum"]}`]
    if (id === "effect/schema/isLessThanOrEqualTo") return [`at most ${payload["maximum"]}`]
    return []
  })

interface KnownCheck {
  readonly id: string
  readonly payload: Readonly<Record<string, unknown>>
}

/** The checks that say what they are, as the built-in ones do. */
const checksOf = (ast: SchemaAST.AST): ReadonlyArray<KnownCheck> =>
  (ast.checks ?? []).flatMap((check) => {
    const representation: unknown = check.annotations?.["representation"]
    if (!isRecord(representation)) return []
    const { id, payload } = representation
    return [{ id: String(id), payload: isRecord(payload) ? payload : {} }]
  })

/** The parser's own reason, out of its sentence (core/units describeUnitFailure). */
const unitReason = (cause: Cause.Cause<unknown>, value: unknown, accepted: string): string => {
  const failure = Cause.squash(cause)
  const issue = failure instanceof Schema.SchemaError ? failure.issue : undefined
  const sentence = issue === undefined ? "" : SchemaIssue.makeFormatterDefault()(issue)
  const shown = typeof value === "number" ? String(value) : JSON.stringify(value)
  const from = `${shown} is not accepted: `
  const to = `; expected ${accepted}`
  return sentence.startsWith(from) && sentence.endsWith(to)
    ? sentence.slice(from.length, sentence.length - to.length)
    : ""
}

/**
 * The field that tells the alternatives of a choice apart, as `name` does algorithms: the one field for which each of
 * them has a value of its own.
 */
export const discriminatorOf = (
  options: ReadonlyArray<Shape>
): { readonly field: string; readonly byValue: ReadonlyMap<string, FieldsShape> } | undefined => {
  const first = options[0]
  if (first?.kind !== "fields") return undefined
  for (const field of first.fields.keys()) {
    const byValue = new Map<string, FieldsShape>()
    for (const option of options) {
      const of = option.kind === "fields" ? option.fields.get(field) : undefined
      const literals = of?.required === true && of.shape.kind === "value" ? of.shape.literals : undefined
      if (option.kind === "fields" && literals?.length === 1) byValue.set(String(literals[0]), option)
    }
    if (byValue.size === options.length) return { field, byValue }
  }
  return undefined
}

/** An object with fields, as YAML and JSON make them. */
export const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Names on the way to every field that a shape has, inner and outer, in each alternative; entries of lists are not looked into. */
export const fieldPaths = (shape: Shape): ReadonlyArray<ReadonlyArray<string>> => {
  if (shape.kind === "choice") return shape.options.flatMap(fieldPaths)
  if (shape.kind !== "fields") return []
  return [...shape.fields].flatMap(([key, field]) => [
    [key],
    ...fieldPaths(field.shape).map((path) => [key, ...path])
  ])
}
