// Serving with continuous batching on one rank: requests come in as they arrive, first come first served; each is prefilled
// by itself, joins the running batch, and leaves when it has its tokens. What limits the batch is the memory for caches.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import type { MachineError, Program } from "../../machine/machine.ts"
import { launch } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import { compute } from "../../models/decoder-ops.ts"
import { prefill } from "./prefill.ts"
import type { Sequence, ServingRequest } from "./sequence.ts"
import { Server, type ServingOutcome, type ServingPlan } from "./server.ts"

/** One rank does both phases. Prefill goes first whenever the next request fits; while it runs, decoding waits. */
export const serve = (plan: ServingPlan): Program<ServingOutcome> =>
  Effect.gen(function* () {
    const server = yield* Server.make(plan)
    const { machine } = server.decoder
    const arriving = [...plan.requests]
    while (arriving.length > 0 || server.busy) {
      const now = yield* machine.now
      const next = arriving[0]
      // With nothing running, what does not fit now never will: let the allocation say so.
      if (next !== undefined && next.arrivalSeconds <= now && (server.fits(next) || !server.busy)) {
        arriving.shift()
        const { choices, generatedRows } = server.planOf(next)
        const sequence = yield* prefill(server.decoder, next, choices, { room: generatedRows })
        server.hold(sequence.caches)
        yield* server.begin(sequence)
        yield* server.join(sequence)
      } else if (!(yield* server.step) && next !== undefined) yield* machine.sleepUntil(next.arrivalSeconds)
    }
    return server.outcome
  })

/**
 * As `serve`, with host memory as the waiting room: each layer's cache goes there as soon as prefill has made it, and comes
 * back when its request's turn in the batch has come. Prefill then waits for the room of one prompt's cache, not for a
 * place in the batch.
 */
export const serveThroughHost = (plan: ServingPlan): Program<ServingOutcome> =>
  Effect.gen(function* () {
    const server = yield* Server.make(plan)
    const { machine } = server.decoder
    const arriving = [...plan.requests]
    const parked: Array<Sequence> = []
    while (arriving.length > 0 || parked.length > 0 || server.busy) {
      yield* server.admit
      const now = yield* machine.now
      const waiting = parked[0]
      if (waiting !== undefined && (server.fitsComing(waiting.request) || !server.busy)) {
        parked.shift()
        yield* restore(server, waiting)
        continue
      }
      const next = arriving[0]
      const alone = !server.busy && parked.length === 0
      if (next !== undefined && next.arrivalSeconds <= now && (mayPark(server, next) || alone)) {
        arriving.shift()
        parked.push(yield* park(server, next))
      } else if (!(yield* server.step) && next !== undefined) yield* machine.sleepUntil(next.arrivalSeconds)
    }
    return server.outcome
  })

const mayPark = (server: Server, request: ServingRequest): boolean => {
  const { promptBytes, prefillBytes } = server.planOf(request)
  const { machine } = server.decoder
  return promptBytes + prefillBytes <= machine.freeBytes("device") && promptBytes <= machine.freeBytes("host")
}

/** Prefills a request and moves its cache to host memory. */
const park = (server: Server, request: ServingRequest): Effect.Effect<Sequence, MachineError> =>
  Effect.gen(function* () {
    const { machine } = server.decoder
    const caches: Array<Tensor> = []
    const sequence = yield* prefill(server.decoder, request, server.planOf(request).choices, {
      room: 0,
      onLayer: (layer, cache) =>
        Effect.gen(function* () {
          const { name, shape, dtype } = cache
          const host = yield* machine.alloc({ name: `${name} on host`, shape, dtype, place: "host" })
          machine.submit(launch(`layer ${layer} to host`, kernels.d2h, Lane.d2h, [cache], [host]))
          caches.push(host)
        })
    })
    server.hold(sequence.caches)
    yield* server.begin(sequence)
    server.release(sequence.caches)
    return { ...sequence, caches }
  })

/** Brings a parked cache back. */
const restore = (server: Server, parked: Sequence): Effect.Effect<void, MachineError> =>
  Effect.gen(function* () {
    const { machine } = server.decoder
    const { request, token } = parked
    const caches: Array<Tensor> = []
    for (const [layer, host] of parked.caches.entries()) {
      const { name, shape, dtype } = host
      const arrived = yield* machine.alloc({ name: `${name}, back`, shape, dtype })
      machine.submit(launch(`layer ${layer} from host`, kernels.h2d, Lane.h2d, [host], [arrived]))
      caches.push(yield* server.place(request, layer, arrived, Lane.h2d))
      machine.free(host)
    }
    // The lane is a queue: when this has been done, so has all before it.
    machine.submit({ ...compute("restored", "copy", [token], [token]), lane: Lane.h2d })
    const restored = { ...parked, caches }
    server.expect(restored, Effect.succeed(restored))
  })
