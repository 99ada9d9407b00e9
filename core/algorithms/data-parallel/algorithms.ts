// Every data-parallel algorithm that a scenario can name: the one list, and what follows from it.
import type * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { settingsOf, type SettingsError } from "../algorithm.ts"
import type { DataParallelAlgorithm, PlannedAlgorithm, PlanningFacts } from "./algorithm.ts"
import { ddp } from "./ddp/algorithm.ts"
import { dilocoAlgorithm } from "./diloco/algorithm.ts"
import { dreamDdp } from "./dreamddp/algorithm.ts"
import { localSgd } from "./local-sgd/algorithm.ts"
import { partialLocalSgdAlgorithm } from "./partial-local-sgd/algorithm.ts"
import { sSgd } from "./s-sgd/algorithm.ts"
import { streamingDiloco } from "./streaming-diloco/algorithm.ts"

/** In the order that reports list them. */
export const dataParallelAlgorithms = [
  sSgd,
  ddp,
  localSgd,
  partialLocalSgdAlgorithm,
  dreamDdp,
  dilocoAlgorithm,
  streamingDiloco
] as const

/** `algorithm` of a scenario: one schema per algorithm, every field with its default. */
export const DataParallelSettings = Schema.Union(settingsOf(dataParallelAlgorithms))
export type DataParallelSettings = typeof DataParallelSettings.Type

/** Names as a scenario writes them. */
export type DataParallelName = DataParallelSettings["name"]
/** As a scenario writes them, in the order of the list. */
export const dataParallelNames: ReadonlyArray<DataParallelName> = dataParallelAlgorithms.map(
  ({ name }) => name
)

const byName = new Map<string, DataParallelAlgorithm>(dataParallelAlgorithms.map((one) => [one.name, one]))

/** The algorithm of that name. */
export const dataParallelNamed = (name: DataParallelName): DataParallelAlgorithm => byName.get(name)!

/** Plans the algorithm; fails when settings do not fit the model's layers. */
export const planDataParallel = (
  settings: DataParallelSettings,
  facts: PlanningFacts
): Result.Result<PlannedAlgorithm, SettingsError> => dataParallelNamed(settings.name).plan(settings, facts)
