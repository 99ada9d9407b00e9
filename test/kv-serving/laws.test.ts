// Every law of serving catches an outcome that breaks it, and no other.
import { describe, expect, it } from "vitest"
import type { ServingOutcome, ServingPlan } from "../../core/algorithms/kv-serving/server.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { checkServing, servingLaws } from "../../core/laws/serving.ts"
import { simulated } from "./served.ts"
import { tinyModel } from "./tiny-llama.ts"

const plan: ServingPlan = {
  model: tinyModel(),
  settings: { name: "streaming-llm", keep: 0.5, sinks: 2 },
  requests: [
    { id: 0, arrivalSeconds: 0, promptTokens: 12, outputTokens: 4 },
    { id: 1, arrivalSeconds: 1, promptTokens: 9, outputTokens: 3 }
  ],
  maxBatch: 2
}

const outcome = simulated(plan, "here", {
  costs: { seconds: () => 1 / 64, estimates: [] },
  source: (_: number, { elements }: Tensor) => new Int32Array(elements)
}).ranks[0]!.value

const { begun, finished } = outcome
const [first, second] = begun as [(typeof begun)[0], (typeof begun)[0]]
const [one, other] = finished as [(typeof finished)[0], (typeof finished)[0]]

const broken: Readonly<Record<keyof typeof servingLaws, Partial<ServingOutcome>>> = {
  everyRequestOnce: { finished: [one, one] },
  tokensAsAsked: { finished: [one, { ...other, tokens: [1] }] },
  timesInOrder: { finished: [{ ...one, lastSeconds: 0 }, other] },
  firstComeFirstServed: {
    begun: [{ ...first, firstSeconds: second.firstSeconds + 1 }, second],
    finished: finished.map((each) => ({ ...each, secondSeconds: 1e3, lastSeconds: 1e3 }))
  },
  batchBounded: { largestBatch: 3 },
  rowsWithinPlan: { finished: [{ ...one, promptRows: [6, 7] }, other] }
}

describe("laws of serving", () => {
  it("hold for a simulation", () => {
    expect(checkServing(plan, [outcome])).toBeUndefined()
  })

  for (const [law, change] of Object.entries(broken)) {
    it(`${law} is broken by what it forbids`, () => {
      const violation = checkServing(plan, [{ ...outcome, ...change }])
      expect(violation?.law).toBe(law)
      expect(violation?.message).toMatch(/request|sequences/u)
    })
  }

  it("count tokens that nobody asked for", () => {
    const more = checkServing(plan, [{ ...outcome, decodedTokens: outcome.decodedTokens + 1 }])
    expect(more).toMatchObject({
      law: "batchBounded",
      message: "6 tokens were decoded, 5 asked for after the first"
    })
  })
})
