// The decoding side of a rank: who runs, who is on the way into the batch, and what memory is left for more.
// Where caches come from is serve.ts's and disaggregated.ts's business.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import type { Lane } from "../../machine/lane.ts"
import type { Machine, MachineError } from "../../machine/machine.ts"
import { launch } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import { CachePlans, type CachePlan } from "./admission.ts"
import { DecodeBatch, type Running } from "./decode.ts"
import { loadDecoder, type Decoder } from "./decoder.ts"
import type { DecoderModel } from "./model.ts"
import { cacheSpec } from "./prefill.ts"
import type { Sequence, ServingRequest } from "./sequence.ts"
import type { CacheSettings } from "./methods.ts"

/** What is served, by which model, with which way of compressing its cache. */
export interface ServingPlan {
  readonly model: DecoderModel
  readonly settings: CacheSettings
  /** In order of arrival. */
  readonly requests: ReadonlyArray<ServingRequest>
  readonly maxBatch: number
}

/** A request's prefill is over. */
export interface Begun {
  readonly request: ServingRequest
  /** When its first token was there. */
  readonly firstSeconds: number
}

/** A request has all its tokens. */
export interface Finished {
  readonly request: ServingRequest
  readonly tokens: ReadonlyArray<number>
  /** Rows of the prompt that stayed, by layer: known at last where they are decoded from, for caches may travel with more room. */
  readonly promptRows: ReadonlyArray<number>
  /** When the second token was there: the first that decoding made. NaN where one was asked for. */
  readonly secondSeconds: number
  readonly lastSeconds: number
}

/** What one rank has done. */
export interface ServingOutcome {
  readonly begun: ReadonlyArray<Begun>
  readonly finished: ReadonlyArray<Finished>
  readonly decodeSteps: number
  /** Sum over decode steps of the sequences in them. */
  readonly decodedTokens: number
  readonly largestBatch: number
  /** Most bytes of caches in device memory at a time. */
  readonly peakCacheBytes: number
}

/** A sequence on its way into the batch. */
interface Coming {
  readonly token: Tensor
  readonly arrived: Effect.Effect<Sequence, MachineError>
}

export class Server {
  readonly decoder: Decoder
  readonly #batch: DecodeBatch
  readonly #maxBatch: number
  readonly #plans: CachePlans
  #running: ReadonlyArray<Running> = []
  #coming: ReadonlyArray<Coming> = []
  readonly #secondSeconds = new Map<number, number>()
  readonly #begun: Array<Begun> = []
  readonly #finished: Array<Finished> = []
  #decodeSteps = 0
  #decodedTokens = 0
  #largestBatch = 0
  #cacheBytes = 0
  #peakCacheBytes = 0

  private constructor(decoder: Decoder, batch: DecodeBatch, plan: ServingPlan) {
    this.decoder = decoder
    this.#batch = batch
    this.#maxBatch = plan.maxBatch
    this.#plans = new CachePlans(plan.settings, plan.model)
  }

  static make(plan: ServingPlan): Effect.Effect<Server, MachineError, Machine> {
    return Effect.gen(function* () {
      const decoder = yield* loadDecoder(plan.model)
      const batch = yield* DecodeBatch.make(decoder, plan.settings, plan.maxBatch)
      return new Server(decoder, batch, plan)
    })
  }

  /** Whether anyone runs or is on the way. */
  get busy(): boolean {
    return this.#running.length > 0 || this.#coming.length > 0
  }

  get outcome(): ServingOutcome {
    return {
      begun: this.#begun,
      finished: this.#finished,
      decodeSteps: this.#decodeSteps,
      decodedTokens: this.#decodedTokens,
      largestBatch: this.#largestBatch,
      peakCacheBytes: this.#peakCacheBytes
    }
  }

  planOf(request: ServingRequest): CachePlan {
    return this.#plans.of(request)
  }

  /** Whether there is a place in the batch, and room for the request's whole cache and its prefill. */
  fits(request: ServingRequest): boolean {
    return this.#fits(request, this.planOf(request).prefillBytes)
  }

  /** Whether there is a place in the batch, and room for the request's cache and the layer of it that is just coming. */
  fitsComing(request: ServingRequest): boolean {
    return this.#fits(request, this.planOf(request).comingBytes)
  }

  #fits(request: ServingRequest, besideBytes: number): boolean {
    const taken = this.#running.length + this.#coming.length
    const neededBytes = this.planOf(request).totalBytes + besideBytes
    return taken < this.#maxBatch && neededBytes <= this.decoder.machine.freeBytes("device")
  }

  /** Counts device memory of caches, for the report. */
  hold(caches: ReadonlyArray<Tensor>): void {
    for (const { sizeBytes } of caches) this.#cacheBytes += sizeBytes
    this.#peakCacheBytes = Math.max(this.#peakCacheBytes, this.#cacheBytes)
  }

  /** Gives caches in device memory back. */
  release(caches: ReadonlyArray<Tensor>): void {
    for (const cache of caches) {
      this.#cacheBytes -= cache.sizeBytes
      this.decoder.machine.free(cache)
    }
  }

  /** Waits for the first token of a prefill, and notes when it came. */
  begin({ request, token }: Sequence): Effect.Effect<void, MachineError> {
    const { machine } = this.decoder
    return Effect.gen({ self: this }, function* () {
      yield* machine.read(token)
      this.#begun.push({ request, firstSeconds: yield* machine.now })
    })
  }

  /**
   * Makes a cache with room for what will be generated of one that has just come, on the lane it came by: so the next one
   * can be under way meanwhile.
   */
  place(
    request: ServingRequest,
    layer: number,
    arrived: Tensor,
    lane: Lane
  ): Effect.Effect<Tensor, MachineError> {
    const { machine, model } = this.decoder
    return Effect.gen({ self: this }, function* () {
      const capacity = arrived.shape[1]! + this.planOf(request).generatedRows
      const cache = yield* machine.alloc(cacheSpec(request.id, layer, model, capacity))
      const label = `layer ${layer} place`
      machine.submit(launch(label, kernels["kv.place"], lane, [arrived], [cache], { capacity }))
      machine.free(arrived)
      this.hold([cache])
      return cache
    })
  }

  /**
   * A sequence is under way: it joins the batch when its token, which comes last, is there. `arrived` then tells what is
   * only known by then.
   */
  expect({ token }: Sequence, arrived: Effect.Effect<Sequence, MachineError>): void {
    this.#coming = [...this.#coming, { token, arrived }]
  }

  /** Lets those in that have come. */
  readonly admit: Effect.Effect<void, MachineError> = Effect.suspend(() => {
    const { machine } = this.decoder
    const here = this.#coming.filter(({ token }) => machine.ready(token))
    if (here.length === 0) return Effect.void
    this.#coming = this.#coming.filter((coming) => !here.includes(coming))
    return Effect.forEach(here, ({ arrived }) => Effect.flatMap(arrived, (sequence) => this.join(sequence)), {
      discard: true
    })
  })

  /** A sequence whose token is there joins the batch, or is finished if that was all. */
  join(sequence: Sequence): Effect.Effect<void, MachineError> {
    const { machine } = this.decoder
    return Effect.gen({ self: this }, function* () {
      const [token] = yield* machine.read(sequence.token)
      const running = { sequence, tokens: [token!] }
      if (sequence.request.outputTokens > 1) this.#running = [...this.#running, running]
      else this.#finish(running, yield* machine.now)
      this.#largestBatch = Math.max(this.#largestBatch, this.#running.length)
    })
  }

  /** One decoding step, or a wait for the next to come; false where there is neither. */
  readonly step: Effect.Effect<boolean, MachineError> = Effect.gen({ self: this }, function* () {
    const { machine } = this.decoder
    if (this.#running.length === 0) {
      const next = this.#coming[0]
      if (next === undefined) return false
      yield* machine.read(next.token)
      return true
    }
    this.#decodeSteps++
    this.#decodedTokens += this.#running.length
    yield* this.#batch.step(this.#running)
    const now = yield* machine.now
    const over = this.#running.filter(
      ({ sequence, tokens }) => tokens.length === sequence.request.outputTokens
    )
    for (const { sequence, tokens } of this.#running)
      if (tokens.length === 2) this.#secondSeconds.set(sequence.request.id, now)
    if (over.length > 0) this.#running = this.#running.filter((running) => !over.includes(running))
    for (const running of over) this.#finish(running, now)
    return true
  })

  #finish({ sequence, tokens }: Running, lastSeconds: number): void {
    const { request, caches, promptRows, token } = sequence
    this.release(caches)
    this.decoder.machine.free(token)
    const secondSeconds = this.#secondSeconds.get(request.id) ?? Number.NaN
    this.#finished.push({ request, tokens, promptRows, secondSeconds, lastSeconds })
  }
}
