// Timed ops as one table, and the one lookup: how long a launch takes by rows of its kernel, of its kind, of its shape or of
// others, on the device they were measured on or another. Always says how it was come by. Knows nothing of programs.
import type { Kernel, Work } from "../kernels/kernel.ts"
import { exp, log } from "../elementary.ts"
import { countsArithmetic, measureSizes, type Measure, type Sizes } from "../kernels/measure.ts"
import { dtypeBits, type Dtype } from "../machine/tensor.ts"
import type { OpCost } from "../profile.ts"
import { WorkCurve, type Where } from "./curve.ts"
import type { Device } from "./devices.ts"
import {
  loadOf,
  measuredRow,
  shapeOf,
  unlikeness,
  unsaidDtype,
  type Load,
  type MeasuredRow
} from "./measures.ts"
import type { Cost } from "./provenance.ts"

/** A launch as the lookup sees it. */
export interface Launch {
  readonly kernel: Pick<Kernel, "name">
  readonly measure: Measure
  readonly sizes: Sizes
  /** Of the operands that decide the arithmetic. */
  readonly dtype: Dtype
  readonly work: Work
}

/** Anything that knows what some launches cost. */
export interface CostSource {
  /** Undefined where it knows nothing of this kind. */
  cost(launch: Launch): Cost | undefined
  /** Whether it has times of the kernel of that name itself, not only of its kind. */
  knows(kernel: string): boolean
  /** The shortest launch measured, seconds: what is not measured at all takes no less. 0 where none is known. */
  readonly shortestSeconds: number
}

interface OpTableOptions {
  /** Device that the rows were measured on, as the profile names it; peak rates where it is a known one. */
  readonly measuredOn: { readonly name: string; readonly device: Device | undefined }
  /** Device to tell the times of; default: the one measured. */
  readonly device?: Device | undefined
}

/** Rows of one shape (a weight, a set of heads), by work. */
interface Series {
  readonly shape: ReadonlyArray<number>
  readonly curve: WorkCurve
  readonly rows: number
}

/** Rows of one name and dtype. */
interface Rows {
  readonly name: string
  readonly measure: Measure
  readonly dtype: Dtype | undefined
  readonly exact: ReadonlyMap<string, number>
  readonly series: ReadonlyArray<Series>
}

/** Kinds whose rows stand for a kind that was not measured, by the bytes they move. */
const likeCopies: ReadonlySet<Measure> = new Set(["traffic", "copy", "decode_attention"])
const toHost: ReadonlySet<Measure> = new Set(["h2d", "d2h"])

const keyOf = (measure: Measure, sizes: Sizes): string =>
  measureSizes[measure].map((name) => sizes[name]).join(" ")

/** Best rates that the rows reached: what work is counted in. */
interface Rates {
  readonly flops16PerSecond: number
  readonly bytesPerSecond: number
}

const bestRates = (rows: ReadonlyArray<MeasuredRow>, device: Device | undefined): Rates => {
  let flops16 = 0
  let bytes = 0
  for (const { load, seconds } of rows) {
    flops16 = Math.max(flops16, load.flops16 / seconds)
    bytes = Math.max(bytes, load.bytes / seconds)
  }
  return {
    flops16PerSecond: flops16 > 0 ? flops16 : (device?.flopsPerSecond ?? Infinity),
    bytesPerSecond: bytes > 0 ? bytes : (device?.memoryBytesPerSecond ?? Infinity)
  }
}

const workAt = ({ flops16PerSecond, bytesPerSecond }: Rates, { flops16, bytes }: Load): number =>
  Math.max(flops16 / flops16PerSecond, bytes / bytesPerSecond)

/** Timed ops of one device, asked for the times of others on that or another device (docs/costs.md). */
export class OpTable implements CostSource {
  readonly #rows: ReadonlyArray<Rows>
  readonly #onDevice: Rates
  readonly #onLink: Rates
  /** Rates of the device asked for over those of the device measured. */
  readonly #faster: { readonly flops: number; readonly bytes: number }
  readonly #otherDevice: string | undefined
  readonly shortestSeconds: number
  /** The device the rows were measured on, where its peak rates are known. */
  readonly measuredOn: Device | undefined
  /** Names of rows that are of no known kind. */
  readonly unread: ReadonlyArray<string>

  constructor(ops: ReadonlyArray<OpCost>, { measuredOn, device }: OpTableOptions) {
    this.measuredOn = measuredOn.device
    const rows: Array<MeasuredRow> = []
    const unread = new Set<string>()
    for (const op of ops) {
      const row = measuredRow(op)
      if (row !== undefined && row.seconds > 0) rows.push(row)
      else unread.add(op.op)
    }
    this.unread = [...unread]
    const onDevice = rows.filter(({ measure }) => !toHost.has(measure))
    this.#onDevice = bestRates(onDevice, measuredOn.device)
    this.#onLink = bestRates(
      rows.filter(({ measure }) => toHost.has(measure)),
      undefined
    )
    this.shortestSeconds = onDevice.length === 0 ? 0 : Math.min(...onDevice.map(({ seconds }) => seconds))
    const other = device !== undefined && device.name !== measuredOn.name ? device : undefined
    const from = measuredOn.device
    this.#faster =
      other === undefined || from === undefined
        ? { flops: 1, bytes: 1 }
        : {
            flops: other.flopsPerSecond / from.flopsPerSecond,
            bytes: other.memoryBytesPerSecond / from.memoryBytesPerSecond
          }
    this.#otherDevice =
      other === undefined
        ? undefined
        : from === undefined
          ? `, as on ${measuredOn.name}, whose peak rates are not known`
          : `, from ${measuredOn.name} to ${other.name} by their peak rates`
    this.#rows = [...Map.groupBy(rows, ({ name, dtype }) => `${name} ${dtype}`).values()].map((group) =>
      this.#seriesOf(group)
    )
  }

  get isEmpty(): boolean {
    return this.#rows.length === 0
  }

  knows(kernel: string): boolean {
    return this.#rows.some(({ name }) => name === kernel)
  }

  #rates(measure: Measure): Rates {
    return toHost.has(measure) ? this.#onLink : this.#onDevice
  }

  #seriesOf(group: ReadonlyArray<MeasuredRow>): Rows {
    const { name, measure, dtype } = group[0]!
    const rates = this.#rates(measure)
    // A launch takes its time whatever it does: a kind whose shortest is about as short as any is bound by that.
    const shortest = Math.min(...group.map(({ seconds }) => seconds))
    const launchBound = toHost.has(measure) || shortest <= 2 * this.shortestSeconds
    const least = launchBound ? shortest : this.shortestSeconds
    const shapes = Map.groupBy(group, ({ sizes }) => shapeOf(measure, sizes).join(" x "))
    const series = [...shapes.values()].map((rows): Series => {
      const points = rows.map(({ load, seconds }) => ({ work: workAt(rates, load), seconds }))
      return {
        shape: shapeOf(measure, rows[0]!.sizes),
        curve: new WorkCurve(points, least),
        rows: rows.length
      }
    })
    const exact = new Map(group.map(({ sizes, seconds }) => [keyOf(measure, sizes), seconds]))
    return { name, measure, dtype, exact, series }
  }

  cost(launch: Launch): Cost | undefined {
    const rows = this.#choose(launch)
    if (rows === undefined) return undefined
    const own = rows.name === launch.kernel.name
    const { dtype } = rows
    const bits = dtypeBits[launch.dtype]
    // Rows of its own name are rows of its own work, however much that is; of others only the work is comparable.
    const { flops, readBytes, writtenBytes } = launch.work
    const actual: Load = { flops16: (flops * bits) / 16, bytes: readBytes + writtenBytes }
    const plain = rows.measure === launch.measure ? loadOf(launch.measure, launch.sizes, bits) : undefined
    const alike = plain !== undefined && (own || !countsArithmetic(launch.measure) || isLike(plain, actual))
    const sameDtype =
      plain === undefined || !countsArithmetic(launch.measure) || (dtype ?? unsaidDtype) === launch.dtype
    const moved = toHost.has(launch.measure) ? undefined : this.#otherDevice
    if (alike && sameDtype && moved === undefined) {
      const seconds = rows.exact.get(keyOf(launch.measure, launch.sizes))
      if (seconds !== undefined) return { seconds, provenance: "exact", detail: "" }
    }
    const load = alike ? plain : actual
    const rates = this.#rates(launch.measure)
    const work = workAt(
      moved === undefined
        ? rates
        : {
            flops16PerSecond: rates.flops16PerSecond * this.#faster.flops,
            bytesPerSecond: rates.bytesPerSecond * this.#faster.bytes
          },
      load
    )
    const { seconds, where, shape } = secondsOf(rows, launch, work)
    const scaling = [
      alike ? "" : ", by the work they have in common",
      sameDtype ? "" : `, from ${dtype ?? unsaidDtype} to ${launch.dtype} by bits`,
      moved ?? ""
    ].join("")
    const measured = {
      own: `rows of ${rows.name}`,
      turned: `rows of ${rows.name} with sides exchanged`,
      others:
        rows.series.length === 1
          ? `rows of one other shape of ${rows.name}`
          : `${rows.series.length} other shapes of ${rows.name}, the nearest counting most`
    }[shape]
    const provenance =
      where === "above" || where === "below"
        ? "extrapolated"
        : scaling !== "" || shape !== "own"
          ? "scaled"
          : "interpolated"
    const detail = `${places[where]} ${measured}${scaling}`
    // Of a device whose peak rates nobody knows, times are taken as they are.
    const carriedOver = moved !== undefined && this.measuredOn !== undefined
    return { seconds, provenance, detail, ...(carriedOver ? { carriedOver } : {}) }
  }

  /** What a row takes on the device that the table is for; one of no known kind by its arithmetic. */
  secondsOf(row: OpCost): number {
    if (this.#otherDevice === undefined) return row.medianSeconds
    const read = measuredRow(row)
    if (read === undefined) return row.medianSeconds / this.#faster.flops
    const { name, measure, sizes, dtype = unsaidDtype, load } = read
    const work = { flops: (load.flops16 * 16) / dtypeBits[dtype], readBytes: load.bytes, writtenBytes: 0 }
    return this.cost({ kernel: { name }, measure, sizes, dtype, work })!.seconds
  }

  /** Its own rows before those of its kind, its own dtype before others; copies for what only moves bytes. */
  #choose({ kernel, measure, dtype }: Launch): Rows | undefined {
    const rank = (rows: Rows): number =>
      (rows.name === kernel.name ? 4 : 0) +
      (rows.measure === measure ? 2 : 0) +
      ((rows.dtype ?? unsaidDtype) === dtype ? 1 : 0)
    let best: Rows | undefined
    for (const rows of this.#rows) {
      const usable =
        rows.measure === "traffic"
          ? // What moves bytes does so at its own rate: rows of one such kernel say nothing of another.
            rows.name === kernel.name
          : rows.measure === measure || (rows.measure === "copy" && likeCopies.has(measure))
      if (usable && (best === undefined || rank(rows) > rank(best))) best = rows
    }
    return best
  }
}

const places: Readonly<Record<Where, string>> = {
  point: "as",
  between: "between",
  below: "below all",
  above: "beyond all"
}

/** Whether a launch does what the plain kernel of its kind does: a bias more or less, but no second pass. */
const isLike = (plain: Load, actual: Load): boolean =>
  Math.abs(actual.flops16 - plain.flops16) <= 0.01 * plain.flops16 &&
  Math.abs(actual.bytes - plain.bytes) <= 0.1 * plain.bytes

interface Told {
  readonly seconds: number
  readonly where: Where
  readonly shape: "own" | "turned" | "others"
}

/**
 * By the curve of its own shape. A shape that was not measured takes what the measured ones take for as much work: the
 * geometric mean, each weighted by the inverse square of its distance.
 */
const secondsOf = ({ measure, series }: Rows, launch: Launch, work: number): Told => {
  if (series.length === 1 && series[0]!.shape.length === 0)
    return { ...series[0]!.curve.secondsAt(work), shape: "own" }
  const comparable = launch.measure === measure
  let logs = 0
  let weights = 0
  let below = true
  let above = true
  for (const { shape, curve } of series) {
    const distance = comparable ? unlikeness(measure, shape, launch.sizes) : 1
    const at = curve.secondsAt(work)
    if (distance === 0) {
      const straight = shapeOf(measure, launch.sizes).every((value, i) => value === shape[i])
      return { ...at, shape: straight ? "own" : "turned" }
    }
    logs += log(at.seconds) / distance
    weights += 1 / distance
    below &&= at.where === "below"
    above &&= at.where === "above"
  }
  return {
    seconds: exp(logs / weights),
    where: below ? "below" : above ? "above" : "between",
    shape: "others"
  }
}
