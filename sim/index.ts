// `tandem/sim`: the simulator as a library. A program on simulated ranks with `simulate`; a scenario, as `sim run` has it,
// with `runScenario`.
export { simulate } from "./simulate.ts"
export type { RankResult, Simulation, SimulationResult } from "./simulate.ts"
export { hostOf, runFamily, runPrepared, runScenario, simulator } from "./run.ts"
export type { Run, RunOptions } from "./run.ts"
export { Faults } from "./faults.ts"
export type { Values } from "./values.ts"
