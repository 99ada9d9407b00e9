// `tandem/testing`: for people who test their own schedulers and programs. Arbitraries and options follow fast-check.
export { algorithmSettings } from "./algorithm.ts"
export type { AlgorithmConstraints, AlgorithmInput, AlgorithmName } from "./algorithm.ts"
export { agreementScenario, checkAgreement } from "./check-agreement.ts"
export type { AgreementConstraints, AgreementDetails, AgreementParameters } from "./check-agreement.ts"
export { assertScheduler, checkScheduler, runCase, runScheduler } from "./check-scheduler.ts"
export type {
  Scheduler,
  SchedulerContext,
  SchedulerDetails,
  SchedulerParameters,
  SchedulerProperty,
  SchedulerRun
} from "./check-scheduler.ts"
export { cacheSettings } from "./cache-settings.ts"
export type { CacheConstraints } from "./cache-settings.ts"
export { runOnBoth } from "../exec/cli/both-machines.ts"
export type { Both, BothOptions } from "../exec/cli/both-machines.ts"
export { saveCounterexample } from "./counterexample.ts"
export { executionOf } from "./execution.ts"
export { demand, offloadSettings, violationsOf } from "./expert-offload.ts"
export type { DemandConstraints } from "./expert-offload.ts"
export { fault } from "./fault.ts"
export type { FaultInput, FaultTargets } from "./fault.ts"
export { moeCase, pipelineOrder } from "./moe-training.ts"
export type { MoeCase } from "./moe-training.ts"
export { profile, profileOf } from "./profile.ts"
export type { ProfileConstraints } from "./profile.ts"
export { neverSlowerThan, readsOnlyWhatIsThere, synchronisesEveryLayer } from "./properties.ts"
export { decodeScenario, scenario } from "./scenario.ts"
export type { ScenarioCase, ScenarioConstraints, ScenarioInput } from "./scenario.ts"
export { servingRequests } from "./serving.ts"
export type { RequestConstraints } from "./serving.ts"
export { tierBytes } from "./traffic.ts"
export type { Tier, TierBytes } from "./traffic.ts"
export { link, world } from "./world.ts"
export type { WorldConstraints } from "./world.ts"

export type { Execution, Violation } from "../core/laws/execution.ts"
export { journaled } from "../core/laws/journal.ts"
export type { Journal, JournalEntry } from "../core/laws/journal.ts"
export { assertLaws, checkLaws, laws } from "../core/laws/laws.ts"
export type { Law, LawName } from "../core/laws/laws.ts"
export { checkServing, servingLaws } from "../core/laws/serving.ts"
