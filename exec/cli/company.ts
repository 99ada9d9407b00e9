// What the kernels of a step and messages cost each other, measured for a profile: a run of steps that are alone, then beside messages
// that go on as long as they do.
import * as Effect from "effect/Effect"
import type { ShardPlan } from "../../core/algorithms/data-parallel/shard/plan.ts"
import { CollectiveTable } from "../../core/cost/collective-table.ts"
import type { MachineError, Program } from "../../core/machine/machine.ts"
import { sizeBytesOf } from "../../core/machine/tensor.ts"
import type { CollectiveCost } from "../../core/profile.ts"
import { onOneNode, type Group, type World } from "../../core/world.ts"
import { timedRepeatedly, watchingCores, type Timed as Watched } from "../core-waits.ts"
import type { Execution } from "../execute.ts"
import { costOfCompany, withWaits } from "../in-company.ts"
import type { ProcessJob } from "../job/processes.ts"
import { recordRun } from "../record-run.ts"
import {
  inCompany,
  kindOfStep,
  stepsWith,
  type CompanyMessage,
  type MessageKind
} from "../training-in-company.ts"

export type Cost = ReturnType<typeof costOfCompany>

/** The one beside which kernels take longer. */
const slower = (one: Cost, other: Cost): Cost =>
  one === undefined || (other?.kernels ?? 0) > (one.kernels ?? 0) ? (other ?? one) : one

/** Steps of each kind, before any that count, and at most of those. */
const [warmupSteps, mostSteps] = [2, 5]
/** Messages between those bounds are what gradients travel in. */
const [leastMessageBytes, mostMessageBytes] = [2 ** 20, 2 ** 24]

/** Messages, and what one of each takes alone, together. */
interface Timed {
  readonly of: ReadonlyArray<CompanyMessage>
  readonly seconds: number
}

/**
 * All-reduces of a kind, by what they take alone: the smallest in which gradients travel, and the largest of which there are several to a
 * step, where links let them.
 */
const gradientMessages = (
  collectives: ReadonlyArray<CollectiveCost>,
  kind: MessageKind,
  stepSeconds: number
): Timed => {
  const sizes = collectives
    .filter(
      ({ op, sizeBytes }) =>
        op === "all_reduce" && sizeBytes >= leastMessageBytes && sizeBytes <= mostMessageBytes
    )
    .toSorted((a, b) => a.sizeBytes - b.sizeBytes)
  const most = sizes.findLast(({ medianSeconds }) => medianSeconds < stepSeconds / 2) ?? sizes[0]
  const chosen = sizes.filter((size, index) => index === 0 || size === most)
  return {
    of: chosen.map(({ sizeBytes }) => ({
      ...kind,
      kernel: "all_reduce",
      elements: [Math.floor(sizeBytes / sizeBytesOf(1, kind.wire ?? kind.dtype))]
    })),
    seconds: chosen.reduce((sum, { medianSeconds }) => sum + medianSeconds, 0)
  }
}

/** These messages of so many ranks, by what collectives take alone. */
const timedMessages = (
  collectives: ReadonlyArray<CollectiveCost>,
  of: ReadonlyArray<CompanyMessage>,
  ranks: number
): Timed => {
  const table = new CollectiveTable(collectives)
  const seconds = of.map(({ kernel, elements, dtype, wire }) => {
    const whole = elements.reduce((sum, count) => sum + sizeBytesOf(count, wire ?? dtype), 0)
    const sent = kernel === "all_gather" ? whole / ranks : whole
    return table.ceiling(kernel, ranks, sent)?.seconds ?? 0
  })
  return { of, seconds: seconds.reduce((sum, one) => sum + one, 0) }
}

interface Steps {
  readonly world: World
  readonly stepsOf: (count: number) => Program<unknown>
  /** Of each kind, at most. */
  readonly steps: number
  /** Of a step that is alone. */
  readonly stepSeconds: number
  readonly prepare: Execution<unknown>["prepare"]
  readonly job: ProcessJob | undefined
}

interface Company extends Steps {
  /** A rank's messages are among these. */
  readonly among: (rank: number) => Group
  /** As rank 0 knows them; the others do as it says. */
  readonly messages: Timed
}

/** What messages and the kernels of a step cost each other; known to rank 0, and undefined where nobody is beside. */
const companyOf = ({
  world,
  among,
  messages: { of: wished, seconds },
  stepsOf,
  steps,
  stepSeconds,
  prepare,
  job
}: Company): Effect.Effect<Cost, MachineError> =>
  Effect.gen(function* () {
    if (among(0).ranks.length < 2) return undefined
    const own = { of: wished, messages: seconds > 0 ? Math.min(1000, Math.ceil(stepSeconds / seconds)) : 0 }
    const { of, messages } = job === undefined ? own : (yield* job.exchange(own))[0]!
    if (messages === 0) return undefined
    const company = { warmup: warmupSteps, each: Math.min(steps, mostSteps), messages, of, among }
    const { record } = yield* recordRun(
      { world, program: inCompany(stepsOf(stepsWith(company)), company), prepare },
      job,
      { values: false }
    )
    if (job !== undefined && job.rank !== 0) return undefined
    const cost = costOfCompany(record, kindOfStep(company))
    const { kernels, kernelsOfShares = [] } = cost ?? {}
    if (kernels !== undefined && kernelsOfShares.length > 0)
      yield* timedRepeatedly([[kernels, kernelsOfShares[0]!]])
    return cost
  })

/** What travels beside a step. */
interface Travelling {
  /** What collectives take alone. */
  readonly collectives: ReadonlyArray<CollectiveCost>
  /** Of gradients, whole or of those who hold the same part. */
  readonly message: MessageKind
  /** Of a model in parts, among those who hold it together. */
  readonly units: { readonly shard: ShardPlan; readonly messages: ReadonlyArray<CompanyMessage> } | undefined
}

interface Companies {
  readonly between: Cost
  readonly inside: Cost
  readonly rows: ReadonlyArray<CollectiveCost>
}

/**
 * What steps and messages cost each other: those of gradients, and apart from them those of units. A scenario has one number for what goes
 * between nodes, the greater, and one for what stays inside. `rows`: the collectives, with what they take beside kernels.
 */
export const companiesOf = (
  steps: Steps,
  { collectives, message, units }: Travelling,
  watched: Array<Watched>
): Effect.Effect<Companies, MachineError> =>
  Effect.gen(function* () {
    const { world, stepSeconds } = steps
    const beside = (what: Pick<Company, "among" | "messages">) =>
      watchingCores("kernels beside collectives", watched, companyOf({ ...steps, ...what }))
    const ofGradients = yield* beside({
      among: (rank) => units?.shard.placeOf(rank).peers ?? world.all,
      messages: gradientMessages(collectives, message, stepSeconds)
    })
    const ofUnits =
      units &&
      (yield* beside({
        among: (rank) => units.shard.placeOf(rank).shard,
        messages: timedMessages(collectives, units.messages, units.shard.ranks)
      }))
    const isInside = units !== undefined && onOneNode(world, units.shard.placeOf(0).shard.ranks)
    return {
      between: isInside ? ofGradients : slower(ofGradients, ofUnits),
      inside: isInside ? ofUnits : undefined,
      rows: withWaits(withWaits(collectives, ofGradients), ofUnits)
    }
  })
