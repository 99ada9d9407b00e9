// A data-parallel algorithm as a value: what it needs to know to plan, what a plan comes to, and how it is told. Knows none of
// them; algorithms.ts lists them.
import type * as Result from "effect/Result"
import type { Program } from "../../machine/machine.ts"
import { dtypeBits, elementsOf, sizeBytesOf, type Dtype } from "../../machine/tensor.ts"
import type { Profile } from "../../profile.ts"
import {
  nameOf,
  type Algorithm,
  type Arbitrary,
  type SettingsError,
  type SettingsSchema
} from "../algorithm.ts"
import { blocksOf } from "./blocks.ts"
import type { Bucket } from "./plan/buckets.ts"
import type { Rehearsal } from "./plan/timeline.ts"
import type { TrainingModelBuilder } from "./training-model.ts"

/** What planning needs to know of the model and the links. */
export interface PlanningFacts {
  readonly profile: Profile
  /** The block that each layer is in, where the layers' names do not say it (`blocksOf`). */
  readonly blocks?: ReadonlyArray<string | undefined> | undefined
  /** Ranks that average with each other: all, or those who hold the same part of a divided model. */
  readonly ranks: number
  /** Seconds of a layer's phase: device time with or without the host's gaps. */
  readonly phaseSeconds: (cost: { readonly busySeconds: number; readonly spanSeconds: number }) => number
  /** Seconds of one all-reduce of that many bytes over these ranks, alone on the links. */
  readonly allReduceSeconds: (sizeBytes: number) => number
  /** Of a divided model: its program and what its ops take, so that a planner can see what averages hide behind. */
  readonly rehearsal?: Rehearsal | undefined
}

/** The block that each layer of what is planned is in. */
export const blocksIn = ({ profile, blocks }: PlanningFacts): ReadonlyArray<string | undefined> =>
  blocks ?? blocksOf(profile.layers.map(({ name }) => name))

/** What a plan says, for people and programs; layers are indices in forward order. What does not apply is absent. */
export interface PlanDescription {
  /** Gradients that travel together, in the order they are sent. */
  readonly buckets?: ReadonlyArray<Bucket>
  /** For each step of the period: the layers averaged, and the stall that is reckoned with, seconds. */
  readonly steps?: ReadonlyArray<{ readonly layers: ReadonlyArray<number>; readonly exposedSeconds: number }>
  /** Stall of one period that the plan leaves, by its own reckoning, and what no plan can go below. */
  readonly exposedSeconds?: number
  readonly lowerBoundSeconds?: number
  /** The planner in use, and what others would have come to. */
  readonly planner?: string
  readonly planners?: ReadonlyArray<{
    readonly planner: string
    readonly exposedSeconds: number
    readonly lowerBoundSeconds: number
    readonly optimal: boolean
  }>
  /** Layers that are sent after a step of the period and applied `delaySteps` later. */
  readonly fragments?: ReadonlyArray<{
    readonly layers: ReadonlyArray<number>
    readonly sendAfterStep: number
  }>
  readonly delaySteps?: number
  /** Share of a rank's own weights that survives when a fragment is applied. */
  readonly localShare?: number
}

/** A planned algorithm, ready to run for any number of steps. */
export interface PlannedAlgorithm {
  /** The schedule repeats after this many steps; measure over a multiple of it. */
  readonly periodSteps: number
  /** Steps before the schedule is in its steady state. */
  readonly warmupSteps: number
  /** Dtype of messages on the wire. */
  readonly wire: Dtype
  readonly describe: () => PlanDescription
  /** From step `from` (default 0) to `steps`; what earlier steps left is in the model's and its own persistent tensors. */
  readonly program: (build: TrainingModelBuilder, steps: number, from?: number) => Program<void>
  /** A step's gradients are used in the next one, so that a model must keep them. */
  readonly gradientsLast?: boolean
  /**
   * Ranks that compute alike send to different partners: none can stand for another, and a simulation runs each by itself.
   * Groups that are the same for all need not say so.
   */
  readonly ranksDiffer?: boolean
  /** Why another number of ranks cannot go on from what these have learnt; absent where it can. */
  readonly fixedRanks?: string
}

/** What a test may limit of drawn settings. */
interface DrawLimits {
  /** Longest period of those that have one; but at least the number of fragments of a streaming plan. */
  readonly maxPeriod: number
}

/** Methods, not properties: one of a list stands where any is wanted, and is asked about its own settings only. */
export interface DataParallelAlgorithm<S extends SettingsSchema = SettingsSchema> extends Algorithm<S> {
  /** Fails when settings do not fit the model's layers. */
  plan(settings: S["Type"], facts: PlanningFacts): Result.Result<PlannedAlgorithm, SettingsError>
  /** Settings that have no effect on time beside the others, a sentence each. */
  ignored?(settings: S["Type"]): ReadonlyArray<string>
  /** Of settings under which messages overlap a layer's own step: what is lost where gradients are clipped, a sentence. */
  lostToClipping?(settings: S["Type"]): string | undefined
  /** Settings that have a plan for any model. */
  arbitrary(limits: DrawLimits): Arbitrary<S["Encoded"]>
}

/** The value, named as its schema says. */
export const dataParallelAlgorithm = <S extends SettingsSchema>(
  parts: Omit<DataParallelAlgorithm<S>, "name">
): DataParallelAlgorithm<S> => ({ name: nameOf(parts.settings), ...parts })

/** Messages are of float32 tensors: rounding them to float32 on the wire is no rounding. */
export const wireOf = (wire: Dtype): Dtype | undefined => (wire === "float32" ? undefined : wire)

/** What gradients travel as that elsewhere are summed in `reduceDtype`: whichever is narrower; `wire` where that is not said. */
export const gradientWire = <W extends Dtype | undefined>(
  own: Dtype,
  wire: W,
  reduceDtype: Dtype | undefined
): W | Dtype =>
  reduceDtype !== undefined && dtypeBits[reduceDtype] < dtypeBits[wire ?? own] ? reduceDtype : wire

/** Bytes of each layer's parameters in `wire`. */
export const layerBytes = (profile: Profile, wire: Dtype): ReadonlyArray<number> => {
  const elements = profile.layers.map(() => 0)
  for (const { layer, shape } of profile.parameters) elements[layer]! += elementsOf(shape)
  return elements.map((count) => sizeBytesOf(count, wire))
}

/** For `ignored`: settings that are not as the schema leaves them, of those that change what is learnt alone. */
export const onlyLearnt = <T extends Readonly<Record<string, unknown>>>(
  settings: T,
  defaults: T,
  fields: ReadonlyArray<keyof T & string>
): ReadonlyArray<string> =>
  fields
    .filter((field) => settings[field] !== defaults[field])
    .map((field) => `algorithm.${field} changes what is learnt, not how long it takes`)
