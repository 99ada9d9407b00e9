// A padded vocabulary is for speed alone: the loss and every gradient are what they are without it, and padding stays zero.
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { initialValues } from "../../core/machine/initial.ts"
import { fuse } from "../../core/models/fuse.ts"
import { gpt2 } from "../../core/models/gpt2.ts"
import { initialParameters } from "../../core/models/initial-values.ts"
import { gradientName, parameterCount, type Value } from "../../core/models/layer-graph.ts"
import { llama } from "../../core/models/llama.ts"
import { paddedVocabulary } from "../../core/models/sizes.ts"
import { stepValues } from "./step-values.ts"

it("leaves loss and gradients as they are", () => {
  let padded = 0
  fc.assert(
    fc.property(
      fc.constantFrom("gpt2" as const, "llama" as const, "llama tied" as const),
      fc.integer({ min: 2, max: 12 }),
      fc.integer({ min: 1, max: 8 }),
      fc.boolean(),
      fc.integer({ min: 0, max: 1e6 }),
      (kind, vocabulary, vocabularyMultiple, fusing, seed) => {
        const sizes = {
          layers: 1,
          width: 4,
          heads: 2,
          vocabulary,
          context: 3,
          batch: 2,
          activationDtype: "float32" as const
        }
        const make = (more: object) => {
          const all = { ...sizes, ...more }
          const graph =
            kind === "gpt2"
              ? gpt2(all)
              : llama({ ...all, kvHeads: 1, ffnWidth: 5, tied: kind === "llama tied" })
          return fusing ? fuse(graph) : graph
        }
        const [plain, wide] = [make({}), make({ vocabularyMultiple })]
        const [expected, actual] = [plain, wide].map((graph) => stepValues(graph, seed, { vocabulary }))
        for (const [name, values] of expected!) {
          const got = actual!.get(name)!
          expect([...got.subarray(0, values.length)], name).toEqual([...values])
          expect(
            got.subarray(values.length).every((value) => value === 0),
            name
          ).toBe(true)
          if (got.length > values.length) padded++
        }
        const initial = [plain, wide].map((graph) => {
          const drawn = initialParameters(graph, seed)
          return (one: Value) => initialValues({ ...one, initial: drawn(one) })
        })
        for (const { parameters } of wide.layers) {
          for (const parameter of parameters) {
            const rows = parameter.usedRows ?? parameter.shape[0]!
            const used = (parameter.elements / parameter.shape[0]!) * rows
            const own = plain.layers
              .flatMap((layer) => layer.parameters)
              .find(({ name }) => name === parameter.name)!
            const values = initial[1]!(parameter)
            expect(own.elements).toBe(used)
            expect([...values.subarray(0, used)]).toEqual([...initial[0]!(own)])
            expect(values.subarray(used).every((value) => value === 0)).toBe(true)
            expect(actual!.has(gradientName(parameter))).toBe(true)
          }
        }
      }
    ),
    { numRuns: 60 }
  )
  expect(padded).toBeGreaterThan(20)
})

it("is what GPT-2's 50257 is padded to by 64 and by 128", () => {
  expect(paddedVocabulary(50257)).toBe(50257)
  expect(paddedVocabulary(50257, 64)).toBe(50304)
  expect(paddedVocabulary(50257, 128)).toBe(50304)
  const small = { layers: 12, width: 768, heads: 12, vocabulary: 50257, context: 1024, batch: 1 }
  expect(parameterCount(gpt2({ ...small, vocabularyMultiple: 64 })) - parameterCount(gpt2(small))).toBe(
    47 * 768
  )
})
