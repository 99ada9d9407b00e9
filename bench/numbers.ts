// Numbers and names on the command lines of benches: one that is none ends the process with what would do, and is not measured with.

const refuse = (name: string, given: string, accepted: string): never => {
  process.stderr.write(`${name}: ${given} is not accepted; expected ${accepted}\n`)
  process.exit(2)
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
