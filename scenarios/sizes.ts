// Sizes that multiply: what a run keeps one by one, and how much of that a process of 4 GB, as Node is by default, holds. Sizes
// alone have their bounds in schemas (core/fields.ts). What neither foresees the simulator notices while it runs.
import * as Effect from "effect/Effect"
import { InputError } from "../core/input-error.ts"

/** Layers of ranks that are simulated each by itself: 2 to 7 kB each, tensors and ops under way. */
export const mostLayersOfRanks = 500_000

/** Experts of all layers: their slots, and their order in each policy. */
export const mostExperts = 1_000_000

/** Choices of experts by tokens in all layers: some 600 B each, with the loads that they cause. */
export const mostChoices = 4_000_000

/**
 * Experts of a layer ring, which loads all of all layers in each step: 2 kB a load, in a run that keeps its timeline. Measured with 256
 * and 512 experts in 32 layers over 49 steps.
 */
export const mostStreamed = 2_000_000

/**
 * Experts that ranks compute in a step, where each has rows of its own number: 40 kB of each under way, and 27 kB of each step that it
 * is in, for costs of shapes that do not come again. Measured with 256 to 2048 experts on 4 nodes of 4 ranks.
 */
export const mostRoutedExperts = 100_000

/** Layers in a schedule's steps, all together. */
export const mostScheduled = 20_000_000

/**
 * Refuses `field` where `value` of them, with so many things each, are more than `most` in all.
 * @param each how many things go with each of them
 * @param why what the things are: "layers of each rank, which is simulated by itself"
 */
export const requireHeld = (
  { file, field, value }: { readonly file: string; readonly field: string; readonly value: number },
  each: number,
  most: number,
  why: string
): Effect.Effect<void, InputError> => {
  if (value * each <= most) return Effect.void
  const held = Math.floor(most / each)
  const accepted =
    held < 1 ? `fewer ${why}: with ${each} there is room for none` : `at most ${held} with ${each} ${why}`
  return Effect.fail(new InputError({ file, field, value: String(value), accepted }))
}
