// A strategy for offloaded experts as a value: how experts are kept and fetched. Knows none of them; algorithms.ts lists them.
import type { Random } from "../../random.ts"
import { nameOf, type Algorithm, type Arbitrary, type SettingsSchema } from "../algorithm.ts"
import type { ReplacementPolicy } from "./cache/policy.ts"
import type { Demand, ExpertShape } from "./demand.ts"
import type { SlotScope } from "./optimum.ts"
import type { Prefetcher } from "./prefetcher.ts"
import type { PredictorWeights } from "./predictor/trained.ts"

/** What a strategy is made from, beside its settings. */
export interface StrategyFacts {
  /** The whole demand: what oracles, the optimum and the static set know of the future. Others look at its shape only. */
  readonly demand: Demand
  /** Slots in all, or of each layer. */
  readonly slots: number
  readonly scope: SlotScope
  /** Slots beside those, for policies that let experts pass through. */
  readonly stagingSlots: number
  /** Prefetches submitted at once where the settings do not say. */
  readonly window: number
  readonly weights: PredictorWeights
  readonly random: Random
}

/** What a strategy is made of. */
interface StrategyParts {
  /** The policy of one pool: `slots` of it, for the experts of `layers`. */
  readonly policyOf: (slots: number, layers: ReadonlyArray<number>) => ReplacementPolicy
  readonly prefetcher?: Prefetcher
}

/** Methods, not properties: one of a list stands where any is wanted, and is asked about its own settings only. */
export interface OffloadAlgorithm<S extends SettingsSchema = SettingsSchema> extends Algorithm<S> {
  /** It knows the future: a bound, not a choice. */
  readonly hindsight?: boolean
  /** Whether experts stay after the layer call that needed them. */
  readonly retains: boolean
  /** The scope of its slots where it has one of its own, whatever the scenario's cache section says. */
  scope?(settings: S["Type"]): SlotScope
  /** Whether it needs staging slots: it lets experts pass through without keeping them. */
  staging?(settings: S["Type"]): boolean
  /** How many prefetches it submits at once where a scenario does not say, if not as many as a layer's time hides. */
  usualWindow?(shape: ExpertShape): number
  parts(settings: S["Type"], facts: StrategyFacts): StrategyParts
  arbitrary(): Arbitrary<S["Encoded"]>
}

/** The value, named as its schema says; it retains experts unless it says otherwise. */
export const offloadAlgorithm = <S extends SettingsSchema>(
  parts: Omit<OffloadAlgorithm<S>, "name" | "retains"> & { readonly retains?: boolean }
): OffloadAlgorithm<S> => ({ name: nameOf(parts.settings), retains: true, ...parts })
