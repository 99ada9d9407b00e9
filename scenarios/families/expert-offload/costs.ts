// What generation with offloaded experts costs: a table of timed kernels and copies, and what it says of loading an expert.
import { hostLinkSource, makeCostModel, type CostModel, type Costed } from "../../../core/cost/cost-model.ts"
import type { Device } from "../../../core/cost/devices.ts"
import type { OpTable } from "../../../core/cost/op-table.ts"
import { kernels } from "../../../core/kernels/catalogue.ts"
import { operand } from "../../../core/kernels/kernel.ts"

export interface HostLink {
  readonly bytesPerSecond: number
  readonly latencySeconds: number
}

export interface OffloadCosts {
  /** Products, copies and attention. */
  readonly ops: OpTable
  readonly device: Device
  /** Copies as this link would make them; default: as measured. */
  readonly hostLink: HostLink | undefined
}

/** Each simulation wants its own, for each lists its own estimates. */
export const offloadCosts = ({ ops, device, hostLink }: OffloadCosts): CostModel =>
  makeCostModel({ sources: hostLink === undefined ? [ops] : [hostLinkSource(hostLink), ops], device })

/** One copy of so many bytes to the device. */
export const loadSeconds = ({ ops, device, hostLink }: OffloadCosts, sizeBytes: number): number => {
  const expert = operand([sizeBytes], "int8")
  const load: Costed = { kernel: kernels.h2d, reads: [expert], writes: [expert], attributes: {} }
  const sources = hostLink === undefined ? [ops] : [hostLinkSource(hostLink), ops]
  return makeCostModel({ sources, device }).cost(load).seconds
}
