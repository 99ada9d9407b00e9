// When averages of a model in parts could begin and when they must have ended: read off the program itself, on paper. Gathers and
// reduce-scatters inside a division stretch a step and move its layers, and what is averaged is free earlier or later than where a
// layer is whole (a part is read by its gather alone). Knows the program of partial local SGD, and no link.
import type { Op } from "../../../machine/op.ts"
import { onPaper } from "../../../machine/paper.ts"
import type { World } from "../../../world.ts"
import { partialLocalSgd } from "../partial-local-sgd/program.ts"
import type { TrainingModelBuilder } from "../training-model.ts"
import { Lane } from "../../../machine/lane.ts"
import type { Deadline, UpdateOrder, Window } from "./cost.ts"

/** What a timeline is made of. */
export interface Rehearsal {
  readonly world: World
  readonly build: TrainingModelBuilder
  /** Of an op that is no average between divisions, alone. */
  readonly seconds: (op: Op) => number
}

/** Of more layers than these, those between are interpolated: a rehearsal of each would take the square of their number. Assumed. */
const mostRehearsed = 48

const rehearsedSteps = 4
/** The step whose averages are looked at: the one before is under way as in any other, two are left to be late. */
const observed = 1

/**
 * Of each layer in forward order; undefined for one of which nothing is averaged. A layer's release is when an average of it alone
 * would start. It is due when that, were it to take far longer than a step, would have had to end for the last step to end when it
 * does without: whatever slack there is between what waits for the average and what waits for that.
 */
export const rehearseAverages = (
  { world, build, seconds }: Rehearsal,
  averaged: ReadonlyArray<boolean>,
  order: UpdateOrder,
  deadline: Deadline
): ReadonlyArray<Window | undefined> => {
  const layers = [...averaged.keys()].filter((layer) => averaged[layer])
  const run = (set: ReadonlyArray<number>, late: number) => {
    let release = 0
    const observes = (op: Op, step: number) => isAverage(op) && step === observed
    const end = onPaper(
      partialLocalSgd(build, { sets: [set], order, deadline, overlap: true }, rehearsedSteps),
      {
        world,
        seconds: (op, step) => (op.lane === Lane.inter ? (observes(op, step) ? late : 0) : seconds(op)),
        onStart: (op, step, start) => {
          if (observes(op, step)) release = start
        }
      }
    )
    return { end, release }
  }
  const plain = run(layers, 0).end
  const late = 10 * plain
  const alone = (layer: number): Window => {
    const { end, release } = run([layer], late)
    return { release, due: release + late - (end - plain) }
  }
  const windows: Array<Window | undefined> = averaged.map(() => undefined)
  const last = layers.length - 1
  const stride = Math.max(1, Math.ceil(last / mostRehearsed))
  for (let from = 0; from <= last; from += stride) {
    const to = Math.min(last, from + stride)
    const [one, other] = [
      (windows[layers[from]!] ??= alone(layers[from]!)),
      (windows[layers[to]!] ??= alone(layers[to]!))
    ]
    for (let at = from + 1; at < to; at++) {
      const share = (at - from) / (to - from)
      windows[layers[at]!] = {
        release: one.release + share * (other.release - one.release),
        due: one.due + share * (other.due - one.due)
      }
    }
  }
  return windows
}

const isAverage = ({ lane, group }: Op): boolean => lane === Lane.inter && group !== undefined
