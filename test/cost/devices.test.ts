// Devices by the names that people and tools give them; a name means one device.
import { expect, it } from "vitest"
import { deviceNamed, devices } from "../../core/cost/devices.ts"

it.each([
  ["h100", "NVIDIA H100"],
  ["NVIDIA_H100", "NVIDIA H100"],
  ["NVIDIA H100 80GB HBM3", "NVIDIA H100"],
  ["H100-SXM", "NVIDIA H100"],
  ["nvidia h100 pcie", "NVIDIA H100 PCIe"],
  ["RTX4090", "NVIDIA RTX 4090"],
  ["NVIDIA GeForce RTX 5090", "NVIDIA RTX 5090"],
  ["A100-40GB", "NVIDIA A100 40GB"],
  ["a100 80 GB", "NVIDIA A100"],
  ["NVIDIA A100 80GB PCIe", "NVIDIA A100 PCIe"],
  ["Tesla V100-PCIE-16GB", "NVIDIA V100 PCIe"],
  ["Tesla T4", "NVIDIA T4"],
  ["AMD Instinct MI300X VF", "AMD MI300X"],
  ["L4", "NVIDIA L4"],
  ["L40S", "NVIDIA L40S"],
  ["H100 SXM5 80GB", "NVIDIA H100"],
  ["H200 SXM", "NVIDIA H200"],
  ["NVIDIA H200 SXM5 141GB HBM3e", "NVIDIA H200"],
  ["H200 NVL", undefined],
  ["A100 80", "NVIDIA A100"],
  ["A100-80G", "NVIDIA A100"],
  ["A100-SXM4-80G", "NVIDIA A100"],
  ["A100 40", "NVIDIA A100 40GB"],
  ["A100 PCIe 40G", "NVIDIA A100 40GB"],
  ["A100-PCIE-80GB", "NVIDIA A100 PCIe"],
  ["V100-32GB", "NVIDIA V100"],
  ["Tesla V100S-PCIE-32GB", undefined],
  ["B200 SXM6", "NVIDIA B200"],
  ["4090", "NVIDIA RTX 4090"],
  ["RTX 4090 24GB", "NVIDIA RTX 4090"],
  ["RTX 4080", undefined],
  ["A10G", undefined],
  ["L40", undefined],
  ["H100 40GB", undefined],
  ["H1000", undefined],
  ["", undefined]
])("%s", (name, device) => {
  expect(deviceNamed(name)?.name).toBe(device)
})

it("no two devices share a name", () => {
  for (const { name, ...device } of devices) {
    expect(deviceNamed(name)?.name).toBe(name)
    for (const known of "alsoKnownAs" in device ? device.alsoKnownAs : [])
      expect(deviceNamed(known)?.name).toBe(name)
  }
})
