// Standing between a program and its machine: to observe, to note, to answer otherwise. Whoever interposes names the calls that
// differ; all others go through as they are. Knows nothing of any machine.
import * as Effect from "effect/Effect"
import { Machine, type Program } from "./machine.ts"

type Service = Machine["Service"]

/** The machine with some of its calls replaced. */
export const interpose = (machine: Service, calls: Partial<Service>): Service => ({
  rank: machine.rank,
  world: machine.world,
  alloc: calls.alloc ?? ((spec) => machine.alloc(spec)),
  free: calls.free ?? ((tensor) => machine.free(tensor)),
  freeBytes: calls.freeBytes ?? ((place) => machine.freeBytes(place)),
  submit: calls.submit ?? ((op, scalars) => machine.submit(op, scalars)),
  read: calls.read ?? ((tensor) => machine.read(tensor)),
  endStep: calls.endStep ?? machine.endStep,
  drain: calls.drain ?? machine.drain,
  ready: calls.ready ?? ((tensor, after) => machine.ready(tensor, after)),
  now: calls.now ?? machine.now,
  sleepUntil: calls.sleepUntil ?? ((seconds) => machine.sleepUntil(seconds))
})

/** The same program on its machine with some calls replaced, as `calls` says of each rank's. */
export const interposing = <A>(
  program: Program<A>,
  calls: (machine: Service) => Partial<Service>
): Program<A> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    return yield* Effect.provideService(program, Machine, interpose(machine, calls(machine)))
  })
