// Ranks that are processes compute what threads of one process compute and agree with the simulator, on 113 programs drawn of every
// family in two jobs: 105 are as threads' to the bit, 8 serve requests by the time that they are told, which no two runs are told
// alike, and are held to the simulator. They are dear, so that a soak of 1 repeats none: 2,260 with another seed are
//   TANDEM_SOAK=20 TANDEM_SEED=$RANDOM npm run soak -- test/job/agreement.test.ts
import { expect, it } from "vitest"
import { describeNative } from "../native/addon.ts"
import { settings } from "../setup/settings.ts"
import { startMembers } from "./started.ts"

const soak = Number(process.env["TANDEM_SOAK"] ?? 0)
const times = Math.max(1, soak)
const asked = (process.env["TANDEM_SEED"] ?? "") !== ""
const seed = asked ? settings(process.env).seed : soak > 0 ? Date.now() % 1_000_000 : 11

interface Outcome {
  readonly seen: Readonly<Record<string, Readonly<Record<string, number>>>>
  readonly tensors: number
  readonly collectives: number
  /** Elements that came over narrow wires, and how many of them turned. */
  readonly wires: { readonly elements: number; readonly turned: number }
  /** Runs of kv-serving whose values are those of threads, and those whose are not. */
  readonly serving: { readonly asThreads: number; readonly otherwise: number }
}

const outcome = async (size: number, counts: Readonly<Record<string, number>>): Promise<Outcome> => {
  const scaled = Object.fromEntries(Object.entries(counts).map(([family, count]) => [family, count * times]))
  const members = await startMembers({
    script: "agree-member.ts",
    args: [JSON.stringify(scaled), String(seed)],
    size
  })
  const [first, ...others] = await Promise.all(members.map(({ end }) => end))
  const { message = "" } = first as { readonly message?: string }
  expect(first, `seed ${seed}: ${message}`).not.toHaveProperty("failed")
  for (const other of others) expect(other, `seed ${seed}`).toMatchObject({ tensors: 0 })
  const found = first as Outcome
  for (const [family, count] of Object.entries(scaled)) {
    const ran = Object.values(found.seen[family]!).reduce((sum, n) => sum + n, 0)
    expect(ran, family).toBe(count)
  }
  return found
}

describeNative("a job of processes", () => {
  it("agrees with threads and with the simulator on three ranks", async () => {
    const { seen, tensors, collectives, wires } = await outcome(3, { programs: 40, training: 24, gossip: 6 })
    expect(Object.keys(seen["training"]!).length).toBeGreaterThan(5)
    expect(tensors).toBeGreaterThan(1000)
    expect(collectives).toBeGreaterThan(500)
    expect(wires.elements).toBeGreaterThan(1000)
    // Of float32's rounding few turn; of a wire held wrongly a good part would.
    expect(wires.turned).toBeLessThan(1e-3 * wires.elements)
  })

  it("agrees with threads and with the simulator on two ranks", async () => {
    const { seen, tensors, collectives, serving } = await outcome(2, {
      programs: 10,
      gossip: 3,
      "moe-training": 14,
      "expert-offload": 8,
      "kv-serving": 8
    })
    expect(Object.keys(seen["moe-training"]!).length).toBeGreaterThan(3)
    expect(tensors).toBeGreaterThan(500)
    expect(collectives).toBeGreaterThan(200)
    expect(serving.asThreads + serving.otherwise).toBe(8 * times)
    expect(serving.asThreads).toBeGreaterThan(0)
  })
})
