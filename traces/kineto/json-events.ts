// Takes a Chrome trace apart as its bytes arrive: the elements of `traceEvents` one by one, and the few small members
// beside it. Memory is one element, however large the file. What is no JSON is left out and counted, and the rest read.
// Knows nothing of what the events mean.
import { showValue, TraceError } from "../trace-error.ts"
import { isTooMuch } from "../left-out.ts"
import { EventScanner, incomplete, malformed, nextEvent, nextMember } from "./event-scanner.ts"

interface TraceReceiver {
  /** One element of `traceEvents`: its number, and the scanner that has just walked over it. */
  event(index: number, fields: EventScanner): void
  /** Any other member of the top-level object. */
  member(name: string, value: unknown): void
}

/** What of a file was no JSON. */
interface BrokenParts {
  /** Events left out. */
  readonly events: number
  /** Where the first was, and what began there; undefined for none. */
  readonly first: { readonly field: string; readonly value: string } | undefined
  /** Members left out. */
  readonly members: ReadonlyArray<string>
  /** Events with nan, inf or control characters, which are no JSON either, but were read. */
  readonly irregular: number
}

/** Bytes above which a member beside `traceEvents` is not kept, and above which an event is refused: none is ever so large. */
const largestMember = 1 << 20
const largestEvent = 16 << 20

const quote = 0x22
const openBrace = 0x7b
const closeBrace = 0x7d
const openBracket = 0x5b
const closeBracket = 0x5d
const comma = 0x2c
const colon = 0x3a

/** What every trace is. */
export const traceAccepted = "a PyTorch profiler trace in JSON (Chrome trace format), gzip-compressed or not"

// What the scanner expects next. Inside "events", `#separated` says whether a comma stands before what follows.
type State = "start" | "member" | "events" | "end"

/**
 * Feed it the bytes of a file (already decompressed) with `push`, then call `finish`. Accepts the object form
 * (`{"traceEvents": [...], ...}`) and the bare array form, which may lack its closing bracket, as Chrome permits.
 * Throws `TraceError` on anything that is not that, ends early, or is broken in more than one part of ten.
 */
export class JsonEvents {
  readonly #file: string
  readonly #receiver: TraceReceiver
  readonly #scanner = new EventScanner()
  #state: State = "start"
  #bareArray = false
  #sawEvents = false
  #separated = true
  #index = 0
  #broken = 0
  #firstBroken: { field: string; value: string } | undefined
  readonly #brokenMembers: Array<string> = []
  #irregular = 0
  /** Bytes not yet taken: `#buffer[#from, #to)`. */
  #buffer = new Uint8Array(1 << 12)
  #from = 0
  #to = 0
  /** How many bytes must be there before it is worth looking again. */
  #wanted = 1
  #first = true
  #recovering = false

  constructor(file: string, receiver: TraceReceiver) {
    this.#file = file
    this.#receiver = receiver
  }

  get events(): number {
    return this.#index
  }

  get broken(): BrokenParts {
    return {
      events: this.#broken,
      first: this.#firstBroken,
      members: this.#brokenMembers,
      irregular: this.#irregular
    }
  }

  push(chunk: Uint8Array): void {
    let part = chunk
    if (this.#first && chunk.length > 0) {
      // A byte order mark, if any, comes in one piece with the first chunk of any file.
      this.#first = false
      if (chunk[0] === 0xef && chunk[1] === 0xbb && chunk[2] === 0xbf) part = chunk.subarray(3)
    }
    this.#append(part)
    if (this.#to - this.#from >= this.#wanted) this.#take(false)
  }

  finish(): void {
    this.#take(true)
    if (this.#state === "start") throw this.#bad("content", "empty", traceAccepted)
    const ended = this.#state === "end" || (this.#bareArray && this.#from >= this.#to)
    if (!ended) {
      const field = this.#sawEvents ? `traceEvents[${this.#index}]` : "content"
      throw this.#bad(field, "cut short: the file ends here", "a complete file")
    }
    if (!this.#sawEvents) throw this.#bad("traceEvents", "missing", traceAccepted)
    if (isTooMuch(this.#broken, this.#index)) {
      const { field, value } = this.#firstBroken!
      throw this.#bad(field, value, `valid JSON (${this.#broken} of ${this.#index} events are none)`)
    }
  }

  #append(part: Uint8Array): void {
    const kept = this.#to - this.#from
    if (this.#to + part.length > this.#buffer.length) {
      // Behind what is left, or in twice the room where that does not suffice.
      const room =
        kept + part.length > this.#buffer.length ? new Uint8Array(2 * (kept + part.length)) : this.#buffer
      room.set(this.#buffer.subarray(this.#from, this.#to))
      this.#buffer = room
      this.#from = 0
      this.#to = kept
    }
    this.#buffer.set(part, this.#to)
    this.#to += part.length
  }

  #bad(field: string, value: string, accepts: string): TraceError {
    return new TraceError({ file: this.#file, field, value, accepted: accepts })
  }

  #unexpected(at: number): TraceError {
    const field = this.#sawEvents ? `after traceEvents[${this.#index - 1}]` : "content"
    const { length } = this.#scanner
    return this.#bad(field, showValue(this.#scanner.slice(at, Math.min(length, at + 1))), traceAccepted)
  }

  /** Takes all that is whole. `whole`: no more bytes come. */
  #take(whole: boolean): void {
    const scanner = this.#scanner
    scanner.bytes = this.#buffer
    scanner.length = this.#to
    for (;;) {
      const at = scanner.skipSpace(this.#from)
      this.#from = at
      if (at >= this.#to) break
      const next = this.#one(at, whole)
      if (next === incomplete) break
      this.#from = next
    }
    // A value that has not ended is looked at again when there is twice as much of it: so all of them take linear time.
    const left = this.#to - this.#from
    this.#wanted = left < 1 << 16 ? left + 1 : 2 * left
    if (left > largestEvent && this.#state === "events") {
      throw this.#bad(
        `traceEvents[${this.#index}]`,
        `more than ${largestEvent} bytes`,
        "events of a profiler trace"
      )
    }
  }

  /** What begins at `at`, a byte that is no space: where it ends, or `incomplete`. */
  #one(at: number, whole: boolean): number {
    const byte = this.#buffer[at]!
    switch (this.#state) {
      case "start":
        if (byte === openBracket) {
          this.#bareArray = this.#sawEvents = true
          this.#state = "events"
        } else if (byte === openBrace) this.#state = "member"
        else throw this.#unexpected(at)
        this.#separated = true
        return at + 1
      case "member":
        return this.#memberAt(at, byte, whole)
      case "events":
        return this.#eventAt(at, byte, whole)
      case "end":
        throw this.#unexpected(at)
    }
  }

  #eventAt(at: number, byte: number, whole: boolean): number {
    const scanner = this.#scanner
    if (this.#recovering) {
      const next = nextEvent(this.#buffer, this.#to, at, whole)
      if (next === incomplete) return incomplete
      this.#recovering = false
      this.#separated = true
      return next
    }
    if (byte === closeBracket) {
      this.#state = this.#bareArray ? "end" : "member"
      this.#separated = false
      return at + 1
    }
    if (byte === comma && !this.#separated) {
      this.#separated = true
      return at + 1
    }
    const end = this.#separated ? scanner.event(at) : malformed
    if (end === incomplete && !whole) return incomplete
    if (end < 0) {
      if (end === incomplete) return incomplete
      const field = this.#separated ? `traceEvents[${this.#index}]` : `after traceEvents[${this.#index - 1}]`
      this.#firstBroken ??= { field, value: showValue(scanner.slice(at, Math.min(this.#to, at + 160))) }
      this.#broken++
      this.#index++
      this.#recovering = true
      return at
    }
    if (scanner.irregular > 0) this.#irregular++
    this.#receiver.event(this.#index++, scanner)
    this.#separated = false
    return end
  }

  #memberAt(at: number, byte: number, whole: boolean): number {
    const scanner = this.#scanner
    if (byte === closeBrace && (!this.#separated || !this.#sawEvents)) {
      this.#state = "end"
      return at + 1
    }
    if (byte === comma && !this.#separated) {
      this.#separated = true
      return at + 1
    }
    if (byte !== quote || !this.#separated) throw this.#unexpected(at)
    const keyEnd = scanner.value(at)
    if (keyEnd < 0) return incomplete
    const after = scanner.skipSpace(keyEnd)
    if (after >= this.#to) return incomplete
    if (this.#buffer[after] !== colon) throw this.#unexpected(after)
    const from = scanner.skipSpace(after + 1)
    if (from >= this.#to) return incomplete
    const name = parsed(scanner.slice(at, keyEnd))
    if (typeof name !== "string")
      throw this.#bad("content", showValue(scanner.slice(at, keyEnd)), traceAccepted)
    if (name === "traceEvents" && this.#buffer[from] === openBracket) {
      this.#sawEvents = true
      this.#state = "events"
      this.#separated = true
      return from + 1
    }
    const end = scanner.value(from)
    if (end === incomplete) return incomplete
    if (end === malformed) return this.#withoutMember(name, at, from, whole)
    const text = scanner.slice(from, end)
    if (name === "traceEvents") throw this.#bad("traceEvents", showValue(text), "an array of events")
    this.#separated = false
    if (end - from > largestMember) return end
    const value = parsed(text)
    if (value === undefined) this.#brokenMembers.push(name)
    else this.#receiver.member(name, value)
    return end
  }

  /** A member that is no JSON is left out where the one after it can be found. */
  #withoutMember(name: string, at: number, from: number, whole: boolean): number {
    const next = nextMember(this.#buffer, this.#to, from)
    if (next === incomplete && !whole) return incomplete
    if (next === incomplete && !this.#sawEvents) {
      throw this.#bad(
        name,
        showValue(this.#scanner.slice(from, Math.min(this.#to, from + 160))),
        "valid JSON"
      )
    }
    this.#brokenMembers.push(name)
    if (next === incomplete) {
      // Nothing known follows, and the events are in: the rest of the file is this member.
      this.#state = "end"
      return this.#to
    }
    this.#separated = true
    return Math.max(next, at + 1)
  }
}

/** The value of a text that has been walked over; undefined where it is none by JSON's letter. */
const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
