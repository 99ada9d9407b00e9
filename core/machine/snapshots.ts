// Snapshots of what a rank must find again to go on from the end of a step: its persistent tensors, copied to the host beside
// whatever follows. Stands between a program and its machine; where the copies go is another's business.
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { kernels } from "../kernels/catalogue.ts"
import { interpose } from "./interpose.ts"
import { Lane } from "./lane.ts"
import { Machine, Misuse, type MachineError, type Program } from "./machine.ts"
import { launch, type Op } from "./op.ts"
import type { Tensor, TensorData, TensorSpec } from "./tensor.ts"

/** What becomes of a rank at the end of a step. */
export type AtStepEnd = "go on" | "snapshot" | "snapshot and stop"

export interface Snapshots {
  /** Steps that were taken before; 0 for a run from the beginning. */
  readonly from: number
  /** What a persistent tensor held after `from` steps; not asked for where that is 0. */
  readonly restored: (rank: number, tensor: Kept) => TensorData
  /** At the end of every step, 1 for the first; the rank waits for the answer. All ranks stop after the same step, if any. */
  readonly atStepEnd: (rank: number, step: number) => Effect.Effect<AtStepEnd>
  /**
   * Takes the values of `tensors` after `step`, while the rank goes on; `valuesOf` waits for a copy to arrive. The next
   * snapshot of the rank waits for its end, and so does the end of its program.
   */
  readonly take: (
    rank: number,
    step: number,
    tensors: ReadonlyArray<Kept>,
    valuesOf: (tensor: Kept) => Effect.Effect<TensorData, MachineError>
  ) => Effect.Effect<void, MachineError>
}

export type Kept = Pick<Tensor, "name" | "shape" | "dtype">

interface Copy {
  readonly tensor: Tensor
  readonly host: Tensor
  readonly op: Op
}

/** Ends a program that was stopped; nobody else dies of it. */
const stopped = Symbol("stopped")

/** Runs the program from where a snapshot was taken, and takes more; undefined where it was stopped at one. */
export const withSnapshots = <A>(program: Program<A>, snapshots: Snapshots): Program<A | undefined> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const { rank } = machine
    const kept = new Map<string, Tensor>()
    let copies: ReadonlyArray<Copy> = []
    let taking: Fiber.Fiber<void, MachineError> | undefined
    let step = snapshots.from

    const alloc = (spec: TensorSpec) => {
      const { persistent, name, shape, dtype } = spec
      if (persistent === undefined) return machine.alloc(spec)
      if (persistent === true && kept.has(name)) {
        const reason = "a persistent tensor of this name is there already"
        return Effect.die(new Misuse({ rank, call: "alloc", subject: name, reason }))
      }
      const source = persistent === true ? { name, shape, dtype } : persistent.copyOf
      const initial = snapshots.from > 0 ? () => snapshots.restored(rank, source) : spec.initial
      return Effect.map(machine.alloc({ ...spec, initial }), (tensor) => {
        if (persistent === true) kept.set(name, tensor)
        return tensor
      })
    }
    const free = (tensor: Tensor): void => {
      machine.free(tensor)
      if (kept.get(tensor.name) === tensor) kept.delete(tensor.name)
    }
    /** Host memory for each, made once. */
    const prepare = Effect.gen(function* () {
      const known = new Map(copies.map((copy) => [copy.tensor, copy]))
      for (const { tensor, host } of copies) if (kept.get(tensor.name) !== tensor) machine.free(host)
      const all: Array<Copy> = []
      for (const tensor of kept.values()) {
        let copy = known.get(tensor)
        if (copy === undefined) {
          const { name, shape, dtype } = tensor
          const host = yield* machine.alloc({ name: `${name} saved`, shape, dtype, place: "host" })
          copy = { tensor, host, op: launch(`save ${name}`, kernels.d2h, Lane.d2h, [tensor], [host]) }
        }
        all.push(copy)
      }
      copies = all
    })
    const joined = Effect.suspend(() => (taking === undefined ? Effect.void : Fiber.join(taking)))
    const snapshot = Effect.gen(function* () {
      yield* joined
      yield* prepare
      for (const { op } of copies) machine.submit(op)
      const hosts = new Map<Kept, Tensor>(copies.map(({ tensor, host }) => [tensor, host]))
      taking = yield* Effect.forkChild(
        snapshots.take(rank, step, [...hosts.keys()], (tensor) => machine.read(hosts.get(tensor)!))
      )
    })
    const endStep = Effect.gen(function* () {
      yield* machine.endStep
      step++
      const next = yield* snapshots.atStepEnd(rank, step)
      if (next === "go on") return
      yield* snapshot
      if (next === "snapshot") return
      yield* joined
      return yield* Effect.die(stopped)
    })

    const service = interpose(machine, { alloc, free, endStep })
    const value = yield* Effect.provideService(program, Machine, service).pipe(
      Effect.catchDefect((defect) => (defect === stopped ? Effect.succeed(undefined) : Effect.die(defect)))
    )
    yield* joined
    return value
  })
