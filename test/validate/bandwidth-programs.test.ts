// The programs that the bandwidth tables are computed with, against the recurrence that the tables' authors describe: any
// model, bandwidth and method, not only the published ones.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { decodeScenario } from "../../scenarios/scenario-file.ts"
import { Loader } from "../../scenarios/load.ts"
import { metricOf } from "../../scenarios/result.ts"
import { runScenario } from "../../sim/run.ts"
import { utilisation, type Job, type Method } from "./utilisation-model.ts"

const algorithmOf = ({ period, layersPerFragment, delaySteps, bits }: Method, asDdp: boolean) => {
  const wire = bits === 4 ? "float4" : "bfloat16"
  if (asDdp) return { name: "ddp", buckets: "per-layer", wire, deadline: "next-use" }
  if (layersPerFragment === undefined)
    return { name: "diloco", period, wire, overlap: true, deadline: "next-use" }
  return { name: "streaming-diloco", period, layersPerFragment, delaySteps, wire }
}

const simulated = (job: Job, method: Method, network: string, asDdp: boolean): number => {
  const { layers, parameters, stepSeconds, gbits } = job
  const raw = {
    name: "generated",
    model: { layers, parameters, stepSeconds },
    world: { ranks: 2, links: { inter: { bandwidth: `${gbits}Gbit/s` } } },
    algorithm: algorithmOf(method, asDdp),
    network
  }
  const run = Effect.gen(function* () {
    const scenario = yield* decodeScenario(raw, () => "generated")
    const { result } = yield* runScenario(scenario, "generated.yaml", { loader: new Loader() })
    return metricOf(result, "computeUtilisation")
  })
  return Effect.runSync(run)
}

const jobs = fc.record({
  layers: fc.integer({ min: 1, max: 20 }),
  stepSeconds: fc.constantFrom(0.1, 0.8, 4.9, 26),
  // Gbit per step that the link could carry, relative to the payload: from starved to idle.
  ease: fc.constantFrom(0.01, 0.1, 0.5, 0.9, 1.1, 2, 10, 100),
  millions: fc.integer({ min: 1, max: 100_000 })
})

const methods = fc.oneof(
  fc.record({ period: fc.constant(1), delaySteps: fc.constant(0), bits: fc.constantFrom(4, 16) }),
  fc.record({
    period: fc.integer({ min: 2, max: 40 }),
    delaySteps: fc.constant(0),
    bits: fc.constantFrom(4, 16)
  }),
  fc.record({
    period: fc.integer({ min: 20, max: 60 }),
    layersPerFragment: fc.integer({ min: 1, max: 6 }),
    delaySteps: fc.constantFrom(0, 1, 2),
    bits: fc.constantFrom(4, 16)
  })
)

it("simulated utilisation is that of the published recurrence", () => {
  const seen = { ddp: 0, diloco: 0, streaming: 0, delayed: 0, stalled: 0, hidden: 0 }
  fc.assert(
    fc.property(
      jobs,
      methods,
      fc.constantFrom("fluid", "alpha-beta"),
      fc.boolean(),
      ({ layers, stepSeconds, ease, millions }, drawn: Method, network, ddp) => {
        // The layers of the model divide its parameters, so that all have the same payload as the recurrence's.
        const parameters = layers * millions * 1e6
        const method =
          drawn.layersPerFragment !== undefined && drawn.layersPerFragment >= layers
            ? { ...drawn, layersPerFragment: layers }
            : drawn
        const fragments =
          method.layersPerFragment === undefined ? 1 : Math.ceil(layers / method.layersPerFragment)
        // At most one fragment in flight: the planner refuses longer delays.
        fc.pre(method.delaySteps < Math.floor(method.period / fragments))
        const perPeriod = (parameters * method.bits) / 1e9
        const gbits = (ease * perPeriod) / (method.period * stepSeconds)
        const asDdp = ddp && method.period === 1
        const job = { layers, parameters, stepSeconds, gbits }
        const expected = utilisation(job, method)
        const found = simulated(job, method, network, asDdp)
        expect(Math.abs(found - expected)).toBeLessThan(1e-9)
        if (asDdp) seen.ddp++
        else if (method.layersPerFragment === undefined) seen.diloco++
        else if (method.delaySteps === 0) seen.streaming++
        else seen.delayed++
        if (expected < 0.999) seen.stalled++
        if (expected > 0.99999) seen.hidden++
      }
    ),
    { numRuns: 300 }
  )
  expect(Math.min(...Object.values(seen))).toBeGreaterThan(5)
})
