// Walks over JSON in bytes without making values of it: where an event ends, whether it is JSON at all, and where in it
// the fields lie that an import may need. Knows the names of those fields, not what they mean.

/** Fields of an event, in `EventFields`; those from `correlation` on are members of `args`. */
export const Field = {
  ph: 0,
  cat: 1,
  name: 2,
  pid: 3,
  tid: 4,
  ts: 5,
  dur: 6,
  id: 7,
  args: 8,
  correlation: 9,
  externalId: 10,
  device: 11,
  stream: 12,
  sequence: 13,
  collective: 14,
  inputDims: 15,
  inputType: 16
} as const

const fieldCount = 17

/** What a scan answers instead of a position: the bytes end before the value does. */
export const incomplete = -1
/** What a scan answers instead of a position: this is no JSON, whatever follows. */
export const malformed = -2

const quote = 0x22
const backslash = 0x5c
const openBrace = 0x7b
const closeBrace = 0x7d
const openBracket = 0x5b
const closeBracket = 0x5d
const comma = 0x2c
const colon = 0x3a
/** Nested deeper than this, a value is refused rather than followed. */
const deepest = 256

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text)

const topKeys: ReadonlyArray<readonly [Uint8Array, number]> = [
  [bytesOf("ph"), Field.ph],
  [bytesOf("cat"), Field.cat],
  [bytesOf("name"), Field.name],
  [bytesOf("pid"), Field.pid],
  [bytesOf("tid"), Field.tid],
  [bytesOf("ts"), Field.ts],
  [bytesOf("dur"), Field.dur],
  [bytesOf("id"), Field.id],
  [bytesOf("args"), Field.args]
]
const argKeys: ReadonlyArray<readonly [Uint8Array, number]> = [
  [bytesOf("correlation"), Field.correlation],
  [bytesOf("External id"), Field.externalId],
  [bytesOf("external id"), Field.externalId],
  [bytesOf("device"), Field.device],
  [bytesOf("stream"), Field.stream],
  [bytesOf("Sequence number"), Field.sequence],
  [bytesOf("Collective name"), Field.collective],
  [bytesOf("Input Dims"), Field.inputDims],
  [bytesOf("Input dims"), Field.inputDims],
  [bytesOf("Input type"), Field.inputType]
]

/** By length of the key: few keys share one, so that most are told apart by their length alone. */
const byLength = (keys: ReadonlyArray<readonly [Uint8Array, number]>) =>
  Array.from({ length: 17 }, (_, length) => keys.filter(([bytes]) => bytes.length === length))

const topByLength = byLength(topKeys)
const argByLength = byLength(argKeys)

const fieldOf = (
  table: ReadonlyArray<ReadonlyArray<readonly [Uint8Array, number]>>,
  bytes: Uint8Array,
  start: number,
  end: number
): number => {
  const length = end - start
  if (length > 16) return -1
  for (const [key, field] of table[length]!) {
    let i = 0
    while (i < length && bytes[start + i] === key[i]) i++
    if (i === length) return field
  }
  return -1
}

/** Reads one value after another out of `bytes[0, length)`. Set both, then ask. */
export class EventScanner {
  bytes: Uint8Array = new Uint8Array(0)
  length = 0
  /** Where each field's value begins and ends, quotes included; -1 where the event has none. */
  readonly starts = new Int32Array(fieldCount)
  readonly ends = new Int32Array(fieldCount)
  /** Numbers of the last value that JSON does not know (nan, inf), and control characters in its strings. */
  irregular = 0

  skipSpace(at: number): number {
    const { bytes, length } = this
    let i = at
    while (i < length) {
      const byte = bytes[i]!
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) break
      i++
    }
    return i
  }

  #eventStart = 0
  #eventEnd = 0

  /** The last event as it is written, or as much of it as messages show. */
  scanned(): string {
    return this.slice(this.#eventStart, Math.min(this.#eventEnd, this.#eventStart + 200))
  }

  /** One event (or anything else) that begins at `at`: fills the fields, and answers where it ends. */
  event(at: number): number {
    this.starts.fill(-1)
    this.irregular = 0
    this.#eventStart = at
    return (this.#eventEnd =
      this.bytes[at] === openBrace ? this.#object(at, topByLength, 0) : this.#value(at, 0))
  }

  /** Any value that begins at `at`: where it ends. */
  value(at: number): number {
    this.irregular = 0
    return this.#value(at, 0)
  }

  #value(at: number, depth: number): number {
    if (at >= this.length) return incomplete
    const byte = this.bytes[at]!
    if (byte === quote) return this.#string(at)
    if (byte === openBrace) return this.#object(at, undefined, depth)
    if (byte === openBracket) return this.#array(at, depth)
    return this.#scalar(at)
  }

  #string(at: number): number {
    const { bytes, length } = this
    let i = at + 1
    while (i < length) {
      const byte = bytes[i]!
      if (byte === quote) return i + 1
      if (byte === backslash) i++
      else if (byte < 0x20) this.irregular++
      i++
    }
    return incomplete
  }

  #scalar(at: number): number {
    const { bytes, length } = this
    let i = at
    let digits = 0
    let letters = 0
    while (i < length) {
      const byte = bytes[i]!
      if (byte >= 0x30 && byte <= 0x39) digits++
      else if ((byte >= 0x61 && byte <= 0x7a) || (byte >= 0x41 && byte <= 0x5a)) letters++
      else if (byte !== 0x2d && byte !== 0x2b && byte !== 0x2e && byte !== 0x28) {
        // Some C libraries print -nan(ind).
        if (byte !== 0x29 || letters === 0) break
      }
      i++
    }
    if (i === length) return incomplete
    if (i === at) return malformed
    // A number has one letter at most (its exponent's), and no word has a digit.
    if (digits > 0 && letters <= 1) return i
    const word = Buffer.from(bytes.buffer, bytes.byteOffset + at, i - at).toString("latin1")
    if (word === "null" || word === "true" || word === "false") return i
    if (!/^[-+]?(?:nan(?:\(ind\))?|inf|infinity)$/iu.test(word)) return malformed
    this.irregular++
    return i
  }

  #array(at: number, depth: number): number {
    if (depth > deepest) return malformed
    let i = this.skipSpace(at + 1)
    if (i >= this.length) return incomplete
    if (this.bytes[i] === closeBracket) return i + 1
    for (;;) {
      i = this.#value(i, depth + 1)
      if (i < 0) return i
      i = this.skipSpace(i)
      if (i >= this.length) return incomplete
      const byte = this.bytes[i]!
      if (byte === closeBracket) return i + 1
      if (byte !== comma) return malformed
      i = this.skipSpace(i + 1)
    }
  }

  #object(
    at: number,
    table: ReadonlyArray<ReadonlyArray<readonly [Uint8Array, number]>> | undefined,
    depth: number
  ): number {
    if (depth > deepest) return malformed
    const { bytes } = this
    let i = this.skipSpace(at + 1)
    if (i >= this.length) return incomplete
    if (bytes[i] === closeBrace) return i + 1
    for (;;) {
      if (i >= this.length) return incomplete
      if (bytes[i] !== quote) return malformed
      const key = i + 1
      i = this.#string(i)
      if (i < 0) return i
      const field = table === undefined ? -1 : fieldOf(table, bytes, key, i - 1)
      i = this.skipSpace(i)
      if (i >= this.length) return incomplete
      if (bytes[i] !== colon) return malformed
      i = this.skipSpace(i + 1)
      const start = i
      i =
        field === Field.args && bytes[i] === openBrace
          ? this.#object(i, argByLength, 1)
          : this.#value(i, depth + 1)
      if (i < 0) return i
      if (field >= 0) {
        this.starts[field] = start
        this.ends[field] = i
      }
      i = this.skipSpace(i)
      if (i >= this.length) return incomplete
      const byte = bytes[i]!
      if (byte === closeBrace) return i + 1
      if (byte !== comma) return malformed
      i = this.skipSpace(i + 1)
    }
  }

  // ---- what a field holds

  has(field: number): boolean {
    return this.starts[field]! >= 0
  }

  isText(field: number): boolean {
    const start = this.starts[field]!
    return start >= 0 && this.bytes[start] === quote
  }

  isObject(field: number): boolean {
    const start = this.starts[field]!
    return start >= 0 && this.bytes[start] === openBrace
  }

  /** First byte of a text field; -1 for any other and for an empty one. */
  initial(field: number): number {
    if (!this.isText(field)) return -1
    const at = this.starts[field]! + 1
    return this.ends[field]! - at === 2 ? this.bytes[at]! : -1
  }

  /** The field as it is written. */
  source(field: number): string {
    const start = this.starts[field]!
    return start < 0 ? "" : this.slice(start, this.ends[field]!)
  }

  slice(start: number, end: number): string {
    // Buffer's decoder is several times faster than TextDecoder on pieces this short.
    return Buffer.from(this.bytes.buffer, this.bytes.byteOffset + start, end - start).toString("utf8")
  }

  /** Of the last `number` that had a point: what stands before it, and the rest from the point on. */
  whole = 0
  rest = 0
  /** Of the last `number` that was whole and too large for its digits to be exact: its billions, and the rest; -1 of any other. */
  billions = -1
  belowBillion = 0

  /** A number, also when it was written as a text; NaN for anything else. */
  number(field: number): number {
    let start = this.starts[field]!
    this.whole = this.rest = 0
    this.billions = -1
    if (start < 0) return Number.NaN
    let end = this.ends[field]!
    const { bytes } = this
    if (bytes[start] === quote) {
      start++
      end--
    }
    let mantissa = 0
    let digits = 0
    let decimals = -1
    const negative = bytes[start] === 0x2d
    let i = negative ? start + 1 : start
    for (; i < end; i++) {
      const byte = bytes[i]!
      if (byte >= 0x30 && byte <= 0x39) {
        mantissa = mantissa * 10 + (byte - 0x30)
        digits++
        if (decimals >= 0) decimals++
        else this.whole = mantissa
      } else if (byte === 0x2e && decimals < 0) decimals = 0
      else break
    }
    // Up to 2^53 the digits are exact, and so are these powers of ten: their quotient is the nearest number, as Number() says.
    if (i === end && digits > 0 && mantissa <= Number.MAX_SAFE_INTEGER && decimals < powersOfTen.length) {
      if (decimals <= 0) return negative ? -mantissa : mantissa
      const power = powersOfTen[decimals]!
      this.rest = (mantissa - this.whole * power) / power
      return negative ? -mantissa / power : mantissa / power
    }
    const text = this.slice(start, end).trim()
    const value = text === "" ? Number.NaN : Number(text)
    if (/^\d{16,20}$/u.test(text)) {
      this.billions = Number(text.slice(0, -9))
      this.belowBillion = Number(text.slice(-9))
    }
    const point = /^\d{1,16}(\.\d+)$/u.exec(text)
    this.rest = point === null ? 0 : Number(point[1])
    return Number.isFinite(value) ? value : Number.NaN
  }
}

const powersOfTen = Array.from({ length: 16 }, (_, power) => Number(`1e${power}`))

/** What makes an object look like an event, and not like a value inside one. */
const eventKeys = new Set(["ph", "cat", "name", "pid", "tid", "ts", "dur", "id", "args", "bp", "s", "cname"])

const isSpace = (byte: number | undefined): boolean =>
  byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09

const before = (bytes: Uint8Array, at: number, from: number): number => {
  let i = at - 1
  while (i > from && isSpace(bytes[i])) i--
  return i
}

/**
 * After an event that is no JSON: where the next one begins (its brace), or where the array ends (its bracket). `whole`
 * says that no bytes follow. `incomplete` where neither is in sight.
 */
export const nextEvent = (bytes: Uint8Array, length: number, from: number, whole: boolean): number => {
  for (let i = from + 1; i < length; i++) {
    const byte = bytes[i]
    if (byte === openBrace) {
      const separator = before(bytes, i, from)
      if (bytes[separator] !== comma || bytes[before(bytes, separator, from - 1)] !== closeBrace) continue
      let key = i + 1
      while (key < length && isSpace(bytes[key])) key++
      if (key >= length) return incomplete
      if (bytes[key] !== quote) continue
      let end = key + 1
      while (end < length && end - key < 8 && bytes[end] !== quote) end++
      if (end >= length) return incomplete
      const name = Buffer.from(bytes.buffer, bytes.byteOffset + key + 1, end - key - 1).toString("latin1")
      if (eventKeys.has(name)) return i
    } else if (byte === closeBracket && bytes[before(bytes, i, from)] === closeBrace) {
      let after = i + 1
      while (after < length && isSpace(bytes[after])) after++
      if (after >= length) return whole ? i : incomplete
      if (bytes[after] === comma) {
        let key = after + 1
        while (key < length && isSpace(bytes[key])) key++
        if (key >= length) return incomplete
        // Inside an event, what follows a list's comma is a value's name too: only a known member ends the events.
        if (bytes[key] === quote && memberAt(bytes, length, key) !== undefined) return i
      } else if (bytes[after] === closeBrace) {
        let end = after + 1
        while (end < length && isSpace(bytes[end])) end++
        if (end >= length) return whole ? i : incomplete
      }
    }
  }
  return incomplete
}

/** Members that stand beside the events, as PyTorch's and others' traces have them. */
const memberNames =
  /^"(traceEvents|schemaVersion|deviceProperties|distributedInfo|displayTimeUnit|traceName|trace_id|baseTimeNano\w*|cuda_\w+_version|cupti_version|record_shapes|with_\w+|profile_memory|otherData|metadata|systemTraceEvents|samples|stackFrames|powerTraceAsString|hostname|rank|world_size|INFO|WARNING|ERROR)"\s*:/u

const memberAt = (bytes: Uint8Array, length: number, at: number): string | undefined =>
  memberNames.exec(
    Buffer.from(bytes.buffer, bytes.byteOffset + at, Math.min(64, length - at)).toString("latin1")
  )?.[1]

/** After a member that is no JSON: where the next known one begins (its quote); `incomplete` where none is in sight. */
export const nextMember = (bytes: Uint8Array, length: number, from: number): number => {
  for (let i = from + 1; i < length; i++) {
    if (bytes[i] !== quote || bytes[before(bytes, i, from)] !== comma) continue
    if (memberAt(bytes, length, i) !== undefined) return i
    if (length - i < 64) return incomplete
  }
  return incomplete
}
