// What a schedule of MoE layers is said to leave behind: once, of the backward pass that ends last.
import { describe, expect, it } from "vitest"
import { simEach } from "../cli/launch.ts"

interface Pass {
  readonly pass: string
  readonly layers: ReadonlyArray<number>
  readonly reasons: ReadonlyArray<string>
}

describe("gradients that nothing hides", () => {
  it("are told of layer 0's backward pass alone, whether its layers pipeline or not", () => {
    const names = ["fsmoe", "tutel", "deepspeed-moe"]
    const lines = names.map((name) => [
      "schedule",
      "scenarios/moe-training.yaml",
      "--set",
      `algorithm=${name}`,
      "--json"
    ])
    for (const [at, { status, stdout, stderr }] of simEach(lines).entries()) {
      expect(status, stderr).toBe(0)
      const { passes, gradients } = JSON.parse(stdout) as {
        readonly passes: ReadonlyArray<Pass>
        readonly gradients: { readonly rest: number }
      }
      expect(gradients.rest, names[at]).toBeGreaterThan(0)
      const told = passes.filter(({ reasons }) => reasons.some((reason) => /left for after/u.test(reason)))
      expect(
        told.map(({ pass, layers }) => [pass, layers[0]]),
        names[at]
      ).toEqual([["backward", 0]])
    }
  })
})
