// Options, numbers and names on the command lines of benches: one that is none ends the process with what would do, and is not
// measured with.
import { parseArgs } from "node:util"
import * as Result from "effect/Result"
import { messageOf } from "../core/message-of.ts"
import type { UnitFailure } from "../core/units.ts"

const refuse = (name: string, given: string, accepted: string): never => {
  process.stderr.write(`${name}: ${given} is not accepted; expected ${accepted}\n`)
  process.exit(2)
}

/** As `parseArgs`; an option that there is not ends the process in one line. */
export const optionsOf: typeof parseArgs = (config) => {
  try {
    return parseArgs(config)
  } catch (cause) {
    process.stderr.write(`${messageOf(cause)}\n`)
    process.exit(2)
  }
}

/** As `layers` of `--layers 12`, or what stands in its place. */
export const wholeNumber = (name: string, given: string, least = 1): number => {
  const number = Number(given)
  const fits = /^\d+$/u.test(given) && Number.isSafeInteger(number) && number >= least
  return fits ? number : refuse(name, given, `a whole number, at least ${least}`)
}

/** Greater than 0, and at most `most`. */
export const positiveNumber = (name: string, given: string, most = Infinity): number => {
  const number = Number(given)
  if (given.trim() !== "" && number > 0 && number <= most && number < Infinity) return number
  return refuse(
    name,
    given,
    most === Infinity ? "a number greater than 0" : `a number greater than 0, at most ${most}`
  )
}

/** A list such as 1,2,4, each of which `one` reads. */
export const numbersOf = (
  name: string,
  given: string,
  one: (name: string, given: string) => number
): ReadonlyArray<number> => given.split(",").map((part) => one(name, part))

/** One of `known`. */
export const nameOf = <Name extends string>(
  option: string,
  given: string,
  known: ReadonlyArray<Name>,
  between = ", "
): Name => known.find((name) => name === given) ?? refuse(option, given, known.join(between))

/** A list of such names. */
export const namesOf = <Name extends string>(
  option: string,
  given: string,
  known: ReadonlyArray<Name>,
  between = ","
): ReadonlyArray<Name> =>
  given.split(between).map((name) => nameOf(option, name, known, between === "," ? ", " : between))

/** What ranks run on. */
export const backendOf = (given: string): "cpu" | "cuda" => nameOf("--backend", given, ["cpu", "cuda"])

/** A quantity with its unit, SI. */
export const quantityOf = (
  name: string,
  given: string,
  parse: (text: string) => Result.Result<number, UnitFailure>
): number => {
  const parsed = parse(given)
  return Result.isSuccess(parsed) ? parsed.success : refuse(name, given, parsed.failure.accepted)
}

/** What `read` makes of it, which throws an Error that says what it expects. */
export const readBy = <A>(name: string, given: string, read: (text: string) => A): A => {
  try {
    return read(given)
  } catch (cause) {
    return refuse(name, given, messageOf(cause))
  }
}
