// Training in bfloat16 with AdamW: both machines agree although what one rounds otherwise than the other may turn an update
// round; and a machine whose update is wrong, by however little of what rounding may do to one element, does not.
import { expect, it } from "vitest"
import { agrees } from "../../core/agreement/agree.ts"
import type { NativeRank } from "../../exec/native.ts"
import { describeNative } from "../native/addon.ts"
import { trainedOn, type Breakage } from "./broken-machine.ts"

const settings = ["training.precision=bfloat16", "training.optimizer={name: adamw, learningRate: 0.01}"]

/** Rank 1 launches its updates with other scalars. */
const updating =
  (change: (learningRate: number, step: number) => ReadonlyArray<number>) =>
  (rank: NativeRank, index: number): void => {
    const submit = rank.submit.bind(rank)
    if (index !== 1) return
    rank.submit = (op, edges, scalars) =>
      submit(op, edges, op.kernel.name === "adamw" ? change(scalars![0]!, scalars![1]!) : scalars)
  }

const agreementOf = (breakage: Breakage, more: ReadonlyArray<string> = []) =>
  trainedOn(breakage, [...settings, ...more])

describeNative("training in bfloat16 with AdamW", () => {
  it("agrees", async () => {
    const agreement = await agreementOf(updating((learningRate, step) => [learningRate, step]))
    expect(agreement.firstDisagreement).toBeUndefined()
    expect(agreement.comparedTensors).toBeGreaterThan(100)
  })

  for (const [what, change] of [
    ["twice as large", (learningRate: number, step: number) => [2 * learningRate, step]],
    ["a tenth too large", (learningRate: number, step: number) => [1.1 * learningRate, step]],
    ["corrected for another step", (learningRate: number, step: number) => [learningRate, step + 1]],
    ["left out", (_: number, step: number) => [0, step]]
  ] as const) {
    it(`does not with updates ${what}`, async () => {
      const agreement = await agreementOf(updating(change))
      expect(agrees(agreement)).toBe(false)
      expect(agreement.decisions).toBe(true)
      expect(agreement.firstDisagreement?.message).toMatch(/^rank [01], tensor/u)
    })
  }
})

describeNative("training in float16", () => {
  const half = "training.precision=float16"
  const unchanged = updating((learningRate, step) => [learningRate, step])

  // of 2^30 the first steps overflow, and are skipped on both machines
  for (const [initial, steps, growthInterval] of [
    [2 ** 10, 6, 2],
    [2 ** 30, 20, 2000]
  ] as const) {
    it(`agrees from a scale of ${initial} on`, async () => {
      const scale = `training.lossScale={initial: ${initial}, growthInterval: ${growthInterval}}`
      const agreement = await agreementOf(unchanged, [
        half,
        scale,
        `steps=${steps}`,
        "training.optimizer=sgd"
      ])
      expect(agreement.firstDisagreement).toBeUndefined()
      expect(agreement.comparedTensors).toBeGreaterThan(100)
    })
  }

  it("agrees with AdamW, but not where its updates are a tenth too large", async () => {
    const agreement = await agreementOf(unchanged, [half])
    expect(agreement.firstDisagreement).toBeUndefined()
    const larger = updating((learningRate, step) => [1.1 * learningRate, step])
    expect(agrees(await agreementOf(larger, [half]))).toBe(false)
  })
})

describeNative("training whose linear layers multiply in TF32", () => {
  it("agrees", async () => {
    const agreement = await agreementOf(
      updating((learningRate, step) => [learningRate, step]),
      ["training.precision=tf32", "steps=6", "training.optimizer=sgd"]
    )
    expect(agreement.firstDisagreement).toBeUndefined()
    expect(agreement.comparedTensors).toBeGreaterThan(100)
  })
})
