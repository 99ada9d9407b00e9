// When requests came, as traces say it: by a clock, whose unit the field's name tells, or the size of its numbers; or by how long after
// the one before. Knows names of fields, and no format.
import { commaHint } from "../text.ts"
import { showValue, TraceError } from "../trace-error.ts"

type Unit = "s" | "ms" | "us" | "ns"
export const perSecondOf = { s: 1, ms: 1e3, us: 1e6, ns: 1e9 } as const satisfies Record<Unit, number>

/** Names are compared without case, spaces, dashes and underscores. */
export const plainName = (name: string): string => name.toLowerCase().replaceAll(/[\s_-]/gu, "")

/** The first of `names` that is among `given`: its position; -1 for none. */
export const positionOf = (given: ReadonlyArray<string>, names: ReadonlyArray<string>): number => {
  const plain = given.map(plainName)
  for (const name of names) {
    const at = plain.indexOf(name)
    if (at >= 0) return at
  }
  return -1
}

const clockNames = ["timestamp", "createdtime", "createdat", "arrivedat", "arrivaltimestamp", "arrivaltime", "arrival", "start", "starttime", "starttimestamp", "sendtime", "sendtimestamp", "requesttime", "requesttimestamp", "submittime", "sessionstartat", "time", "t"] // prettier-ignore
/** Of them, those of tools that count seconds. */
const secondsNames = ["arrivedat", "arrivaltimestamp", "sessionstartat", "t"]
/** A word alone that may be anything; with a unit it says when. */
const withUnit = ["start"]
/** Between two requests of anybody, and between an answer and the next request of its session. */
const betweenNames = ["interarrivaltime", "interarrival", "arrivalinterval"]
const thinkNames = ["thinktime", "delay"]

const suffixes: ReadonlyArray<readonly [suffix: string, unit: Unit]> = [
  ["s", "s"],
  ["sec", "s"],
  ["seconds", "s"],
  ["ms", "ms"],
  ["milliseconds", "ms"],
  ["us", "us"],
  ["microseconds", "us"],
  ["ns", "ns"],
  ["nanoseconds", "ns"]
]

export interface TimeField {
  readonly at: number
  readonly name: string
  /** Where the name says it. */
  readonly unit: Unit | undefined
}

const fieldOf = (given: ReadonlyArray<string>, names: ReadonlyArray<string>): TimeField | undefined => {
  const plain = given.map(plainName)
  for (const name of names) {
    const found = (at: number, unit: Unit | undefined): TimeField => ({ at, name: given[at]!, unit })
    const bare = withUnit.includes(name) ? -1 : plain.indexOf(name)
    if (bare >= 0) return found(bare, secondsNames.includes(name) ? "s" : undefined)
    for (const [suffix, unit] of suffixes) {
      const at = plain.indexOf(name + suffix)
      if (at >= 0) return found(at, unit)
    }
  }
  return undefined
}

/** Which of fields says when. */
export const clockOf = (given: ReadonlyArray<string>): TimeField | undefined => fieldOf(given, clockNames)

/** Which says how long after the request before, whoever's it was. */
export const betweenOf = (given: ReadonlyArray<string>): TimeField | undefined => fieldOf(given, betweenNames)

/** Which says how long after the answer before, in its session. */
export const thinkOf = (given: ReadonlyArray<string>): TimeField | undefined => fieldOf(given, thinkNames)

/** Whether a clock says when a session began, not its request. */
export const isSessionStart = ({ name }: TimeField): boolean => plainName(name).startsWith("sessionstart")

/** The unit of times by the latest of them: counted from 1970, 10 digits are seconds, 13 milliseconds, 16 microseconds, 19 nanoseconds. */
export const unitOf = (latest: number, usual: Unit): Unit =>
  latest >= 1e17 ? "ns" : latest >= 1e14 ? "us" : latest >= 1e11 ? "ms" : latest >= 1e9 ? "s" : usual

/** Whole units and the fraction of the next, apart: counted from 1970 they would not fit into one number. */
export interface Moment {
  readonly whole: number
  readonly fraction: number
}

export const momentOfNumber = (value: number): Moment => {
  const whole = Math.floor(value)
  return { whole, fraction: value - whole }
}

/** Nanoseconds since 1970 are 2e18. */
const latestTime = 1e19

const date = /^(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(\.\d+)?(?: ?(?:Z|UTC)|([+-])(\d\d):?(\d\d))?$/u

/** A number, as it is or as a text; of a date, seconds since 1970. Throws `TraceError`. */
export const momentOf = (file: string, field: string, value: unknown, accepted: string): Moment => {
  const text = typeof value === "string" ? value.trim() : ""
  const number =
    typeof value === "number"
      ? value
      : /^\d+(?:\.\d*)?(?:e[+-]?\d+)?$/iu.test(text)
        ? Number(text)
        : Number.NaN
  if (number >= 0 && number <= latestTime) return momentOfNumber(number)
  const match = date.exec(text)
  const part = (index: number) => Number(match?.[index] ?? Number.NaN)
  const seconds = Date.UTC(part(1), part(2) - 1, part(3), part(4), part(5), part(6)) / 1000
  // What is no date of the calendar, or no time of a day, rolls over to one.
  const isDate =
    match !== null &&
    Number.isFinite(seconds) &&
    new Date(1000 * seconds).toISOString().startsWith(`${text.slice(0, 10)}T${text.slice(11, 19)}.`)
  if (!isDate || part(9) > 23 || part(10) > 59) {
    throw new TraceError({
      file,
      field,
      value: showValue(value),
      accepted: `${accepted}, or a time such as "2023-11-16 18:17:03.9799600"${commaHint(text)}`
    })
  }
  const offset = (match[8] === "-" ? -1 : 1) * (Number(match[9] ?? 0) * 3600 + Number(match[10] ?? 0) * 60)
  return { whole: seconds - offset, fraction: Number(match[7] ?? 0) }
}

/** Waits of sessions, added up: a request comes so long after its session's clock, answers taking no time. */
export class Waits {
  readonly #sums = new Map<string, number>()
  any = false

  /** How long after the last time given in `session` the request comes, with `wait` more; in the waits' unit. */
  after(session: string, wait: number): number {
    const sum = (this.#sums.get(session) ?? 0) + wait
    this.#sums.set(session, sum)
    this.any ||= wait > 0
    return sum
  }

  /** A time is given: waits of `session` count from it. */
  restart(session: string): void {
    this.#sums.delete(session)
  }
}

/** A moment so many units later. */
export const later = ({ whole, fraction }: Moment, units: number): Moment => ({
  whole,
  fraction: fraction + units
})
