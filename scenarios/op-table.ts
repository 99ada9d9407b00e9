// The table of timed ops that a scenario's kernels are looked up in: the one it names or, for a device that has a name, the one
// that ships. The same rule for every family.
import * as Effect from "effect/Effect"
import { devices, deviceNamed, type Device } from "../core/cost/devices.ts"
import { OpTable } from "../core/cost/op-table.ts"
import { InputError } from "../core/input-error.ts"
import type { Profile } from "../core/profile.ts"
import type { Loader } from "./load.ts"

/** Kernels that ship: an H200's. */
const shippedOps = "traces/profiles/h200-ops.arrow"

/** A profile's timed ops as `device` would take them; default: the device they were measured on. */
export const opTableOf = (profile: Profile, device: Device | undefined): OpTable =>
  new OpTable(profile.ops, {
    measuredOn: { name: profile.device, device: deviceNamed(profile.device) },
    device
  })

/**
 * The table that `field` names. Without one, a device with a name gets the shipped one, carried over by peak rates where it is
 * not an H200; for one that a scenario describes by its rates nothing was measured, and there is none.
 */
export const resolveOpTable = (
  named: string | undefined,
  device: Device | undefined,
  field: string,
  file: string,
  loader: Loader
): Effect.Effect<OpTable | undefined, InputError> =>
  Effect.gen(function* () {
    const known = device !== undefined && devices.some(({ name }) => name === device.name)
    const path = named ?? (known ? shippedOps : undefined)
    if (path === undefined) return undefined
    const table = opTableOf(yield* loader.profile(file, field, path), device)
    if (!table.isEmpty) return table
    return yield* new InputError({
      file,
      field,
      value: `${path} (no timed kernels that can be looked up)`,
      accepted: "a profile of timed kernels, as `exec bench --out` or `sim import csv` makes"
    })
  })
