// What tandem/testing says of schedulers and cache policies of somebody's own: nothing of right ones, and of each planted fault
// what is wrong, in the smallest case.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  collective,
  ExpertCache,
  kernels,
  Lane,
  Machine,
  waitFor,
  type Decision,
  type Demand,
  type ExpertId,
  type Group,
  type MayLeave,
  type ReplacementPolicy
} from "../../core/index.ts"
import { readProfile } from "../../traces/index.ts"
import {
  checkScheduler,
  demand,
  decodeScenario,
  readsOnlyWhatIsThere,
  runCase,
  runScheduler,
  scenario,
  violationsOf,
  type Scheduler
} from "../../testing/index.ts"

const scenarios = scenario({ algorithms: ["local-sgd"], maxFaults: 0, jitter: false })
const failureOf = (scheduler: Scheduler) =>
  checkScheduler(scheduler, {
    scenarios,
    properties: { readsOnlyWhatIsThere: readsOnlyWhatIsThere() },
    numRuns: 60,
    seed: 1,
    saveTo: null
  })

type Planted = "nothing" | "one side" | "another order" | "another's group" | "not received"

/** Pairwise averaging: after step s a rank averages with the one whose number differs in bit s, in turn. */
const gossip =
  (planted: Planted): Scheduler =>
  ({ model, steps, world }) =>
    Effect.gen(function* () {
      const machine = yield* Machine
      const { layers, update } = yield* model
      const takeStep = update([...layers.keys()])
      const rounds = Math.max(1, Math.ceil(Math.log2(world.size)))
      const exchange = (step: number): void => {
        const partner = machine.rank ^ (1 << (step % rounds))
        if (partner >= world.size) return
        const later = machine.rank > partner
        if (planted === "one side" && later) return
        const ranks = [machine.rank, partner].toSorted((a, b) => a - b)
        const pair: Group = { name: `pair ${ranks.join(" and ")}`, ranks }
        const group = planted === "another's group" ? { name: "pair", ranks: [0, 1] } : pair
        const inOrder = planted === "another order" && later ? layers.toReversed() : layers
        for (const { name, parameters } of inOrder.filter((layer) => layer.parameters.length > 0)) {
          if (planted !== "not received") {
            const options = { attributes: { reduce: "avg" } }
            machine.submit(
              collective(name, kernels.all_reduce, Lane.inter, group, parameters, parameters, options)
            )
          } else if (!later) {
            const source = { attributes: { source: true } }
            machine.submit(collective(name, kernels.send_recv, Lane.inter, group, parameters, [], source))
          }
        }
      }
      for (let step = 0; step < steps; step++) {
        for (const { forward } of layers) for (const op of forward) machine.submit(op)
        for (const { backward } of layers.toReversed()) for (const op of backward) machine.submit(op)
        for (const { op, scalars } of takeStep(step)) machine.submit(op, scalars)
        exchange(step)
        yield* machine.endStep
      }
    })

/** Gathers each layer from parts before its pass; `late`: after it, as a program that issues them in the wrong place. */
const gathered =
  (late: boolean): Scheduler =>
  ({ model, steps, world }) =>
    Effect.gen(function* () {
      const machine = yield* Machine
      const { layers } = yield* model
      const spec = { dtype: "float32" as const }
      const part = yield* machine.alloc({ ...spec, name: "part", shape: [8], persistent: true })
      const whole = yield* machine.alloc({ ...spec, name: "whole", shape: [8 * world.size] })
      const options = { attributes: { ranks: world.size } }
      const gather = collective("gather", kernels.all_gather, Lane.intra, world.all, [part], [whole], options)
      for (let step = 0; step < steps; step++) {
        for (const { forward } of layers) {
          if (!late) machine.submit(gather)
          machine.submit(waitFor("unpack", [whole]))
          for (const op of forward) machine.submit(op)
          if (late) machine.submit(gather)
        }
        yield* machine.endStep
      }
    })

describe("a scheduler", () => {
  it("that is right breaks nothing", () => {
    expect(failureOf(gossip("nothing")).failure).toBeUndefined()
    expect(failureOf(gathered(false)).failure).toBeUndefined()
  })

  it.each<readonly [Planted, RegExp]>([
    ["one side", /no progress .* group "pair 0 and 1" .* 1 of 2 ranks joined, not rank 1/u],
    [
      "another order",
      /group "pair 0 and 1", collective 0: rank 1 submitted all_reduce ".+" of .+, rank 0 had/u
    ],
    ["another's group", /rank 2, submit of ".+": group "pair" of ranks 0, 1 has not rank 2/u],
    ["not received", /no progress .* group "pair 0 and 1" .* 1 of 2 ranks joined, not rank 1/u]
  ])(
    "in which ranks disagree (%s) is told who misses what, among as few ranks as show it",
    (planted, told) => {
      const { failure, counterexample } = failureOf(gossip(planted))
      expect(failure).toMatch(told)
      expect(counterexample!.scenario.world.ranks).toBe(planted === "another's group" ? 3 : 2)
    }
  )

  it("that uses a layer before its gather is told which op reads what", () => {
    const { failure } = failureOf(gathered(true))
    expect(failure).toBe(
      'property readsOnlyWhatIsThere: rank 0, step 0: op 0 "unpack" reads "whole", which no op has written before it'
    )
  })
})

/** CLOCK: a resident that was used since the hand came by stays for another round. */
class Clock implements ReplacementPolicy {
  #ring: Array<ExpertId> = []
  readonly #used = new Set<ExpertId>()
  hit(id: ExpertId): void {
    this.#used.add(id)
  }
  loaded(id: ExpertId): void {
    this.#ring.push(id)
  }
  evicted(id: ExpertId): void {
    this.#ring = this.#ring.filter((other) => other !== id)
    this.#used.delete(id)
  }
  replace(_: ExpertId, mayLeave: MayLeave): Decision {
    const free = this.#ring.filter(mayLeave)
    for (const id of free) if (!this.#used.delete(id)) return id
    return free[0] ?? "wait"
  }
  get oldest(): ExpertId {
    return this.#ring[0]!
  }
}

const planted: Readonly<Record<string, (policy: Clock, incoming: ExpertId, may: MayLeave) => Decision>> = {
  "evicts what is in use": (policy) => policy.oldest,
  "evicts what is not there": (_, incoming) => incoming,
  "evicts nobody": () => "wait",
  "bypasses without a staging slot": () => "bypass",
  "answers nothing": () => undefined as unknown as Decision
}

const wrongWith = (decide?: (policy: Clock, incoming: ExpertId, may: MayLeave) => Decision) => {
  const strategyOf = ({ shape }: Demand, slots: number) => {
    const pools = Array.from({ length: shape.layers }, () => {
      const policy = new Clock()
      if (decide !== undefined) policy.replace = (incoming, may) => decide(policy, incoming, may)
      return { slots, policy }
    })
    const cache = new ExpertCache({ shape, pools, stagingSlots: 0 })
    return { cache, begin: () => undefined, serve: cache.request.bind(cache) }
  }
  let shown = ""
  const property = fc.property(demand(), fc.integer({ min: 1, max: 3 }), (instance, slots) => {
    const found = violationsOf(instance, strategyOf(instance, slots))
    if (found.length > 0) shown = found[0]!
    return found.length === 0
  })
  return { ...fc.check(property, { numRuns: 300, seed: 1 }), shown }
}

describe("a cache policy", () => {
  it("that is right breaks nothing", () => {
    expect(wrongWith().failed).toBe(false)
  })

  it.each([
    ["evicts what is in use", /lets expert 0 leave for expert 1: the present call has still to compute it/u],
    ["evicts what is not there", /lets expert 1 leave for expert 1: it lies in none of the policy's slots/u],
    ["evicts nobody", /no slot for expert 1 of layer 0: its policy waits/u],
    ["bypasses without a staging slot", /expert 1 is to bypass the cache: no staging slot/u],
    ["answers nothing", /lets expert undefined leave for expert 1: it lies in none/u]
  ])("that %s is told so where it decides", (fault, told) => {
    const { failed, shown, counterexample } = wrongWith(planted[fault])
    expect(failed).toBe(true)
    expect(shown).toMatch(told)
    expect(counterexample![0].shape).toEqual({ layers: 1, experts: 2 })
  })
})

describe("a scenario written by hand", () => {
  const input = (bandwidth: string | number) => ({
    name: "by hand",
    model: { layers: 3, parameters: 3e6, stepSeconds: "10ms" },
    world: { ranks: 2, links: { inter: { bandwidth } } },
    algorithm: { name: "dreamddp" as const, period: 3 }
  })

  it("needs no profile beside it, and runs with a scheduler or its own algorithm alike", () => {
    const scenario = input("1Gbit/s")
    const own: Scheduler = ({ model, planned, steps }) => planned.program(model, steps)
    const { makespanSeconds } = runCase({ scenario }).result
    expect(runScheduler(own, { scenario }).result.makespanSeconds).toBe(makespanSeconds)
  })

  it("may have a profile, named as a file or beside it", async () => {
    const named = "traces/profiles/gpt2-h200.arrow"
    const scenario = { ...input("1Gbit/s"), model: { profile: named } }
    const own: Scheduler = ({ model, planned, steps }) => planned.program(model, steps)
    const { makespanSeconds } = runCase({ scenario }).result
    expect(runScheduler(own, { scenario }).result.makespanSeconds).toBe(makespanSeconds)
    const profile = await Effect.runPromise(readProfile(named))
    const beside = { ...scenario, model: { profile: "of any name" } }
    expect(runCase({ scenario: beside, profile }).result.makespanSeconds).toBe(makespanSeconds)
    expect(() => runCase({ scenario: beside })).toThrow(
      /^scenario: model\.profile: of any name .*is not accepted; expected a profile file/u
    )
  })

  it("is refused field by field, as a file is", () => {
    // What decodeScenario gives has the type of what it takes, but not the units.
    const twice = () => decodeScenario(decodeScenario(input("1Gbit/s")))
    expect(twice).toThrow(
      /^scenario: world\.links\.inter\.bandwidth: 125000000 \(it has no unit \(bits or bytes\?\)\) is not accepted; expected a bandwidth/mu
    )
    const misspelt = { ...input("1Gbit/s"), jiter: 0.1 }
    expect(() => runCase({ scenario: misspelt })).toThrow(
      /^scenario: jiter: an unknown field .*did you mean "?jitter/u
    )
    const other = { ...input("1Gbit/s"), task: "moe-training" } as unknown as ReturnType<typeof input>
    expect(() => runCase({ scenario: other })).toThrow(/scenario: /u)
  })
})
