// Part of a trace as a trace of its own. Knows nothing of why.
import { Numbers, type GradientEvents, type KinetoTrace } from "./trace.ts"

/** The rows whose mark is 1, in their order. */
export const subset = (trace: KinetoTrace, hostMarks: Uint8Array, deviceMarks: Uint8Array): KinetoTrace => {
  const hostRow = renumbered(hostMarks)
  const deviceRow = renumbered(deviceMarks)
  return {
    ...trace,
    host: columns(trace.host, hostMarks),
    device: columns(trace.device, deviceMarks),
    gradients: movedGradients(trace.gradients, hostMarks, hostRow),
    functionInputs: moved(trace.functionInputs, hostMarks, hostRow),
    hostCollectives: moved(trace.hostCollectives, hostMarks, hostRow),
    deviceCollectives: moved(trace.deviceCollectives, deviceMarks, deviceRow)
  }
}

const renumbered = (marks: Uint8Array): Int32Array => {
  let next = 0
  return Int32Array.from(marks, (mark) => (mark === 1 ? next++ : -1))
}

const columns = <const A extends Readonly<Record<string, Numbers>> | object>(
  table: A,
  marks: Uint8Array
): A => {
  const kept: Record<string, Numbers> = {}
  for (const [name, column] of Object.entries(table) as ReadonlyArray<readonly [string, Numbers]>) {
    const own = new Numbers(column.kind)
    for (let row = 0; row < column.length; row++) if (marks[row] === 1) own.push(column.values[row]!)
    kept[name] = own
  }
  return kept as A
}

const moved = <V>(
  byRow: ReadonlyMap<number, V>,
  marks: Uint8Array,
  rows: Int32Array
): ReadonlyMap<number, V> => {
  const kept = new Map<number, V>()
  for (const [row, value] of byRow) if (marks[row] === 1) kept.set(rows[row]!, value)
  return kept
}

const movedGradients = (
  { row, shape, shapes, shapeless }: GradientEvents,
  marks: Uint8Array,
  rows: Int32Array
): GradientEvents => {
  const kept = { row: new Numbers(row.kind), shape: new Numbers(shape.kind), shapes, shapeless }
  for (let at = 0; at < row.length; at++) {
    const given = row.values[at]!
    if (marks[given] !== 1) continue
    kept.row.push(rows[given]!)
    kept.shape.push(shape.values[at]!)
  }
  return kept
}
