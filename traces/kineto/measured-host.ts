// What a host spends, from what the profiler saw of it and the step's time without the profiler. Knows nothing of events.
import { counted } from "../../core/units.ts"
import type { MeasuredHost } from "../../core/cost/host.ts"
import type { HostTimes } from "./host-times.ts"
import { scaleOf, type ReadLoop } from "./read-loop.ts"

/** A step of the trace, seconds: as profiled, without the profiler where known, and what the device was busy. */
interface StepTimes {
  readonly profiledSeconds: number
  /** The same with what FSDP and its collectives took. */
  readonly wallSeconds: number
  readonly unprofiledSeconds: number | undefined
  readonly busySeconds: number
}

/** The same model under DDP: what its host did, and its step without the profiler where known. */
export interface UnderDdp {
  readonly times: HostTimes
  readonly unprofiledSeconds: number | undefined
}

interface Measured {
  /** Undefined where nothing was launched, or nobody says what of the profiler's times is real. */
  readonly host: MeasuredHost | undefined
  /** Of the profiled step, hooks and calls of DDP that are in the layers' gaps; and of the step without the profiler. */
  readonly inGaps: { readonly profiledSeconds: number; readonly unprofiledSeconds: number }
  readonly warnings: ReadonlyArray<string>
}

/**
 * Of what the profiler shows of a host that the device does not wait for; of one that it waits for the step's time says it. Assumed,
 * from nothing that was published: `--step-time` of a smaller batch, whose device waits, measures it.
 */
const realShare = 1 / 3

/** A device that is idle for more than this share of its busy time waits for its host. Assumed: a line between two ways to count. */
const waitingShare = 0.05

export const measuredHost = (times: HostTimes, step: StepTimes, ddp: UnderDdp | undefined): Measured => {
  const warnings: Array<string> = []
  const nothing = { profiledSeconds: 0, unprofiledSeconds: 0 }
  if (times.loop !== undefined && step.unprofiledSeconds !== undefined)
    return { host: ofLoop(times, times.loop, step.unprofiledSeconds, warnings), inGaps: nothing, warnings }
  const { profiledSeconds, wallSeconds, busySeconds, unprofiledSeconds: real } = step
  if (times.launches === 0 || real === undefined) return { host: undefined, inGaps: nothing, warnings }
  const waits = real > busySeconds * (1 + waitingShare)
  // A host that sets the pace takes as long as the step.
  const recorded = times.sharding === undefined ? profiledSeconds : wallSeconds
  const scale = waits ? Math.min(1, real / recorded) : Math.min(realShare, real / recorded)
  if (!waits)
    warnings.push(
      "the device hardly waits for its host, so the step's time says little of it: a third of the profiled launches' time was taken, which is assumed and not measured"
    )
  const own = times.overlapped ? times.gradients * times.gradientSeconds + times.calls * times.callSeconds : 0
  const inDdp = waits ? { profiledSeconds: own, unprofiledSeconds: own * scale } : nothing
  // Of a sharded run the host's whole step, without FSDP's own code, which is in no layer's gap.
  const { sharding } = times
  const launching =
    sharding === undefined
      ? profiledSeconds * scale - inDdp.unprofiledSeconds
      : Math.max(0, wallSeconds - sharding.seconds - times.calls * times.callSeconds) * scale
  const inGaps =
    sharding === undefined ? inDdp : { profiledSeconds: 0, unprofiledSeconds: Math.max(0, real - launching) }
  const communication =
    ddp === undefined
      ? times.sharding !== undefined
        ? underFsdp(times.sharding, times.callSeconds, scale)
        : times.overlapped
          ? { hookSeconds: times.gradientSeconds * scale, collectiveSeconds: times.callSeconds * scale }
          : times.calls > 0
            ? { collectiveSeconds: times.callSeconds * scale }
            : {}
      : underDdp(times, ddp, waits ? real : undefined, warnings)
  return {
    host: {
      mode: times.mode,
      ...(times.mode === "graph" ? {} : { launchSeconds: launching / times.launches }),
      ...communication,
      ...(times.readSeconds === undefined ? {} : { readSeconds: times.readSeconds }),
      ...(times.replaySeconds === undefined ? {} : { replaySeconds: times.replaySeconds })
    },
    inGaps,
    warnings
  }
}

/** Of a program that its host steers by reads: what the host works between its waits, by what its steps take without the profiler. */
const ofLoop = (
  { mode, launches, readSeconds }: HostTimes,
  loop: ReadLoop,
  unprofiledSeconds: number,
  warnings: Array<string>
): MeasuredHost | undefined => {
  const scale = scaleOf(loop, unprofiledSeconds)
  if (scale === undefined) {
    warnings.push(
      "the device alone takes longer than the step without the profiler: what the host spends cannot be told; record steps with fewer copies, and time those very steps"
    )
    return undefined
  }
  if (loop.oddGaps > 0)
    warnings.push(
      `${counted(loop.oddGaps, "gap", "between the host's launches is a hundred times as long as the median and was", "between the host's launches are a hundred times as long as the median and were")} taken for work done once (a plan for a new size, a compilation): steps that are recorded should have run before`
    )
  return {
    mode,
    launchSeconds: (loop.hostSeconds * scale) / launches,
    launchesPerRead: loop.launchesPerRead,
    ...(loop.waitsForCopies === undefined ? {} : { waitsForCopies: loop.waitsForCopies }),
    ...(readSeconds === undefined ? {} : { readSeconds })
  }
}

/** FSDP's own code by the tensors that its gathers and scatters carry. */
const underFsdp = (
  { seconds, carried }: NonNullable<HostTimes["sharding"]>,
  callSeconds: number,
  scale: number
): Pick<MeasuredHost, "hookSeconds" | "collectiveSeconds"> => ({
  ...(carried > 0 ? { hookSeconds: (Math.max(0, seconds) / carried) * scale } : {}),
  ...(callSeconds > 0 ? { collectiveSeconds: callSeconds * scale } : {})
})

/**
 * Hooks and calls of a second trace. They run in autograd's own thread, which no Python frames slow down, so they count as profiled
 * unless both steps' times without the profiler say what they come to.
 */
const underDdp = (
  own: HostTimes,
  { times, unprofiledSeconds }: UnderDdp,
  hostStepSeconds: number | undefined,
  warnings: Array<string>
): Pick<MeasuredHost, "hookSeconds" | "collectiveSeconds"> => {
  const hookSeconds = Math.max(0, times.gradientSeconds - own.gradientSeconds)
  const collectiveSeconds = times.callSeconds
  const profiled = times.gradients * hookSeconds + times.calls * collectiveSeconds
  if (unprofiledSeconds === undefined || hostStepSeconds === undefined || profiled === 0) {
    warnings.push(
      unprofiledSeconds === undefined
        ? "hooks and calls under DDP are as profiled: give --ddp-step-time, its step without the profiler"
        : "the device hardly waits for its host, so hooks and calls under DDP are as profiled"
    )
    return { hookSeconds, collectiveSeconds }
  }
  const scale = Math.max(0, unprofiledSeconds - hostStepSeconds) / profiled
  return { hookSeconds: hookSeconds * scale, collectiveSeconds: collectiveSeconds * scale }
}
