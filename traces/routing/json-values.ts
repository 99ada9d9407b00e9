// Values of JSON as importers of routings take them apart, with the place of what is not as it should be.
import { messageOf } from "../../core/message-of.ts"
import { showValue, TraceError } from "../trace-error.ts"
import { expertOf } from "./tokens.ts"

export type Rows = ReadonlyArray<ReadonlyArray<number>>

export const jsonOf = (file: string, field: string, text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch (cause) {
    const value = messageOf(cause)
    throw new TraceError({ file, field, value, accepted: "JSON" })
  }
}

export const isList = (value: unknown): value is ReadonlyArray<unknown> => Array.isArray(value)

export const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !isList(value)

export const listOf = (
  file: string,
  field: string,
  value: unknown,
  accepted: string
): ReadonlyArray<unknown> => {
  if (isList(value)) return value
  throw new TraceError({ file, field, value: showValue(value), accepted })
}

/** [tokens, topK] of one layer. */
export const rowsOf = (file: string, field: string, value: unknown): Rows =>
  listOf(file, field, value, "a list of tokens").map((row, token) =>
    listOf(file, `${field}[${token}]`, row, "a list of experts").map((expert, k) =>
      expertOf(file, `${field}[${token}][${k}]`, expert)
    )
  )

export const entry = <K, V>(map: Map<K, V>, key: K, make: () => V): V => {
  let value = map.get(key)
  if (value === undefined) map.set(key, (value = make()))
  return value
}
