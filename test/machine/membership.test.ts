// Who is in a group is looked at once, not once by each that is in it: what the ranks of a collective cost together grows with how
// many they are, and not with their square.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { membershipOf } from "../../core/machine/membership.ts"
import { collective } from "../../core/machine/op.ts"
import { simulate } from "../../sim/simulate.ts"
import { flatWorld } from "../simulate/simulated.ts"

/** How often a list of so many ranks is looked into while each of them takes part in an all-reduce. */
const looks = (size: number): number => {
  let count = 0
  const ranks = new Proxy(
    Array.from({ length: size }, (_, rank) => rank),
    {
      get: (list, name, self) => {
        count++
        return Reflect.get(list, name, self) as unknown
      }
    }
  )
  const program = Effect.gen(function* () {
    const machine = yield* Machine
    const x = yield* machine.alloc({ name: "x", shape: [1], dtype: "float32" })
    machine.submit(collective("sum", kernels.all_reduce, Lane.inter, { name: "all", ranks }, [x], [x]))
    yield* machine.drain
  })
  const costs = { seconds: () => 1e-6, estimates: [] }
  const collectives = { algorithm: "ring" } as const
  // with jitter each rank runs the program
  const jitter = 0.1
  Effect.runSync(
    simulate({ world: flatWorld(size), program, costs, network: "fluid", collectives, jitter, seed: 1 })
  )
  return count
}

describe("a group", () => {
  it("is looked through by all its ranks together as often as by one", () => {
    const [few, many] = [looks(50), looks(200)]
    // four times as many ranks: four times as often, where each looking for itself would be sixteen times
    expect(many / few).toBeLessThan(6)
  })

  it("is what it is in its own world", () => {
    const ranks = [0, 3]
    expect(membershipOf(ranks, { size: 4 })).toMatchObject({ has: new Set([0, 3]), wrong: undefined })
    expect(membershipOf(ranks, { size: 3 }).wrong).toBe("has rank 3, of a world of 3")
    expect(membershipOf([1, 1], { size: 3 }).wrong).toBe("has a rank twice")
    expect(membershipOf([0.5], { size: 3 }).wrong).toBe("has rank 0.5, of a world of 3")
  })
})
