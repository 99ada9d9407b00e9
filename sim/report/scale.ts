// Scales of a chart: from values to pixels, with ticks at round numbers. A log scale gives 0 and Infinity, which have no
// place on it, slots of their own beyond its ends.

export interface Scale {
  readonly log: boolean
  /** Pixel of a value; the slots for 0 and Infinity where the scale has them. */
  readonly at: (value: number) => number
  readonly ticks: ReadonlyArray<number>
  /** Gridlines between ticks that carry no text. */
  readonly minorTicks: ReadonlyArray<number>
  /** Whether the value is in a slot beyond the scale's end. */
  readonly isBeyond: (value: number) => boolean
}

/** Pixels between the scale's end and the slot beyond it. */
const SLOT = 44

/** 1, 2, 2.5 or 5 times a power of ten: the least that gives at most `count` steps over `span`. */
const roundStep = (span: number, count: number): number => {
  const least = span / Math.max(1, count)
  const power = 10 ** Math.floor(Math.log10(least))
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= least * (1 - 1e-9))!
}

/** Linear from `from` to `to` (values) over pixels `start` to `end`. */
export const linearScale = (from: number, to: number, start: number, end: number, tickCount = 5): Scale => {
  const span = to > from ? to - from : 1
  const step = roundStep(span, tickCount)
  const ticks: Array<number> = []
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + 1e-9 * span; i++)
    ticks.push(Number((i * step).toPrecision(12)))
  return {
    log: false,
    at: (value) => start + ((value - from) / span) * (end - start),
    ticks,
    minorTicks: [],
    isBeyond: () => false
  }
}

/**
 * Logarithmic over the positive finite ones of `values`, widened by the factor `margin` on both ends. `perUnit` is what
 * ticks should be round in: 8 for bytes per second that are printed as bits per second.
 */
export const logScale = (
  values: ReadonlyArray<number>,
  start: number,
  end: number,
  options: { readonly margin?: number; readonly perUnit?: number; readonly tickCount?: number } = {}
): Scale => {
  const { margin = 1, perUnit = 1, tickCount = 7 } = options
  const regular = values.filter((value) => value > 0 && value < Infinity)
  let low = Math.min(...regular) / margin
  let high = Math.max(...regular) * margin
  // Values that differ by rounding alone, or a single one, still get an axis.
  if (!(high > low * 1.001)) {
    low = regular.length === 0 ? 0.1 : low / 2
    high = regular.length === 0 ? 10 : high * 2
  }
  const direction = Math.sign(end - start)
  const left = values.includes(0) ? start + direction * SLOT : start
  const right = values.includes(Infinity) ? end - direction * SLOT : end
  const span = Math.log(high / low)
  const { ticks, minorTicks } = logTicks(low * perUnit, high * perUnit, tickCount)
  const slots = [...(left === start ? [] : [0]), ...(right === end ? [] : [Infinity])]
  return {
    log: true,
    at: (value) =>
      value === Infinity ? end : value <= 0 ? start : left + (Math.log(value / low) / span) * (right - left),
    ticks: [...ticks.map((tick) => tick / perUnit), ...slots],
    minorTicks: minorTicks.map((tick) => tick / perUnit),
    isBeyond: (value) => slots.includes(value)
  }
}

/** Powers of ten; with 2 and 5 between them where there is room, or 1 to 9 where there is less than a decade. */
const logTicks = (low: number, high: number, count: number) => {
  const inside = (factors: ReadonlyArray<number>, everyDecades = 1): Array<number> => {
    const ticks: Array<number> = []
    const first = Math.floor(Math.log10(low)) - 1
    for (let decade = first; 10 ** decade <= high * 10; decade++) {
      if (decade % everyDecades !== 0) continue
      for (const factor of factors) {
        const tick = Number((factor * 10 ** decade).toPrecision(12))
        if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks.push(tick)
      }
    }
    return ticks
  }
  const candidates = [
    inside([1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]),
    inside([1, 2, 5]),
    inside([1, 3]),
    inside([1])
  ]
  for (let every = 2; every < 40; every++) candidates.push(inside([1], every))
  const ticks = candidates.find((ticks) => ticks.length <= count) ?? inside([1])
  const shown = new Set(ticks)
  const finer = candidates[candidates.indexOf(ticks) - 1] ?? []
  return { ticks, minorTicks: finer.filter((tick) => !shown.has(tick)).slice(0, 40) }
}
