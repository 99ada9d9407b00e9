// What the host spends on a rank's behalf: launches, calls of collectives with the hooks that lead to them, reads that wait for the
// device. A lane of its own: ops are launched one after another, and none starts before it was launched. Knows no machine.
import type { Op } from "../machine/op.ts"

/** Seconds of the host's one thread. */
export interface HostCosts {
  /** Each kernel or copy. */
  readonly launchSeconds: number
  /** Each call of a collective. */
  readonly collectiveSeconds: number
  /** Each tensor that a collective carries: the hook that hands it over. */
  readonly hookSeconds: number
  /** Each read whose value the program waits for, from the device's end of it. */
  readonly readSeconds: number
}

/**
 * Orders of magnitude of PyTorch on a server of today, to begin with; an estimate, and told as one. `eager`: a Python call, dispatch
 * and a launch for each kernel. `compiled`: a launch alone. `graph`: kernels of a step replayed at once, collectives included.
 */
export const usualHosts = {
  eager: { launchSeconds: 10e-6, collectiveSeconds: 50e-6, hookSeconds: 20e-6, readSeconds: 20e-6 },
  compiled: { launchSeconds: 5e-6, collectiveSeconds: 50e-6, hookSeconds: 20e-6, readSeconds: 20e-6 },
  graph: { launchSeconds: 0, collectiveSeconds: 0, hookSeconds: 0, readSeconds: 20e-6 }
} as const satisfies Readonly<Record<string, HostCosts>>

/** Seconds of the host for one launch of `op`; a layer of a profile has the host's time in its span. */
export const hostSecondsOf = (
  { launchSeconds, collectiveSeconds, hookSeconds }: HostCosts,
  { kernel, group, reads }: Pick<Op, "kernel" | "group" | "reads">
): number => {
  if (group !== undefined) return collectiveSeconds + hookSeconds * reads.length
  return kernel.name === "profiled" || kernel.name === "barrier" ? 0 : launchSeconds
}
