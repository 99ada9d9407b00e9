// Fields of a data-parallel scenario that change nothing for the algorithm it chooses.
import { defaultsOf } from "../../../core/algorithms/algorithm.ts"
import { dataParallelNamed } from "../../../core/algorithms/data-parallel/algorithms.ts"
import type { DataParallelScenario } from "./scenario.ts"
import type { RunFacts } from "../../family.ts"
import {
  deviceWarnings,
  faultWarnings,
  hostWarnings,
  hostMemoryWarnings,
  rankCount,
  realWarnings,
  seedWarnings,
  worldWarnings
} from "../../ignored.ts"

const usualWire = ({ algorithm }: DataParallelScenario): unknown =>
  Reflect.get(defaultsOf(dataParallelNamed(algorithm.name).settings), "wire")

export const ignored = (scenario: DataParallelScenario, facts?: RunFacts): ReadonlyArray<string> => [
  ...deviceWarnings(scenario.device, "profile" in scenario.model ? "measured" : "stated", facts),
  ...worldWarnings(scenario.world, scenario.collectives),
  ...(dataParallelNamed(scenario.algorithm.name).ignored?.(scenario.algorithm) ?? []),
  ...(rankCount(scenario.world) === 1 && scenario.algorithm.wire !== usualWire(scenario)
    ? ["algorithm.wire has no effect: there is one rank"]
    : []),
  ...hostMemoryWarnings(scenario.memory),
  ...hostWarnings(scenario.host, ["read"]),
  ...faultWarnings(scenario.faults, scenario.world, facts),
  ...(scenario.training === undefined
    ? []
    : ["training says what is learnt, not how long it takes: `exec train` and `exec agree` go by it"]),
  ...seedWarnings(scenario.seed, scenario.jitter > 0, "nothing is random while jitter is 0")
]

export const ignoredByExec = (
  scenario: DataParallelScenario,
  alsoSimulated: boolean
): ReadonlyArray<string> => realWarnings(scenario, alsoSimulated)
