// What strategies would load for a scenario's routing, without a run: the trace-driven count of every algorithm under the
// same conditions, beside the fewest loads there can be. Quick, and blind to time: every prefetch counts as in time.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { countLoads } from "../../../core/algorithms/expert-offload/count-loads.ts"
import { fewestLoads } from "../../../core/algorithms/expert-offload/optimum.ts"
import type { ExpertOffloadScenario } from "./scenario.ts"
import {
  ExpertOffloadSettings,
  expertOffloadNames,
  offloadAlgorithmNamed
} from "../../../core/algorithms/expert-offload/algorithms.ts"
import type { InputError } from "../../../core/input-error.ts"
import { formatShare } from "../../../core/units.ts"
import type { Host, Told } from "../../family.ts"
import { alignColumns } from "../../table.ts"
import { planScenario } from "./prepare.ts"

export const schedule = (
  scenario: ExpertOffloadScenario,
  file: string,
  { loader }: Host
): Effect.Effect<Told, InputError> =>
  Effect.map(planScenario(scenario, file, loader), (prepared) => {
    const { demand, strategy, slotsOf, model } = prepared
    const others = expertOffloadNames
      .filter((name) => name !== scenario.algorithm.name)
      .map((name) => Schema.decodeUnknownSync(ExpertOffloadSettings)({ name }))
    const rows = [scenario.algorithm, ...others].map((settings) => {
      const { slots, scope } = slotsOf(settings)
      const counted = countLoads(demand, strategy(settings))
      return {
        algorithm: settings.name,
        scope,
        ...counted,
        hitShare: counted.hits / counted.needs,
        fewestLoads: fewestLoads(demand, slots, scope)
      }
    })
    const { slots, scope } = slotsOf(scenario.algorithm)
    const steps = demand.calls.length / model.layers
    return {
      json: { steps, slots, scope, algorithms: rows },
      lines: [
        `${steps} steps of ${model.layers} layers; ${slots} slots ${scope === "shared" ? "in all" : "for each layer"} of ${model.experts} experts`,
        "",
        ...alignColumns(
          [
            ["", "slots", "loads", "prefetched", "useless", "in a slot", "fewest"],
            ...rows.map((row) => [
              offloadAlgorithmNamed(row.algorithm).title,
              row.scope,
              String(row.loads),
              String(row.prefetches),
              String(row.uselessPrefetches),
              formatShare(row.hitShare),
              String(row.fewestLoads)
            ])
          ],
          (column) => column >= 2
        ),
        "",
        "Loads of the whole run from cold slots; a prefetch counts as in time. In a slot: share of needs whose expert was in a",
        "slot or on its way. Fewest: what no schedule with these slots can go below."
      ]
    }
  })
