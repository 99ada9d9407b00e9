// What a request needs of memory, before it is let in: admission is by room for a request's whole life, so that nothing that
// runs is ever evicted for want of memory.
import { keptGenerated, planChoices } from "./choices.ts"
import { roomsOf, type LayerChoice } from "./choice.ts"
import { decodeBytes } from "./decode.ts"
import { bytesOfSpecs, cacheBytes, weightBytes, type DecoderModel } from "./model.ts"
import { listBytes, prefillBytes, tokenSpec } from "./prefill.ts"
import type { ServingRequest } from "./sequence.ts"
import type { CacheSettings } from "./methods.ts"

/** Choices and sizes of a request's cache. */
export interface CachePlan {
  readonly choices: ReadonlyArray<LayerChoice>
  /** Most rows that stay of the prompt in each layer; exact for choices that are. */
  readonly promptRows: ReadonlyArray<number>
  /** Rows that generated tokens need. */
  readonly generatedRows: number
  /** Bytes of the prompt's part when prefill is over, and of the whole cache. */
  readonly promptBytes: number
  readonly totalBytes: number
  /** Most that prefill holds beside. */
  readonly prefillBytes: number
  /** Most that a cache which comes from elsewhere needs beside: the layer just coming, the token, and the lists. */
  readonly comingBytes: number
}

/** Plans requests, each kind once. */
export class CachePlans {
  readonly #settings: CacheSettings
  readonly #model: DecoderModel
  readonly #plans = new Map<string, CachePlan>()

  constructor(settings: CacheSettings, model: DecoderModel) {
    this.#settings = settings
    this.#model = model
  }

  of(request: ServingRequest): CachePlan {
    const { promptTokens, outputTokens, shots } = request
    const key = `${promptTokens} ${outputTokens} ${shots?.join(",") ?? ""}`
    let plan = this.#plans.get(key)
    if (plan === undefined) {
      const choices = planChoices(this.#settings, this.#model, promptTokens, shots)
      const promptRows = roomsOf(choices, promptTokens)
      const generatedRows = rowsOfGenerated(this.#settings, outputTokens)
      plan = {
        choices,
        promptRows,
        generatedRows,
        promptBytes: cacheBytes(this.#model, promptRows),
        totalBytes: cacheBytes(
          this.#model,
          promptRows.map((rows) => rows + generatedRows)
        ),
        prefillBytes: prefillBytes(this.#model, choices, promptTokens),
        comingBytes:
          cacheBytes(this.#model, [Math.max(...promptRows)]) +
          bytesOfSpecs([tokenSpec(request.id)]) +
          listBytes(this.#model, choices, promptTokens)
      }
      this.#plans.set(key, plan)
    }
    return plan
  }
}

/**
 * Rows that generated tokens take at most. The last of them is never fed back, so its keys and values are never made; a
 * method that gives tokens up holds one more for the moment in which it does.
 */
export const rowsOfGenerated = (settings: CacheSettings, outputTokens: number): number => {
  let most = 0
  for (let appended = 1; appended < outputTokens; appended++)
    most = Math.max(most, keptGenerated(settings, appended - 1) + 1)
  return most
}

/**
 * The largest batch of one kind of request that a device comes to, where enough of them wait. `to`: where caches go between prefill and
 * decoding. What prefills needs room for that beside the caches; what decodes elsewhere, for the layer of a cache that is just coming.
 */
export const largestBatch = (
  settings: CacheSettings,
  model: DecoderModel,
  request: Pick<ServingRequest, "promptTokens" | "outputTokens">,
  { capacityBytes, maxBatch, to }: BatchBounds
): number => {
  const plan = new CachePlans(settings, model).of({ id: 0, arrivalSeconds: 0, ...request })
  const { promptBytes, prefillBytes, comingBytes, totalBytes } = plan
  const tokenBytes = bytesOfSpecs([tokenSpec(0)])
  const beside = capacityBytes - weightBytes(model)
  const free = beside - decodeBytes(model, maxBatch)
  if (to === "node" && promptBytes + prefillBytes > beside) return 0
  const joins = (running: number): boolean => {
    const left = free - running * (totalBytes + tokenBytes)
    if (to === "none") return totalBytes + prefillBytes <= left
    if (to === "node") return totalBytes + comingBytes <= left
    // The token of a cache that waits on the host is on the device.
    return promptBytes + prefillBytes <= left && totalBytes + comingBytes + tokenBytes <= left
  }
  let batch = 0
  while (batch < maxBatch && joins(batch)) batch++
  return batch
}

interface BatchBounds {
  readonly capacityBytes: number
  readonly maxBatch: number
  readonly to: "none" | "host" | "node"
}
