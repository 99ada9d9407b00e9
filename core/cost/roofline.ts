// The last resort of the cost model: how long a kernel must take at least, from its work and the device's peak rates.
// An estimate, and always reported as one.
import type { Work } from "../kernels/kernel.ts"

/** Peak rates of a device. */
export interface Device {
  readonly name: string
  /** Dense matrix rate in the training dtype, FLOP/s. */
  readonly flopsPerSecond: number
  readonly memoryBytesPerSecond: number
}

/** Vendor datasheets: dense bf16 (no sparsity) and HBM bandwidth of the SXM parts. */
export const devices: ReadonlyArray<Device> = [
  { name: "NVIDIA H200", flopsPerSecond: 989e12, memoryBytesPerSecond: 4.8e12 },
  { name: "NVIDIA H100", flopsPerSecond: 989e12, memoryBytesPerSecond: 3.35e12 },
  { name: "NVIDIA A100", flopsPerSecond: 312e12, memoryBytesPerSecond: 2.039e12 },
  { name: "NVIDIA A40", flopsPerSecond: 149.7e12, memoryBytesPerSecond: 0.696e12 }
]

/** Williams, Waterman and Patterson (2009): the slower of arithmetic and memory traffic, seconds. */
export const rooflineSeconds = (work: Work, device: Device): number =>
  Math.max(
    work.flops / device.flopsPerSecond,
    (work.readBytes + work.writtenBytes) / device.memoryBytesPerSecond
  )
