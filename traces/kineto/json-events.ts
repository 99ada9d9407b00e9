// Takes a Chrome trace apart as its bytes arrive: the elements of `traceEvents` one by one, and the few small members
// beside it. Memory is one element, however large the file. Knows nothing of what the events mean.
import { showValue, TraceError } from "../trace-error.ts"

export interface TraceReceiver {
  /** One element of `traceEvents`: its number, its parsed value and the text it was parsed from. */
  event(index: number, value: unknown, text: string): void
  /** Any other member of the top-level object that is not larger than `largestMember`. */
  member(name: string, value: unknown): void
}

/** Bytes above which a member beside `traceEvents`, or one event, is not kept: neither is ever that large in a trace. */
const largestMember = 1 << 20
const largestEvent = 16 << 20

const quote = 0x22
const backslash = 0x5c
const openBrace = 0x7b
const closeBrace = 0x7d
const openBracket = 0x5b
const closeBracket = 0x5d
const comma = 0x2c
const colon = 0x3a

const isSpace = (byte: number): boolean => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09

const accepted = "a PyTorch profiler trace in JSON (Chrome trace format), gzip-compressed or not"

// Where the scanner stands between values; inside a value it is always "value".
type State = "start" | "key" | "colon" | "value" | "afterMember" | "events" | "event" | "afterEvent" | "end"

/**
 * Feed it the bytes of a file (already decompressed) with `push`, then call `finish`. Accepts the object form
 * (`{"traceEvents": [...], ...}`) and the bare array form, which may lack its closing bracket, as Chrome permits.
 * Throws `TraceError` on anything that is not that, or ends early.
 */
export class JsonEvents {
  readonly #file: string
  readonly #receiver: TraceReceiver
  #state: State = "start"
  #bareArray = false
  #sawEvents = false
  #index = 0
  #member = ""
  // The value under way: its bytes so far, how deep it is nested, and whether the scanner is inside a string.
  #pending = new Uint8Array(1 << 16)
  #length = 0
  #dropped = false
  #depth = 0
  #inString = false
  #escaped = false
  #scalar = false
  #first = true

  constructor(file: string, receiver: TraceReceiver) {
    this.#file = file
    this.#receiver = receiver
  }

  get events(): number {
    return this.#index
  }

  push(chunk: Uint8Array): void {
    let i = 0
    if (this.#first && chunk.length > 0) {
      // A byte order mark, if any, comes in one piece with the first chunk of any file.
      this.#first = false
      if (chunk[0] === 0xef && chunk[1] === 0xbb && chunk[2] === 0xbf) i = 3
    }
    while (i < chunk.length) {
      if (this.#state === "value" || this.#state === "event") {
        i = this.#continueValue(chunk, i)
        continue
      }
      const byte = chunk[i]!
      if (isSpace(byte)) {
        i++
        continue
      }
      i = this.#between(byte, i)
    }
  }

  finish(): void {
    // A bare number, true or null at the very end has no byte after it to end it.
    if (this.#scalar && (this.#state === "value" || this.#state === "event")) this.#endValue()
    if (this.#state === "end") {
      if (!this.#sawEvents) throw this.#bad("traceEvents", "missing", accepted)
      return
    }
    if (this.#bareArray && (this.#state === "afterEvent" || this.#state === "events")) return
    if (this.#state === "start") throw this.#bad("content", "empty", accepted)
    const field = this.#sawEvents ? `traceEvents[${this.#index}]` : "content"
    throw this.#bad(field, "cut short: the file ends here", "a complete file")
  }

  #bad(field: string, value: string, accepted: string): TraceError {
    return new TraceError({ file: this.#file, field, value, accepted })
  }

  /** One byte outside any value: structure of the top-level object and of the event array. Returns where to go on. */
  #between(byte: number, at: number): number {
    switch (this.#state) {
      case "start":
        if (byte === openBrace) this.#state = "key"
        else if (byte === openBracket) {
          this.#bareArray = true
          this.#sawEvents = true
          this.#state = "events"
        } else throw this.#unexpected(byte)
        return at + 1
      case "key":
        if (byte === closeBrace) {
          this.#state = "end"
          return at + 1
        }
        if (byte !== quote) throw this.#unexpected(byte)
        this.#member = ""
        return this.#begin("value", at)
      case "colon":
        if (byte !== colon) throw this.#unexpected(byte)
        this.#state = "afterMember"
        return at + 1
      case "afterMember":
        // After a colon comes a value; after a value, a comma or the end. `#member` tells which.
        if (this.#member !== "") {
          if (this.#member === "traceEvents" && byte === openBracket) {
            this.#sawEvents = true
            this.#member = ""
            this.#state = "events"
            return at + 1
          }
          return this.#begin("value", at)
        }
        if (byte === comma) this.#state = "key"
        else if (byte === closeBrace) this.#state = "end"
        else throw this.#unexpected(byte)
        return at + 1
      case "events":
        if (byte === closeBracket) {
          this.#state = this.#bareArray ? "end" : "afterMember"
          return at + 1
        }
        return this.#begin("event", at)
      case "afterEvent":
        if (byte === comma) this.#state = "events"
        else if (byte === closeBracket) this.#state = this.#bareArray ? "end" : "afterMember"
        else throw this.#unexpected(byte)
        return at + 1
      default:
        throw this.#unexpected(byte)
    }
  }

  #unexpected(byte: number): TraceError {
    const field = this.#sawEvents ? `after traceEvents[${this.#index - 1}]` : "content"
    return this.#bad(field, showValue(String.fromCharCode(byte)), accepted)
  }

  #begin(state: "value" | "event", at: number): number {
    this.#state = state
    this.#length = 0
    this.#dropped = false
    this.#depth = 0
    this.#inString = false
    this.#escaped = false
    this.#scalar = false
    return at
  }

  /** Consumes bytes of the value under way up to its end or the chunk's. */
  #continueValue(chunk: Uint8Array, from: number): number {
    let i = from
    let depth = this.#depth
    let inString = this.#inString
    let escaped = this.#escaped
    let ended = false
    for (; i < chunk.length; i++) {
      const byte = chunk[i]!
      if (inString) {
        if (escaped) escaped = false
        else if (byte === backslash) escaped = true
        else if (byte === quote) {
          inString = false
          if (depth === 0) {
            ended = true
            i++
            break
          }
        }
        continue
      }
      if (byte === quote) inString = true
      else if (byte === openBrace || byte === openBracket) depth++
      else if (byte === closeBrace || byte === closeBracket) {
        if (depth === 0) {
          // Ends a bare scalar; the bracket belongs to what surrounds it.
          ended = true
          break
        }
        if (--depth === 0) {
          ended = true
          i++
          break
        }
      } else if (depth === 0) {
        if (byte === comma || isSpace(byte)) {
          ended = true
          break
        }
        this.#scalar = true
      }
    }
    this.#keep(chunk, from, i)
    this.#depth = depth
    this.#inString = inString
    this.#escaped = escaped
    if (ended) this.#endValue()
    return i
  }

  #keep(chunk: Uint8Array, from: number, to: number): void {
    const length = this.#length + (to - from)
    if (this.#dropped) return
    if (this.#state === "event" && length > largestEvent) {
      throw this.#bad(
        `traceEvents[${this.#index}]`,
        `more than ${largestEvent} bytes`,
        "events of a profiler trace"
      )
    }
    if (this.#state === "value" && length > largestMember) {
      this.#dropped = true
      return
    }
    if (length > this.#pending.length) {
      const grown = new Uint8Array(Math.max(length, this.#pending.length * 2))
      grown.set(this.#pending.subarray(0, this.#length))
      this.#pending = grown
    }
    this.#pending.set(chunk.subarray(from, to), this.#length)
    this.#length = length
  }

  #endValue(): void {
    this.#scalar = false
    // Buffer's decoder is several times faster than TextDecoder on pieces this short.
    const text = Buffer.from(this.#pending.buffer, 0, this.#length).toString("utf8")
    if (this.#state === "event") {
      const field = `traceEvents[${this.#index}]`
      const value = this.#parse(field, text)
      this.#receiver.event(this.#index++, value, text)
      this.#state = "afterEvent"
      return
    }
    if (this.#member === "") {
      const key = this.#parse("content", text)
      if (typeof key !== "string") throw this.#bad("content", showValue(text), accepted)
      // A nameless member cannot be told from "between members"; no trace has one.
      if (key === "") throw this.#bad("content", 'a member named ""', accepted)
      this.#member = key
      this.#state = "colon"
      return
    }
    const name = this.#member
    if (name === "traceEvents") throw this.#bad("traceEvents", showValue(text), "an array of events")
    this.#member = ""
    this.#state = "afterMember"
    if (!this.#dropped) this.#receiver.member(name, this.#parse(name, text))
  }

  #parse(field: string, text: string): unknown {
    try {
      return JSON.parse(text)
    } catch {
      throw this.#bad(field, showValue(text), "valid JSON")
    }
  }
}
