// `tandem/sim`: the simulator as a library. A program on simulated ranks with `simulate`; a scenario, as `sim run` has it,
// with `loadScenario` and `runScenario`.
export { simulate } from "./simulate.ts"
export type { LinkResult, RankResult, Simulation, SimulationResult } from "./simulate.ts"
export { loadScenario } from "./scenario-file.ts"
export { InputErrors } from "./scenario/input-errors.ts"
export { Loader } from "./load.ts"
export { runScenario } from "./run.ts"
export { familyOf, families } from "./families.ts"
export type { Family, FamilyRun, Metric, RunFacts, RunOptions, Told } from "./family.ts"
export { metricOf } from "./result.ts"
export type { RunResult } from "./result.ts"
export { planScenario, runDataParallel } from "./families/data-parallel/run.ts"
export type {
  DataParallelOptions,
  DataParallelResult,
  DataParallelRun,
  ScenarioPlan
} from "./families/data-parallel/run.ts"

export { makeCostModel } from "./cost/cost-model.ts"
export type { CostModel, CostOptions, Estimate, HostTime } from "./cost/cost-model.ts"
export { CollectiveTable } from "./cost/collective-table.ts"
export { devices } from "./cost/roofline.ts"
export type { Device } from "./cost/roofline.ts"
export { aloneSeconds } from "./collectives.ts"
export type { CollectiveOptions } from "./collectives.ts"
export { Faults } from "./faults.ts"
export type { Fault, LinkFault, RankFault } from "./faults.ts"
export { Network } from "./network.ts"
export type { CollectiveAlgorithm } from "./network.ts"
export { distinct, interchangeable } from "./symmetry.ts"
export type { InitialValues, Values } from "./values.ts"
export { chromeTrace } from "./perfetto.ts"
