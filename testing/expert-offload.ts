// Generated demands and settings for expert caches, and the laws that every strategy must keep, whatever it decides.
import * as fc from "fast-check"
import * as Schema from "effect/Schema"
import type { Demand, ExpertId, LayerCall } from "../core/algorithms/expert-offload/demand.ts"
import {
  ExpertOffloadSettings,
  expertOffloadNames,
  offloadAlgorithmNamed
} from "../core/algorithms/expert-offload/algorithms.ts"
import { messageOf } from "../core/message-of.ts"
import { drawn } from "./draw.ts"
import type { Strategy } from "../core/algorithms/expert-offload/strategy.ts"

/** How large a demand for experts is. */
export interface DemandConstraints {
  /** Default 3. */
  readonly maxLayers?: number
  /** Default 6. */
  readonly maxExperts?: number
  /** Default 8. */
  readonly maxSteps?: number
}

/** Calls of every layer in every step, each of at least one expert; neighbouring steps often resemble each other. */
export const demand = (constraints: DemandConstraints = {}): fc.Arbitrary<Demand> => {
  const { maxLayers = 3, maxExperts = 6, maxSteps = 8 } = constraints
  return fc
    .record({
      layers: fc.integer({ min: 1, max: maxLayers }),
      experts: fc.integer({ min: 1, max: maxExperts }),
      steps: fc.array(
        fc.record({
          masks: fc.array(fc.integer({ min: 0, max: 2 ** maxExperts - 1 }), {
            minLength: maxLayers,
            maxLength: maxLayers
          }),
          again: fc.boolean()
        }),
        { minLength: 1, maxLength: maxSteps }
      )
    })
    .map(({ layers, experts, steps }) => {
      const calls: Array<LayerCall> = []
      steps.forEach(({ masks, again }, step) => {
        for (let layer = 0; layer < layers; layer++) {
          const before = calls[calls.length - layers]
          const mask = masks[layer]!
          const chosen = Array.from({ length: experts }, (_, expert) => layer * experts + expert).filter(
            (_, expert) => ((mask >> expert) & 1) === 1
          )
          const needed = again && before !== undefined ? before.needed : chosen
          calls.push({
            step,
            layer,
            needed: needed.length > 0 ? needed : [layer * experts + (mask % experts)]
          })
        }
      })
      return { shape: { layers, experts }, calls }
    })
}

/** Settings of every algorithm of the task, decoded. */
export const offloadSettings = (
  names: ReadonlyArray<ExpertOffloadSettings["name"]> = expertOffloadNames
): fc.Arbitrary<ExpertOffloadSettings> =>
  fc
    .oneof(...names.map((name) => drawn(offloadAlgorithmNamed(name).arbitrary())))
    .map((choose) => Schema.decodeUnknownSync(ExpertOffloadSettings)(choose(1)))

/**
 * What is wrong with how a strategy serves a demand: an expert computed from a slot that holds another; a slot overwritten
 * that the present call still needs; a need not computed, or twice; an expert loaded that is there already; what it throws.
 */
export const violationsOf = (demand: Demand, strategy: Strategy): ReadonlyArray<string> => {
  const found: Array<string> = []
  const holds = new Map<number, ExpertId>()
  const latest = new Map<ExpertId, number>()
  let pending = new Set<ExpertId>()
  // Experts of the present call that have a copy the cache stands by: what else lies in slots it has forgotten.
  const sure = new Set<ExpertId>()
  const sink = {
    load: (id: ExpertId, slot: number, evicted: ExpertId | undefined) => {
      const before = holds.get(slot)
      if (slot < 0 || slot >= strategy.cache.slots) found.push(`slot ${slot} of ${strategy.cache.slots}`)
      if (before !== undefined && pending.has(before) && sure.has(before) && latest.get(before) === slot)
        found.push(`expert ${before} overwritten before its use`)
      if (evicted !== undefined && evicted !== before)
        found.push(`slot ${slot} holds ${before}, not ${evicted}`)
      if (sure.has(id)) found.push(`expert ${id} loaded though it is there`)
      sure.add(id)
      if (evicted !== undefined) sure.delete(evicted)
      holds.set(slot, id)
      latest.set(id, slot)
    },
    use: (id: ExpertId, slot: number) => {
      if (holds.get(slot) !== id)
        found.push(`expert ${id} computed from slot ${slot}, which holds ${holds.get(slot)}`)
      if (!pending.delete(id)) found.push(`expert ${id} computed without need`)
    }
  }
  try {
    let step: number | undefined
    for (const call of demand.calls) {
      if (call.step !== step) strategy.begin(call.step, sink)
      step = call.step
      pending = new Set(call.needed)
      sure.clear()
      for (const id of call.needed) if (strategy.cache.resident(id)) sure.add(id)
      strategy.serve(call, sink)
      if (pending.size > 0)
        found.push(`step ${call.step}, layer ${call.layer}: ${[...pending].join(", ")} not computed`)
    }
  } catch (error) {
    found.push(messageOf(error))
  }
  return found
}
