// Devices by name: peak rates from their makers' data sheets, which estimate what nobody measured and carry measurements from
// one device to another. Every number has its source; all but the one that says otherwise were compared with reproductions of the
// makers' tables (sellers' pages, reviews, databases of devices), for the sheets themselves were not at hand.
import type { Work } from "../kernels/kernel.ts"

/** Peak rates of a device. */
export interface Device {
  readonly name: string
  /** Dense 16-bit matrix rate (no sparsity, sums in 32 bits), FLOP/s. */
  readonly flopsPerSecond: number
  readonly memoryBytesPerSecond: number
  /** Share of the peak rates that kernels reach, above 0 and at most 1, where calibrated; default: all of them. */
  readonly efficiency?: number
}

/** A device that a scenario may name. */
interface NamedDevice extends Device {
  readonly source: string
  /** Other names of it: what tools call it, and what a shorter name means. */
  readonly alsoKnownAs?: ReadonlyArray<string>
  /** Words that any of its names may have besides: its form and memory, where it has one only. */
  readonly words?: ReadonlyArray<string>
}

/**
 * Peak rates as published. Where a data sheet states sparse rates only, half of them. GeForce cards halve their rate where
 * sums are kept in 32 bits, as training does.
 */
export const devices = [
  {
    name: "NVIDIA V100",
    flopsPerSecond: 125e12,
    memoryBytesPerSecond: 900e9,
    source: "NVIDIA V100 data sheet: SXM2, 125 TFLOPS tensor, 900 GB/s",
    alsoKnownAs: ["V100 SXM2", "Tesla V100-SXM2-16GB", "Tesla V100-SXM2-32GB"],
    words: ["sxm", "16gb", "32gb"]
  },
  {
    name: "NVIDIA V100 PCIe",
    flopsPerSecond: 112e12,
    memoryBytesPerSecond: 900e9,
    source: "NVIDIA V100 PCIe announcement (June 2017): 112 TFLOPS tensor, 900 GB/s",
    alsoKnownAs: ["Tesla V100-PCIE-16GB", "Tesla V100-PCIE-32GB"],
    words: ["16gb", "32gb"]
  },
  {
    name: "NVIDIA T4",
    flopsPerSecond: 65e12,
    memoryBytesPerSecond: 320e9,
    source: "NVIDIA T4 data sheet: 65 TFLOPS mixed precision, 320 GB/s",
    words: ["16gb"]
  },
  {
    name: "NVIDIA L4",
    flopsPerSecond: 121e12,
    memoryBytesPerSecond: 300e9,
    source: "NVIDIA L4 data sheet: 242 TFLOPS bf16 with sparsity, 300 GB/s",
    words: ["24gb"]
  },
  {
    name: "NVIDIA A10",
    flopsPerSecond: 125e12,
    memoryBytesPerSecond: 600e9,
    source: "NVIDIA A10 data sheet: 125 TFLOPS bf16, 600 GB/s",
    words: ["24gb", "pcie"]
  },
  {
    name: "NVIDIA A40",
    flopsPerSecond: 149.7e12,
    memoryBytesPerSecond: 696e9,
    source: "NVIDIA A40 data sheet: 149.7 TFLOPS bf16, 696 GB/s",
    words: ["48gb", "pcie"]
  },
  {
    name: "NVIDIA L40S",
    flopsPerSecond: 362.05e12,
    memoryBytesPerSecond: 864e9,
    source: "NVIDIA L40S data sheet: 362.05 TFLOPS bf16, 864 GB/s",
    words: ["48gb", "pcie"]
  },
  {
    name: "NVIDIA RTX 3090",
    flopsPerSecond: 71e12,
    memoryBytesPerSecond: 936e9,
    source: "NVIDIA GA102 whitepaper: 71 TFLOPS bf16, 936 GB/s",
    alsoKnownAs: ["3090"],
    words: ["24gb"]
  },
  {
    name: "NVIDIA RTX 4090",
    flopsPerSecond: 165.2e12,
    memoryBytesPerSecond: 1008e9,
    source: "NVIDIA Ada whitepaper: 165.2 TFLOPS bf16, 1008 GB/s",
    alsoKnownAs: ["4090"],
    words: ["24gb"]
  },
  {
    name: "NVIDIA RTX 5090",
    flopsPerSecond: 209.5e12,
    memoryBytesPerSecond: 1792e9,
    source: "NVIDIA RTX Blackwell whitepaper: 209.5 TFLOPS bf16, 1792 GB/s",
    alsoKnownAs: ["5090"],
    words: ["32gb"]
  },
  {
    name: "NVIDIA A100 40GB",
    flopsPerSecond: 312e12,
    memoryBytesPerSecond: 1555e9,
    source: "NVIDIA A100 data sheet: 312 TFLOPS bf16, 1,555 GB/s",
    alsoKnownAs: ["NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"],
    words: ["sxm", "pcie"]
  },
  {
    name: "NVIDIA A100",
    flopsPerSecond: 312e12,
    memoryBytesPerSecond: 2.039e12,
    source: "NVIDIA A100 data sheet: 80 GB SXM, 312 TFLOPS bf16, 2,039 GB/s",
    alsoKnownAs: ["NVIDIA A100 80GB", "NVIDIA A100 SXM", "NVIDIA A100-SXM4-80GB"],
    words: ["sxm", "80gb"]
  },
  {
    name: "NVIDIA A100 PCIe",
    flopsPerSecond: 312e12,
    memoryBytesPerSecond: 1.935e12,
    source: "NVIDIA A100 data sheet: 80GB PCIe, 312 TFLOPS bf16, 1,935 GB/s",
    alsoKnownAs: ["NVIDIA A100 80GB PCIe"],
    words: ["80gb"]
  },
  {
    name: "NVIDIA H100",
    flopsPerSecond: 989e12,
    memoryBytesPerSecond: 3.35e12,
    source: "NVIDIA H100 data sheet: SXM, 1,979 TFLOPS bf16 with sparsity, 3.35 TB/s",
    alsoKnownAs: ["NVIDIA H100 80GB", "NVIDIA H100 SXM", "NVIDIA H100 SXM5", "NVIDIA H100 80GB HBM3"],
    words: ["sxm", "80gb"]
  },
  {
    name: "NVIDIA H100 PCIe",
    flopsPerSecond: 756e12,
    memoryBytesPerSecond: 2e12,
    source: "NVIDIA H100 data sheet: PCIe, 1,513 TFLOPS bf16 with sparsity, 2 TB/s",
    words: ["80gb"]
  },
  {
    name: "NVIDIA H100 NVL",
    flopsPerSecond: 835.5e12,
    memoryBytesPerSecond: 3.9e12,
    source:
      "NVIDIA H100 data sheet: NVL, 3.9 TB/s; 1,671 TFLOPS bf16 with sparsity from memory, in no table seen",
    words: ["94gb"]
  },
  {
    name: "NVIDIA H200",
    flopsPerSecond: 989e12,
    memoryBytesPerSecond: 4.8e12,
    source: "NVIDIA H200 data sheet: SXM, 1,979 TFLOPS bf16 with sparsity, 4.8 TB/s",
    words: ["sxm", "141gb"]
  },
  {
    name: "NVIDIA B200",
    flopsPerSecond: 2.25e15,
    memoryBytesPerSecond: 7.7e12,
    source:
      "NVIDIA Blackwell data sheet, HGX B200: 4.5 PFLOPS bf16 with sparsity, 180 GB at 7.7 TB/s a GPU (8 TB/s are those of GB200)",
    words: ["sxm", "180gb", "192gb"]
  },
  {
    name: "AMD MI250",
    flopsPerSecond: 362.1e12,
    memoryBytesPerSecond: 3.2768e12,
    source: "AMD Instinct MI250 data sheet: both dies, 362.1 TFLOPS bf16, 3,276.8 GB/s"
  },
  {
    name: "AMD MI250X",
    flopsPerSecond: 383e12,
    memoryBytesPerSecond: 3.2768e12,
    source:
      "AMD MI200 table of models (November 2021): both dies, 383.0 TFLOPS bf16, 3.2 TB/s (8,192 bits at 3.2 Gbit/s: 3,276.8 GB/s)"
  },
  {
    name: "AMD MI300X",
    flopsPerSecond: 1.3074e15,
    memoryBytesPerSecond: 5.3e12,
    source: "AMD Instinct MI300X data sheet: 1,307.4 TFLOPS bf16, 5.3 TB/s",
    alsoKnownAs: ["AMD Instinct MI300X VF", "AMD Instinct MI300X OAM"],
    words: ["oam", "192gb"]
  }
] as const satisfies ReadonlyArray<NamedDevice>

/** What the devices are called here. */
export const deviceNames: ReadonlyArray<string> = devices.map(({ name }) => name)

/**
 * The device of that name or one that it is also known by, whatever the case, with or without its maker and brand: "h100",
 * "RTX4090", "A100-40GB", "NVIDIA GeForce RTX 4090".
 */
export const deviceNamed = (name: string): NamedDevice | undefined => {
  const wanted = plainName(name)
  const all = devices as ReadonlyArray<NamedDevice>
  const isCalled = (device: NamedDevice, strip: (plain: string) => string): boolean =>
    [device.name, ...(device.alsoKnownAs ?? [])].some((known) => strip(plainName(known)) === strip(wanted))
  return (
    all.find((device) => isCalled(device, (plain) => plain)) ??
    all.find((device) => isCalled(device, (plain) => without(plain, device.words ?? [])))
  )
}

const without = (plain: string, words: ReadonlyArray<string>): string =>
  words.reduce((rest, word) => rest.replace(word, ""), plain)

/** "A100-SXM4-80G", "a100 80 GB HBM2e" and "A100 SXM 80GB" alike: a memory without its unit is in GB. */
const plainName = (name: string): string =>
  name
    .toLowerCase()
    .replaceAll(/[\s_-]+/gu, " ")
    .replaceAll(/\b(?:nvidia|amd|geforce|tesla|instinct|gpu|hbm\w*)\b/gu, "")
    .replaceAll(/sxm\d/gu, "sxm")
    .replaceAll(/\b(16|24|32|40|48|80|94|141|180|192)(?: ?gb?)?\b/gu, "$1gb")
    .replaceAll(" ", "")

/** Williams, Waterman and Patterson (2009): the slower of arithmetic and memory traffic, seconds. */
export const rooflineSeconds = (work: Work, device: Device): number =>
  Math.max(
    work.flops / device.flopsPerSecond,
    (work.readBytes + work.writtenBytes) / device.memoryBytesPerSecond
  ) / (device.efficiency ?? 1)
