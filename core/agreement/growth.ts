// Why values of two runs part after many steps: rounding, which training amplifies from step to step, or something else. Told
// by how they part: what rounding makes is small at first and grows by a bounded factor; a mistake is there at once.
import * as Effect from "effect/Effect"
import type { Journal } from "../laws/journal.ts"
import { interposing } from "../machine/interpose.ts"
import type { Program } from "../machine/machine.ts"
import type { Tensor } from "../machine/tensor.ts"
import { comparedReads, type Tolerance } from "./values.ts"

/** How far apart two runs were at most in what their programs had read when they had ended so many steps. */
interface StepGap {
  readonly step: number
  /** 1 is as far as values may be. */
  readonly ratio: number
}

export interface Growth {
  /** The first step whose values are further apart than they may be: values of earlier steps agree. */
  readonly firstBeyond: number
  /** No step made more of the gap before it than rounding does. */
  readonly ofRounding: boolean
  /** The step that made most of the gap before it, and by which factor. */
  readonly steepest: { readonly step: number; readonly factor: number }
  readonly gaps: ReadonlyArray<StepGap>
}

/** A gap below this share of the tolerance is rounding whatever was before it: 256 steps of float32's 8192. */
const roundingShare = 1 / 32
/** A step of training makes at most so much of a gap: tiny models with AdamW have shown 23, a wrong update makes thousands. */
const factorMost = 32

export const gapsByStep = (
  expected: ReadonlyArray<Journal>,
  actual: ReadonlyArray<Journal>,
  tolerance: Tolerance
): ReadonlyArray<StepGap> => {
  const ratios: Array<number> = []
  for (const { step, gap } of comparedReads(expected, actual, tolerance))
    ratios[step] = Math.max(ratios[step] ?? 0, gap.ratio)
  return Array.from(ratios, (ratio, step) => ({ step, ratio: ratio ?? 0 }))
}

/** Undefined where no step's values are further apart than they may be. */
export const growthOf = (gaps: ReadonlyArray<StepGap>): Growth | undefined => {
  const beyond = gaps.find(({ ratio }) => ratio > 1)
  if (beyond === undefined) return undefined
  let before = roundingShare
  let steepest = { step: 0, factor: 0 }
  for (const { step, ratio } of gaps) {
    const factor = ratio / before
    if (factor > steepest.factor) steepest = { step, factor }
    before = Math.max(before, ratio)
  }
  return { firstBeyond: beyond.step, ofRounding: steepest.factor <= factorMost, steepest, gaps }
}

/**
 * The same program; at the end of each step it reads tensors that are alive, smallest first, up to so many elements. What it
 * reads is in the journal of whoever stands outside; waiting for it changes when things happen, not what is computed.
 */
export const watched = <A>(program: Program<A>, elementsMost: number): Program<A> =>
  interposing(program, (machine) => {
    const live = new Set<Tensor>()
    return {
      alloc: (spec) =>
        Effect.tap(machine.alloc(spec), (tensor) =>
          Effect.sync(() => {
            live.add(tensor)
          })
        ),
      free: (tensor) => {
        live.delete(tensor)
        machine.free(tensor)
      },
      endStep: Effect.gen(function* () {
        yield* machine.endStep
        let left = elementsMost
        for (const tensor of [...live].toSorted((a, b) => a.elements - b.elements || a.id - b.id)) {
          if (tensor.elements > left) break
          left -= tensor.elements
          yield* machine.read(tensor)
        }
      })
    }
  })
