// Fields of a serving scenario that change nothing for what it chooses.
import { cacheMethodNamed } from "../../../core/algorithms/kv-serving/methods.ts"
import { defaultOf } from "../../../core/fields.ts"
import { KvServingScenario, hostNever } from "./scenario.ts"
import type { RunFacts } from "../../family.ts"
import {
  deviceWarnings,
  faultWarnings,
  hostWarnings,
  linkWindowWarnings,
  longerThanLinks,
  realWarnings,
  slipWarnings
} from "../../ignored.ts"

export const ignored = (scenario: KvServingScenario, facts?: RunFacts): ReadonlyArray<string> => [
  ...(cacheMethodNamed(scenario.algorithm.name).ignored?.(scenario.algorithm) ?? []),
  ...requestWarnings(scenario),
  ...transferWarnings(scenario),
  ...(isFitted(scenario) ? [] : deviceWarnings(scenario.device, "measured", facts)),
  ...costWarnings(scenario),
  ...launchWarnings(scenario, facts),
  ...(isFitted(scenario) ? [] : hostWarnings(scenario.host, hostNever(scenario))),
  ...faultWarnings(scenario.faults, worldOf(scenario), facts),
  ...seedWarnings(scenario, cacheMethodNamed(scenario.algorithm.name).mustBeRead)
]

const requestWarnings = ({ requests }: KvServingScenario): ReadonlyArray<string> =>
  "count" in requests && requests.perSecond === undefined && requests.arrivals !== "poisson"
    ? ["requests.arrivals has no effect: without requests.perSecond all come at once"]
    : []

const transferWarnings = (scenario: KvServingScenario): ReadonlyArray<string> => {
  const { transfer, memory, network } = scenario
  const { to, bandwidth = Infinity, latency, window } = transfer
  const warnings: Array<string> = []
  if (to === "none" && transfer.bandwidth !== undefined)
    warnings.push("transfer.bandwidth has no effect: caches stay where they are (transfer.to: none)")
  if (to === "host" && isFitted(scenario))
    warnings.push(
      transfer.bandwidth === undefined
        ? "caches go to host memory and back in no time: fitted costs have no copies"
        : "transfer.bandwidth has no effect: fitted costs have no copies"
    )
  if (to !== "node" && latency > 0)
    warnings.push("transfer.latency has no effect: there is no link between nodes (transfer.to)")
  if (to === "node")
    warnings.push(
      ...slipWarnings("transfer.latency", latency, longerThanLinks),
      ...linkWindowWarnings("transfer", { bandwidth, latency, window })
    )
  else if (window !== undefined)
    warnings.push("transfer.window has no effect: there is no link between nodes (transfer.to)")
  if (to !== "host" && memory?.host !== undefined)
    warnings.push("memory.host has no effect: nothing is in host memory (transfer.to)")
  if (to !== "node" && network !== "fluid")
    warnings.push("network has no effect: there is no link between nodes (transfer.to)")
  return warnings
}

const launchWarnings = ({ costs }: KvServingScenario, facts: RunFacts | undefined): ReadonlyArray<string> =>
  costs !== undefined &&
  !("step" in costs) &&
  costs.launch !== undefined &&
  facts !== undefined &&
  !facts.estimates.some(({ source }) => source === "roofline")
    ? ["costs.launch has no effect: every kernel's cost is from the table"]
    : []

const isFitted = ({ costs }: KvServingScenario): boolean => costs !== undefined && "step" in costs

/** A fitted step time is all there is of a step. */
const costWarnings = (scenario: KvServingScenario): ReadonlyArray<string> =>
  isFitted(scenario)
    ? (["device", "host"] as const)
        .filter((field) => scenario[field] !== undefined && scenario[field] !== "none")
        .map((field) => `${field} has no effect: the costs are a fitted step time`)
    : []

const worldOf = ({ transfer }: KvServingScenario) => {
  const link = { bandwidth: Infinity, latency: 0 }
  return {
    ranks: transfer.to === "node" ? 2 : 1,
    ranksPerNode: 1,
    sites: 1,
    links: { intra: link, inter: link }
  }
}

/** `kept`: which tokens stay is drawn, and how many. */
export const seedWarnings = (
  { seed, requests, jitter }: KvServingScenario,
  kept: boolean
): ReadonlyArray<string> => {
  const drawn =
    !("trace" in requests) &&
    (typeof requests.prompt !== "number" ||
      typeof requests.output !== "number" ||
      (requests.perSecond !== undefined && requests.arrivals === "poisson"))
  return seed !== 0 && !drawn && jitter === 0 && !kept
    ? ["seed has no effect: neither requests nor times nor what is kept are drawn"]
    : []
}

const usualObjective = defaultOf(KvServingScenario.fields.objective)

export const ignoredByExec = (scenario: KvServingScenario, alsoSimulated: boolean): ReadonlyArray<string> => {
  const { objective, costs, device, cacheDtype } = scenario
  const warnings = [...realWarnings(scenario, alsoSimulated)]
  if (objective.ttft !== usualObjective.ttft || objective.tpot !== usualObjective.tpot)
    warnings.push("objective has no effect: goodput is counted in the simulator alone")
  if (costs !== undefined) warnings.push("costs have no effect: a real run takes as long as it takes")
  if (device !== undefined) warnings.push("device has no effect: this machine is the device")
  if (cacheDtype !== undefined)
    warnings.push("cacheDtype has no effect: real caches are of the model's dtype (model.dtype)")
  return warnings
}
