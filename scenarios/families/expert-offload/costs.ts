// What generation with offloaded experts costs: a table of timed kernels and copies, and what it says of loading an expert.
import {
  hostLinkSource,
  makeCostModel,
  type HostOptions,
  type Costed,
  type TracedCostModel
} from "../../../core/cost/cost-model.ts"
import type { Device } from "../../../core/cost/devices.ts"
import type { OpTable } from "../../../core/cost/op-table.ts"
import { kernels } from "../../../core/kernels/catalogue.ts"
import { operand } from "../../../core/kernels/kernel.ts"

interface HostLink {
  readonly bytesPerSecond: number
  readonly latencySeconds: number
}

export interface OffloadCosts {
  /** Products, copies and attention. */
  readonly ops: OpTable
  readonly device: Device | undefined
  /** Copies as this link would make them; default: as measured. */
  readonly hostLink: HostLink | undefined
  readonly host?: HostOptions | "none" | undefined
}

/** Each simulation wants its own, for each lists its own estimates. */
export const offloadCosts = ({ ops, device, hostLink, host }: OffloadCosts): TracedCostModel =>
  makeCostModel({ sources: hostLink === undefined ? [ops] : [hostLinkSource(hostLink), ops], device, host })

const costOf = (costs: OffloadCosts, kernel: "h2d" | "zero", sizeBytes: number): number => {
  const expert = operand([sizeBytes], "int8")
  const call: Costed = { kernel: kernels[kernel], reads: [expert], writes: [expert], attributes: {} }
  return offloadCosts(costs).cost(call).seconds
}

/** One copy of so many bytes to the device. */
export const loadSeconds = (costs: OffloadCosts, sizeBytes: number): number => costOf(costs, "h2d", sizeBytes)

/** So many bytes crossing the device's memory once. */
export const readSeconds = (costs: OffloadCosts, sizeBytes: number): number =>
  costOf(costs, "zero", sizeBytes)
