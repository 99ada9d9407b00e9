// One rank's lanes on paper: when each op of a program would start, were every op to take what it takes alone. For planners, which
// must know what their messages hide behind before anything runs. Edges are those that the machines derive; there is no engine, no
// other rank, no memory that ends and no values.
import * as Effect from "effect/Effect"
import type { World } from "../world.ts"
import { Dependencies, touchedBy, type Touched } from "./dependencies.ts"
import { laneCount } from "./lane.ts"
import { Machine, type Program } from "./machine.ts"
import type { Op } from "./op.ts"
import { tensorOf } from "./tensor.ts"

interface PaperOptions {
  readonly world: World
  /** Seconds of an op of step `step`, of which some ended before. */
  readonly seconds: (op: Op, step: number) => number
  readonly onStart?: (op: Op, step: number, startSeconds: number) => void
}

/** When the last of what rank 0 submits ends, seconds. Dies for a program that asks for values or for the time. */
export const onPaper = (program: Program<void>, { world, seconds, onStart }: PaperOptions): number => {
  const dependencies = new Dependencies()
  const ends: Array<number> = []
  const free = new Float64Array(laneCount)
  const touched = new Map<Op, Touched>()
  let tensors = 0
  let step = 0
  const never = (): never => {
    throw new Error("a program on paper is asked for what it computes or when")
  }
  const service: Machine["Service"] = {
    rank: 0,
    world,
    alloc: (spec) =>
      Effect.sync(() => {
        const tensor = tensorOf(tensors++, spec)
        dependencies.allocated(tensor)
        return tensor
      }),
    free: () => undefined,
    freeBytes: () => Infinity,
    submit: (op) => {
      let names = touched.get(op)
      if (names === undefined) touched.set(op, (names = touchedBy(op)))
      const id = ends.length
      dependencies.derive(id, op.lane, names)
      let start = free[op.lane]!
      for (let i = 0; i < dependencies.edgeCount; i++) start = Math.max(start, ends[dependencies.edges[i]!]!)
      onStart?.(op, step, start)
      const end = start + seconds(op, step)
      ends.push(end)
      free[op.lane] = end
      return id
    },
    read: never,
    endStep: Effect.sync(() => {
      step++
    }),
    drain: Effect.void,
    ready: never,
    now: Effect.sync(never),
    sleepUntil: never
  }
  Effect.runSync(Effect.provideService(program, Machine, service))
  return Math.max(...free)
}
