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
