// One op, one number: the same launch on the same table costs the same in every family, and each says as much of it.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import type { Costed, TracedCostModel } from "../../core/cost/cost-model.ts"
import type { Cost } from "../../core/cost/provenance.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { operand } from "../../core/kernels/kernel.ts"
import type { Dtype } from "../../core/machine/tensor.ts"
import { familyOf } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { hostOf, runScenario } from "../../sim/run.ts"

const folder = new URL("../../scenarios/", import.meta.url).pathname
const loader = new Loader()

/** The cost model that a scenario of each family comes to, with the device it names. */
const modelsOn = (
  device: string
): Effect.Effect<ReadonlyArray<readonly [string, TracedCostModel]>, unknown> =>
  Effect.gen(function* () {
    const named: Array<readonly [string, TracedCostModel]> = []
    for (const [file, set] of [
      ["gpt2-described.yaml", ["algorithm=ddp"]],
      ["kv-serving.yaml", []],
      ["expert-offload.yaml", []],
      ["moe-training.yaml", ["algorithm=fsmoe"]]
    ] as const) {
      const path = `${folder}${file}`
      const scenario = yield* loadScenario(path, [...set, `device=${device}`])
      const { simulable } = yield* familyOf(scenario).prepare(scenario, path, hostOf(loader))
      const { costs } = simulable
      expect("cost" in costs, file).toBe(true)
      named.push([scenario.task, costs as TracedCostModel])
    }
    return named
  })

const linear = (m: number, k: number, n: number, dtype: Dtype): Costed => ({
  kernel: kernels["linear.forward"],
  reads: [operand([m, k], dtype), operand([n, k], dtype)],
  writes: [operand([m, n], dtype)],
  attributes: {}
})
const copy = (name: "h2d" | "d2d", elements: number): Costed => ({
  kernel: kernels[name],
  reads: [operand([elements], "float32")],
  writes: [operand([elements], "float32")],
  attributes: {}
})
const norm = (rows: number, width: number): Costed => ({
  kernel: kernels["rms_norm.forward"],
  reads: [operand([rows, width], "bfloat16"), operand([width], "bfloat16")],
  writes: [operand([rows, width], "bfloat16"), operand([rows], "float32")],
  attributes: {}
})

const launches: ReadonlyArray<readonly [string, Costed, Cost["provenance"]]> = [
  ["a measured product", linear(16_384, 4096, 14_336, "bfloat16"), "exact"],
  ["rows between", linear(3000, 1024, 3584, "bfloat16"), "interpolated"],
  ["another weight", linear(2048, 1024, 1024, "bfloat16"), "scaled"],
  ["more than was measured", linear(1_000_000, 4096, 14_336, "bfloat16"), "extrapolated"],
  ["another dtype", linear(4096, 768, 3072, "float32"), "scaled"],
  ["a measured copy", copy("h2d", 2 ** 18), "exact"],
  ["a kernel nobody timed", norm(4096, 1024), "scaled"]
]

describe("a described model", () => {
  it("is costed as it is run: fused, and a layer's update in one launch", async () => {
    const path = `${folder}gpt2-described.yaml`
    const { result } = await Effect.runPromise(
      Effect.flatMap(loadScenario(path, ["algorithm=ddp"]), (scenario) =>
        runScenario(scenario, path, { loader })
      )
    )
    const named = new Set(result.estimates.map(({ kernel }) => kernel))
    for (const run of ["residual_layer_norm.forward", "linear_gelu.forward", "softmax_cross_entropy.fused"])
      expect(named, run).toContain(run)
    for (const part of ["residual.forward", "gelu.forward", "softmax_cross_entropy.forward"])
      expect(named, part).not.toContain(part)
  })
})

describe("the same launch", () => {
  for (const [device, sameDevice] of [
    ["NVIDIA H200", true],
    ["NVIDIA A100", false]
  ] as const) {
    it(`costs the same in every family on an ${device}`, async () => {
      const models = await Effect.runPromise(modelsOn(device))
      expect(models.map(([task]) => task)).toEqual([
        "data-parallel",
        "kv-serving",
        "expert-offload",
        "moe-training"
      ])
      for (const [what, launch, provenance] of launches) {
        const [first, ...others] = models.map(([, model]) => model.cost(launch))
        const moved = !sameDevice && launch.kernel.name !== "h2d"
        if (provenance !== "extrapolated") expect(first!.provenance, what).toBe(moved ? "scaled" : provenance)
        for (const other of others) expect(other, what).toEqual(first)
      }
    })
  }

  it("is listed as what it is in the estimates of each", async () => {
    for (const [task, model] of await Effect.runPromise(modelsOn("NVIDIA H200"))) {
      for (const [, launch] of launches) model.cost(launch)
      const listed = model.estimates
        .filter(({ kernel }) => kernel === "linear.forward")
        .map(({ source }) => source)
      expect(listed.toSorted(), task).toEqual(["extrapolated", "interpolated", "scaled"])
    }
  })
})
