// Batches of language modelling, drawn on the device from a corpus that lies there: no data comes from the host, and a
// step's batch depends on its attributes alone, so a resumed run draws what an uninterrupted one would have.
import { mix } from "./counter-hash.ts"
import { defineKernel, number } from "./kernel.ts"

/** Where window `index` of a step's batch begins: mix(mix(mix(seed) + stream) + step) + index, mixed, mod places. */
export const windowStart = (
  { seed, stream, step }: { readonly seed: number; readonly stream: number; readonly step: number },
  index: number,
  places: number
): number => mix(mix(mix(mix(seed) + stream) + step) + index) % places

/**
 * `batch` windows of `time` tokens at places drawn evenly (seed, stream and step choose them; a stream is a rank's own), and
 * as targets the tokens that follow each. Throws RangeError for a corpus shorter than a window and its last target.
 */
export const tokenWindows = defineKernel({
  name: "token_windows",
  signature: "corpus[length] -> tokens[batch, time], targets[batch, time]",
  attributes: { batch: number(), time: number(), seed: number(), stream: number(0), step: number() },
  scalars: ["step"],
  inputDtypes: ["int32"],
  outputDtypes: ["int32", "int32"],
  extents: ({ batch, time }) => ({ batch, time }),
  flops: () => 0,
  // only the windows cross memory
  readBytes: ({ a }) => 4 * a.batch * (a.time + 1),
  reference: ([corpus], [tokens, targets], { a }) => {
    const places = corpus.length - a.time
    if (places < 1) {
      throw new RangeError(`token_windows: a corpus of ${corpus.length} tokens; a window needs ${a.time + 1}`)
    }
    for (let b = 0; b < a.batch; b++) {
      const start = windowStart(a, b, places)
      for (let t = 0; t < a.time; t++) {
        tokens[b * a.time + t] = corpus[start + t]!
        targets[b * a.time + t] = corpus[start + t + 1]!
      }
    }
  }
})
