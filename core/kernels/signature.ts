// Shape rules written as one line: `inp[..., in], weight[out, in], bias[out]? -> out[..., out]`. Parsed once, it names the
// operands, binds extents from input shapes, rejects misfits and yields output shapes. Knows nothing of values or costs.

import { elementsOf } from "../machine/tensor.ts"

type Shape = ReadonlyArray<number>

/**
 * A factor times an extent: a literal or an already bound name times a name, as in `2*width` or `ranks*rows`. A factor that
 * is a number alone (`[3]`) is that extent.
 */
interface Extent {
  readonly factor: Word | undefined
  readonly symbol: Word
}

/** A number, or the name of one. */
type Word = number | string

interface Pattern {
  readonly name: string
  /** Extents before `...`, and after it; without `...` all are in `head` and `open` is false. */
  readonly head: ReadonlyArray<Extent>
  readonly open: boolean
  readonly tail: ReadonlyArray<Extent>
  /** Optional: may be left out when trailing. */
  readonly optional: boolean
  /** Attributes that must all be set (or, with `when` false, unset) for the operand to be there. */
  readonly conditions: ReadonlyArray<{ readonly flag: string; readonly when: boolean }>
}

/** What a set of input shapes binds: named extents, and the extents that `...` stands for. */
export interface Bindings {
  readonly extents: ReadonlyMap<string, number>
  readonly open: Shape
}

/** A parsed signature. */
interface Signature {
  readonly text: string
  readonly inputs: ReadonlyArray<Pattern>
  readonly outputs: ReadonlyArray<Pattern>
}

const parseExtent = (text: string, where: string): Extent => {
  const match = /^(?:(\w+)\*)?(\w+)$/.exec(text)
  if (match === null) throw new RangeError(`signature "${where}": cannot read the extent "${text}"`)
  return { factor: match[1] === undefined ? undefined : wordOf(match[1]), symbol: wordOf(match[2]!) }
}

const wordOf = (text: string): Word => (/^\d/.test(text) ? Number(text) : text)

const parsePattern = (text: string, where: string): Pattern => {
  const match = /^(\w+)\[([^\]]*)\](?:\?([\w&!]*))?$/.exec(text)
  if (match === null) throw new RangeError(`signature "${where}": cannot read the operand "${text}"`)
  const parts = match[2]!.split(",").map((part) => part.trim())
  const extents = parts.length === 1 && parts[0] === "" ? [] : parts
  const gap = extents.indexOf("...")
  const read = (part: string): Extent => parseExtent(part, where)
  const condition = match[3]
  return {
    name: match[1]!,
    head: (gap < 0 ? extents : extents.slice(0, gap)).map(read),
    open: gap >= 0,
    tail: gap < 0 ? [] : extents.slice(gap + 1).map(read),
    optional: condition === "",
    conditions: (condition ?? "")
      .split("&")
      .filter((part) => part !== "")
      .map((part) => ({ flag: part.replace("!", ""), when: !part.startsWith("!") }))
  }
}

/**
 * Reads a signature: operands separated by commas, inputs and outputs by `->`. `name[...]?` may be left out (trailing
 * inputs only); `name[...]?flag` is there exactly when the attribute `flag` is set (true, or a number other than 0),
 * `name[...]?!flag` when it is not, `name[...]?one&other` when both are. `rows` stands for the product of `...`.
 */
export const parseSignature = (text: string): Signature => {
  const sides = text.split("->")
  if (sides.length !== 2) throw new RangeError(`signature "${text}": expected one "->"`)
  const patterns = (side: string): ReadonlyArray<Pattern> =>
    (side.match(/\w+\[[^\]]*\](?:\?[\w&!]*)?/g) ?? []).map((operand) => parsePattern(operand, text))
  return { text, inputs: patterns(sides[0]!), outputs: patterns(sides[1]!) }
}

/** `[2, 3]`, for messages. */
export const printShape = (shape: Shape): string => `[${shape.join(", ")}]`

const printPattern = (pattern: Pattern): string => {
  const print = (extent: Extent): string =>
    extent.factor === undefined ? String(extent.symbol) : `${extent.factor}*${extent.symbol}`
  const open = pattern.open ? ["..."] : []
  return `[${[...pattern.head.map(print), ...open, ...pattern.tail.map(print)].join(", ")}]`
}

const present = (pattern: Pattern, flags: Readonly<Record<string, unknown>>): boolean =>
  pattern.conditions.length === 0 ||
  pattern.conditions.every(({ flag, when }) => Boolean(flags[flag]) === when)

const valueOf = (word: Word, extents: ReadonlyMap<string, number>): number | undefined =>
  typeof word === "number" ? word : extents.get(word)

/** Extent by extent. */
export const areSame = (a: Shape, b: Shape): boolean => {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

const rows: Extent = { factor: undefined, symbol: "rows" }

/** Binds or checks one extent; false on a misfit. */
const bindExtent = (extent: Extent, actual: number, extents: Map<string, number>): boolean => {
  const factor = extent.factor === undefined ? 1 : valueOf(extent.factor, extents)
  if (factor === undefined || factor <= 0) return false
  const known = valueOf(extent.symbol, extents)
  if (known !== undefined) return known * factor === actual
  if (actual % factor !== 0) return false
  extents.set(extent.symbol as string, actual / factor)
  return true
}

/**
 * Binds the names of a signature to the shapes of actual inputs.
 * Throws RangeError naming kernel, operand, shape and what was expected when they do not fit.
 *
 * @param given extents that attributes fix (`heads`, `ranks`, ...)
 * @param flags attributes that say which conditional operands are present
 */
export const bind = (
  kernel: string,
  signature: Signature,
  inputs: ReadonlyArray<Shape>,
  given: Readonly<Record<string, number>>,
  flags: Readonly<Record<string, unknown>>
): Bindings => {
  const extents = new Map<string, number>()
  for (const name in given) {
    const value = given[name]!
    if (!Number.isInteger(value) || value < 0) {
      throw new RangeError(`${kernel}: ${name} is ${value}; expected a whole number of at least 0`)
    }
    extents.set(name, value)
  }
  let open: Shape | undefined
  let index = 0
  for (const pattern of signature.inputs) {
    if (!present(pattern, flags)) continue
    const shape = inputs[index]
    if (shape === undefined) {
      if (pattern.optional) break
      throw new RangeError(
        `${kernel}: input ${index} (${pattern.name}) is missing; signature: ${signature.text}`
      )
    }
    const fixed = pattern.head.length + pattern.tail.length
    let fits = pattern.open ? shape.length >= fixed : shape.length === fixed
    const tailStart = shape.length - pattern.tail.length
    for (let i = 0; fits && i < pattern.head.length; i++) {
      fits = bindExtent(pattern.head[i]!, shape[i]!, extents)
    }
    if (fits && pattern.open) {
      const middle = shape.slice(pattern.head.length, tailStart)
      if (open === undefined) {
        open = middle
        fits = bindExtent(rows, elementsOf(middle), extents)
      } else fits = areSame(open, middle)
    }
    for (let i = 0; fits && i < pattern.tail.length; i++) {
      fits = bindExtent(pattern.tail[i]!, shape[tailStart + i]!, extents)
    }
    if (!fits) {
      const bound = [...extents].map(([name, value]) => `${name}=${value}`)
      if (open !== undefined) bound.push(`...=${open.join(",")}`)
      throw new RangeError(
        `${kernel}: input ${index} (${pattern.name}) has shape ${printShape(shape)}; expected ${printPattern(pattern)}` +
          (bound.length === 0 ? "" : ` with ${bound.join(" ")}`)
      )
    }
    index++
  }
  if (index < inputs.length) {
    throw new RangeError(
      `${kernel}: ${inputs.length} inputs given, ${index} expected; signature: ${signature.text}`
    )
  }
  if (open === undefined && !extents.has("rows")) extents.set("rows", 1)
  return { extents, open: open ?? [] }
}

/** Shapes of the outputs that are present, from bound extents. */
export const outputShapes = (
  kernel: string,
  signature: Signature,
  bindings: Bindings,
  flags: Readonly<Record<string, unknown>>
): ReadonlyArray<Shape> => {
  const size = (extent: Extent): number => {
    const factor = extent.factor === undefined ? 1 : valueOf(extent.factor, bindings.extents)
    const value = valueOf(extent.symbol, bindings.extents)
    if (factor === undefined || value === undefined) {
      throw new RangeError(`${kernel}: nothing binds "${extent.symbol}" in ${signature.text}`)
    }
    return factor * value
  }
  return signature.outputs
    .filter((pattern) => present(pattern, flags))
    .map((pattern) => [
      ...pattern.head.map(size),
      ...(pattern.open ? bindings.open : []),
      ...pattern.tail.map(size)
    ])
}
