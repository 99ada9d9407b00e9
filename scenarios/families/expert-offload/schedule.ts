// What strategies would load for a scenario's routing, without a run: the trace-driven count of every algorithm under the
// same conditions, beside the fewest loads there can be. Quick, and blind to time: every prefetch counts as in time.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { countLoads } from "../../../core/algorithms/expert-offload/count-loads.ts"
import { fewestLoads, type SlotScope } from "../../../core/algorithms/expert-offload/optimum.ts"
import type { ExpertOffloadScenario } from "./scenario.ts"
import {
  ExpertOffloadSettings,
  expertOffloadNames,
  offloadAlgorithmNamed
} from "../../../core/algorithms/expert-offload/algorithms.ts"
import { InputError } from "../../../core/input-error.ts"
import { counted, formatShare } from "../../../core/units.ts"
import type { Host, Told } from "../../family.ts"
import { alignColumns } from "../../table.ts"
import { planScenario } from "./prepare.ts"

/** Loads that no schedule goes below: of those with these slots, under three rules of what may leave when. */
interface Bounds {
  readonly fewestLoads: number
  readonly fewestForcedLoads: number
  readonly fewestPinnedLoads: number
}

export const schedule = (
  scenario: ExpertOffloadScenario,
  file: string,
  { loader, only, progress }: Host
): Effect.Effect<Told, InputError> =>
  Effect.flatMap(planScenario(scenario, file, loader), (prepared) =>
    Effect.gen(function* () {
      const { demand, strategy, slotsOf, model } = prepared
      const unknown = only?.find((name) => !expertOffloadNames.some((known) => known === name))
      if (unknown !== undefined) {
        return yield* new InputError({
          file: "--algorithms",
          field: "",
          value: unknown,
          accepted: expertOffloadNames.join(", ")
        })
      }
      const others = expertOffloadNames
        .filter((name) => name !== scenario.algorithm.name && (only === undefined || only.includes(name)))
        .map((name) => Schema.decodeUnknownSync(ExpertOffloadSettings)({ name }))
      const own = only === undefined || only.includes(scenario.algorithm.name) ? [scenario.algorithm] : []
      const bounds = new Map<string, Bounds>()
      const boundsOf = (slots: number, scope: SlotScope): Bounds => {
        const key = `${slots} ${scope}`
        let known = bounds.get(key)
        if (known === undefined) {
          known = {
            fewestLoads: fewestLoads(demand, slots, scope),
            fewestForcedLoads: fewestLoads(demand, slots, scope, "forced"),
            fewestPinnedLoads: fewestLoads(demand, slots, scope, "pinned")
          }
          bounds.set(key, known)
        }
        return known
      }
      const replayed = [...own, ...others]
      const rows = []
      for (const [index, settings] of replayed.entries()) {
        progress?.(index, replayed.length, settings.name)
        const { slots, scope } = slotsOf(settings)
        const count = countLoads(demand, strategy(settings))
        rows.push({
          algorithm: settings.name,
          scope,
          ...count,
          hitShare: count.hits / count.needs,
          ...boundsOf(slots, scope)
        })
        // Between two of them a signal is heard.
        yield* Effect.yieldNow
      }
      const { slots, scope } = slotsOf(scenario.algorithm)
      const steps = demand.calls.length / model.layers
      return {
        json: { steps, slots, scope, algorithms: rows },
        lines: [
          `${counted(steps, "step")} of ${counted(model.layers, "layer")}; ${counted(slots, "slot")} ${scope === "shared" ? "in all" : "for each layer"} of ${counted(model.experts, "expert")}`,
          "",
          ...alignColumns(
            [
              ["", "slots", "loads", "prefetched", "useless", "in a slot", "fewest", "forced", "pinned"],
              ...rows.map((row) => [
                offloadAlgorithmNamed(row.algorithm).title,
                row.scope,
                String(row.loads),
                String(row.prefetches),
                String(row.uselessPrefetches),
                formatShare(row.hitShare),
                String(row.fewestLoads),
                String(row.fewestForcedLoads),
                String(row.fewestPinnedLoads)
              ])
            ],
            (column) => column >= 2
          ),
          "",
          "Loads of the whole run from cold slots; a prefetch counts as in time. In a slot: share of needs whose expert was in a",
          "slot or on its way. What no schedule with these slots can go below: fewest, where an expert may pass through a staging",
          "slot; forced, where each that is loaded takes a slot; pinned, where moreover what a layer call needs stays until the",
          "call has ended. Algorithms without staging are forced but not pinned, all alike: an expert that the call has computed may",
          "leave for one that it has still to load."
        ]
      }
    })
  )
