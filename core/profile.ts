// What a profile says once it is in memory: measured costs of one model on one device, and of collectives.
// Knows nothing of the file it came from (traces/) nor of how a cost is chosen (core/cost).

import type { MeasuredHost } from "./cost/host.ts"
import type { Dtype } from "./machine/tensor.ts"

/** Device time of one layer in one phase of a training step, seconds, mean over the profiled steps. */
export interface PhaseCost {
  /** Union of the time its kernels ran: what the device was busy for this layer. */
  readonly busySeconds: number
  /** From its first kernel's start to the next layer's first kernel: busy time plus the host's launch gaps. */
  readonly spanSeconds: number
  /**
   * What the host launches for it, in eager mode and once for each kernel, where that is known: of a layer that was described, or
   * recorded by a profiler that has the launches too.
   */
  readonly launches?: { readonly eager: number; readonly once: number }
}

/** One leaf module of the model, in the order the forward pass runs them. */
export interface LayerCost {
  readonly name: string
  readonly forward: PhaseCost
  readonly backward: PhaseCost
  readonly optimizer: PhaseCost
}

/** One trainable tensor; a tied weight appears once. */
export interface ProfiledParameter {
  /** Index into `Profile.layers`: the layer whose backward pass makes its gradient ready. */
  readonly layer: number
  readonly shape: ReadonlyArray<number>
  readonly dtype: string
}

/** What layers read it in and write its gradient in: one of 16 bits, or float32 for whatever else a profile says. */
export const layerDtype = ({ dtype }: Pick<ProfiledParameter, "dtype">): Dtype =>
  dtype === "bfloat16" || dtype === "float16" ? dtype : "float32"

/** A timed op outside the layer structure: a GEMM of one shape, a copy of one size. */
export interface OpCost {
  readonly op: string
  /** For example {m: 4096, k: 1024, n: 3584}. Sizes in the unit the key names (`bytes`, tokens, ...). */
  readonly attributes: Readonly<Record<string, number>>
  readonly medianSeconds: number
  /** Of its operands, where known: "float32", "bfloat16", ...; an op's name may say it too ("gemm_bf16"). */
  readonly dtype?: string
}

/** Collectives that profiles have times of. */
export const timedCollectives = [
  "all_reduce",
  "all_gather",
  "reduce_scatter",
  "all_to_all",
  "broadcast",
  "send_recv"
] as const

/** A timed collective. */
export interface CollectiveCost {
  readonly op: (typeof timedCollectives)[number]
  readonly ranks: number
  /** Bytes of one rank's input for all_reduce, all_gather, all_to_all, broadcast; of one rank's output for reduce_scatter. */
  readonly sizeBytes: number
  readonly medianSeconds: number
  /** The same where it begins while kernels of its ranks run, where that was measured. */
  readonly besideSeconds?: number | undefined
  /** How the links were limited while it was measured: "unshaped", "1gbit", "nvlink", ... */
  readonly link: string
}

/** What a step of a run that is profiled is: its ops' first, whose times say little; each op alone; or beside messages. */
export type ProfiledStep = "warm-up" | "alone" | "beside"

export interface Profile {
  readonly name: string
  readonly device: string
  /** Which tool recorded it and under which conditions, for the report. */
  readonly source: string
  /** What its numbers cannot mean, as far as whoever measured them knows: sentences. */
  readonly notes?: ReadonlyArray<string> | undefined
  /** Profiled training steps the means are over; 0 for a table of ops. */
  readonly steps: number
  /** Device timeline from the start of one step to the start of the next, seconds. */
  readonly stepSeconds: number
  /** Step time of the same run without the profiler, seconds, where the user gave one. */
  readonly unprofiledStepSeconds: number | undefined
  /** What recording an op's time cost, seconds: taken off every op's and layer's time already, where that is known. */
  readonly recordingSeconds?: number | undefined
  /** Union of all kernel time per step, seconds. */
  readonly deviceBusySeconds: number
  /** Share of `deviceBusySeconds` that no layer's phase accounts for (0..1). */
  readonly unattributedShare: number
  readonly layers: ReadonlyArray<LayerCost>
  /** In the order gradients become ready in the backward pass: the order DDP's buckets want. */
  readonly parameters: ReadonlyArray<ProfiledParameter>
  /** What the host of that run spends, as far as it was measured. */
  readonly host?: MeasuredHost | undefined
  readonly ops: ReadonlyArray<OpCost>
  readonly collectives: ReadonlyArray<CollectiveCost>
}
