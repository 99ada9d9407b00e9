// What the environment asks of property tests, checked: a mistyped seed must not quietly become another one.

interface PropertySettings {
  /** 32-bit, signed, as fast-check takes it. */
  readonly seed: number
  /** Runs of a property that names no number. */
  readonly runs: number
  /** How many times more runs than every day. */
  readonly factor: number
}

/** Errors: RangeError that names the variable, its value and what it may be. */
export function settings(environment: Readonly<Record<string, string | undefined>>): PropertySettings {
  const integer = (name: string, otherwise: number, minimum: number, maximum: number): number => {
    const text = environment[name] ?? ""
    if (text === "") return otherwise
    const value = Number(text)
    if (Number.isInteger(value) && value >= minimum && value <= maximum) return value
    throw new RangeError(`${name}=${text}: must be an integer from ${minimum} to ${maximum}`)
  }
  const soak = integer("TANDEM_SOAK", 0, 0, 100_000)
  return {
    seed: integer("TANDEM_SEED", 20_250_601, -(2 ** 31), 2 ** 31 - 1),
    runs: 100,
    factor: soak === 0 ? 1 : 20 * soak
  }
}
