// Prefill on one rank, decoding on another, and the caches on the link between them: what compression saves there is what
// this is about. Layer by layer, a cache leaves as soon as prefill has made it.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type MachineError, type Program } from "../../machine/machine.ts"
import { collective, type Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import type { Group } from "../../world.ts"
import { CachePlans } from "./admission.ts"
import type { LayerChoice } from "./choice.ts"
import { loadDecoder } from "./decoder.ts"
import { cacheSpec, listed, listSpec, prefill, tokenSpec } from "./prefill.ts"
import type { ServingRequest } from "./sequence.ts"
import { Server, type Begun, type Finished, type ServingOutcome, type ServingPlan } from "./server.ts"

/** Rank 0 prefills, rank 1 decodes. */
export const disaggregated = (plan: ServingPlan): Program<ServingOutcome> =>
  Effect.gen(function* () {
    const { rank } = yield* Machine
    return yield* rank === 0 ? prefillNode(plan) : decodeNode(plan)
  })

const pair: Group = { name: "prefill to decode", ranks: [0, 1] }

const send = (label: string, tensor: Tensor): Op =>
  collective(label, kernels.send_recv, Lane.inter, pair, [tensor], [], { attributes: { source: true } })

const receive = (label: string, tensor: Tensor): Op =>
  collective(label, kernels.send_recv, Lane.inter, pair, [], [tensor], { attributes: { source: false } })

/** Layers whose lists must travel with their caches: how many rows of these are in use only the lists say. */
const listLayers = (choices: ReadonlyArray<LayerChoice>): ReadonlyArray<number> =>
  [...choices.keys()].filter((layer) => {
    const choice = choices[layer]!
    return choice.kind === "choose" && !choice.exact
  })

/** Rows of the prompt that stayed, by layer: as the lists say that choices made, or all that a choice has room for. */
const keptRows = (
  machine: Machine["Service"],
  choices: ReadonlyArray<LayerChoice>,
  rooms: ReadonlyArray<number>,
  lists: ReadonlyMap<number, Tensor>
): Effect.Effect<ReadonlyArray<number>, MachineError> =>
  Effect.gen(function* () {
    const chosen = new Map<number, number>()
    for (const layer of listLayers(choices)) {
      const list = lists.get(layer)!
      chosen.set(layer, listed(yield* machine.read(list), list))
    }
    return choices.map(
      (choice, layer) => chosen.get(choice.kind === "as" ? choice.layer : layer) ?? rooms[layer]!
    )
  })

/** What a request holds on the node that prefilled it. */
interface Held {
  readonly bytes: number
  /** The last of it to be sent, where it is. */
  readonly token: Tensor
  readonly rest: ReadonlyArray<Tensor>
}

/** Prefills in order of arrival. Caches are held until sent; when memory runs short, everything is waited for. */
const prefillNode = (plan: ServingPlan): Program<ServingOutcome> =>
  Effect.gen(function* () {
    const decoder = yield* loadDecoder(plan.model)
    const { machine } = decoder
    const plans = new CachePlans(plan.settings, plan.model)
    const begun: Array<Begun> = []
    const finished: Array<Finished> = []
    const held: Array<Held> = []
    let heldBytes = 0
    const giveBack = ({ bytes, token, rest }: Held): void => {
      heldBytes -= bytes
      for (const tensor of [...rest, token]) machine.free(tensor)
    }
    let peakCacheBytes = 0
    for (const request of plan.requests) {
      yield* machine.sleepUntil(request.arrivalSeconds)
      const { choices, promptBytes, prefillBytes } = plans.of(request)
      // Messages go one after another, in the order of requests.
      while (held.length > 0 && machine.ready(held[0]!.token, "use")) giveBack(held.shift()!)
      if (promptBytes + prefillBytes > machine.freeBytes("device")) {
        yield* machine.drain
        for (const one of held.splice(0)) giveBack(one)
      }
      const sends = request.outputTokens > 1
      const { caches, promptRows, token, lists } = yield* prefill(decoder, request, choices, {
        room: 0,
        padded: true,
        onLayer: (layer, cache) =>
          Effect.sync(() => {
            if (sends) machine.submit(send(`layer ${layer} cache`, cache))
          })
      })
      if (sends) {
        for (const layer of listLayers(choices))
          machine.submit(send(`layer ${layer} kept`, lists.get(layer)!))
        machine.submit(send("token", token))
      }
      held.push({ bytes: promptBytes, token, rest: [...caches, ...lists.values()] })
      heldBytes += promptBytes
      peakCacheBytes = Math.max(peakCacheBytes, heldBytes)
      const tokens = yield* machine.read(token)
      const firstSeconds = yield* machine.now
      begun.push({ request, firstSeconds })
      if (!sends) {
        finished.push({
          request,
          tokens: [tokens[0]!],
          promptRows: yield* keptRows(machine, choices, promptRows, lists),
          secondSeconds: Number.NaN,
          lastSeconds: firstSeconds
        })
      }
    }
    yield* machine.drain
    for (const one of held) giveBack(one)
    return { begun, finished, decodeSteps: 0, decodedTokens: 0, largestBatch: 0, peakCacheBytes }
  })

/** Takes in caches in the order of arrival, as far ahead as memory and batch allow. */
const decodeNode = (plan: ServingPlan): Program<ServingOutcome> =>
  Effect.gen(function* () {
    const server = yield* Server.make(plan)
    const { machine } = server.decoder
    const expected = plan.requests.filter(({ outputTokens }) => outputTokens > 1)
    while (expected.length > 0 || server.busy) {
      yield* server.admit
      const now = yield* machine.now
      const next = expected[0]
      const due = next !== undefined && next.arrivalSeconds <= now && server.fitsComing(next)
      if (next !== undefined && (due || !server.busy)) {
        expected.shift()
        yield* takeIn(server, next)
      } else yield* server.step
    }
    return server.outcome
  })

const takeIn = (server: Server, request: ServingRequest): Effect.Effect<void, MachineError> =>
  Effect.gen(function* () {
    const { machine, model } = server.decoder
    const { choices, promptRows } = server.planOf(request)
    const { id, promptTokens } = request
    const caches: Array<Tensor> = []
    for (const [layer, rows] of promptRows.entries()) {
      const arrived = yield* machine.alloc(cacheSpec(id, layer, model, rows))
      machine.submit(receive(`layer ${layer} cache`, arrived))
      caches.push(yield* server.place(request, layer, arrived, Lane.inter))
    }
    const lists = new Map<number, Tensor>()
    for (const layer of listLayers(choices)) {
      const choice = choices[layer] as Extract<LayerChoice, { kind: "choose" }>
      const list = yield* machine.alloc(listSpec(id, layer, choice.calls, model, promptTokens))
      machine.submit(receive(`layer ${layer} kept`, list))
      lists.set(layer, list)
    }
    const token = yield* machine.alloc(tokenSpec(id))
    machine.submit(receive("token", token))
    const sequence = { request, caches, promptRows, token }
    const arrived = Effect.gen(function* () {
      const rows = yield* keptRows(machine, choices, promptRows, lists)
      for (const list of lists.values()) machine.free(list)
      return { ...sequence, promptRows: rows }
    })
    server.expect(sequence, arrived)
  })
