// A device emulated on this machine: every kernel takes at least what its roofline on that device comes to, asleep for the
// rest. Ranks then overlap as they would on devices of their own, however few cores they share, as long as the device is
// slower than the cores are.
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"
import type { Op } from "../../core/machine/op.ts"
import type { PrepareOptions } from "../native.ts"
import type { Scenario } from "../../scenarios/families.ts"
import { rooflineSeconds, type Device } from "../../core/cost/devices.ts"
import { resolveDevice } from "../../scenarios/resolve.ts"

/** Least seconds of an op on a device. */
export const leastSecondsOn =
  (device: Device) =>
  ({ kernel, reads, writes, attributes }: Op): number =>
    kernel.kind === "compute" ? rooflineSeconds(kernel.work(reads, writes, attributes), device) : 0

/** The device which the scenario names. */
export const emulatedDevice = (scenario: Scenario, file: string): Effect.Effect<Device, InputError> => {
  const device = "device" in scenario ? resolveDevice(scenario.device) : undefined
  return device === undefined
    ? Effect.fail(
        new InputError({
          file,
          field: "device",
          accepted: "a device to emulate: {flops, memoryBandwidth}, slower than this machine"
        })
      )
    : Effect.succeed(device)
}

/** Ops that are no collectives take at least so long: what `execute` is told of them. */
export const onDevice =
  (leastSeconds: (op: Op) => number) =>
  (_: number, op: Op): PrepareOptions | undefined =>
    op.group === undefined ? { seconds: leastSeconds(op) } : undefined
