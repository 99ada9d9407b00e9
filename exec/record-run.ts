// A real run with all that another one is held to: op logs, journals, timeline, and what tensors held at the end. In a job of
// processes all ranks' come together at rank 0, as the Arrow bytes that a file of them has. Knows nothing of simulations.
import * as Effect from "effect/Effect"
import { keepsResults, updates, type Sums } from "../core/agreement/narrow.ts"
import { journaled, type Journal, type JournalEntry } from "../core/laws/journal.ts"
import type { RankBytes } from "../core/laws/execution.ts"
import type { MachineError, RankLost } from "../core/machine/machine.ts"
import type { Place, Tensor, TensorData } from "../core/machine/tensor.ts"
import {
  decodeJournals,
  encodeJournals,
  type FinalValues,
  type RecordedCalls
} from "../traces/journal-file.ts"
import { CurrentBackend, sumsOf } from "./backend.ts"
import { executeThen, resultOf, type Ended, type Execution, type ExecutionResult } from "./execute.ts"
import type { ProcessJob } from "./job/processes.ts"
import type { RecordedRun } from "./recorded.ts"

export interface RunRecord extends RecordedRun {
  readonly finals: FinalValues
  readonly makespanSeconds: number
  /** By how much times of different ranks may be off against each other. */
  readonly clockErrorSeconds: number
  /** Bytes went between processes, as fast as that was: no link of the scenario was emulated. */
  readonly realLinks: boolean
  /** How its backend added up what members of collectives held in 16 bits. */
  readonly sums: Sums
  readonly peakBytes: ReadonlyArray<RankBytes>
  /** Of each rank's memories. */
  readonly capacityBytes: Readonly<Record<Place, number>>
}

export interface Ran<A> {
  /** Of all ranks; in a job of processes only at rank 0, elsewhere of its own. */
  readonly record: RunRecord
  readonly executed: ExecutionResult<A>
}

/**
 * Runs for real, and keeps everything, also what came over narrow wires, what updates made of what, and
 * what was chosen by scores. `processes`: the job of which this process is one rank.
 * Without `values` neither that nor what tensors held at the end: of a large model that takes longer than the run.
 */
export const recordRun = <A>(
  execution: Execution<A>,
  processes?: ProcessJob,
  { values = true }: { readonly values?: boolean } = {}
): Effect.Effect<Ran<A>, MachineError> =>
  Effect.gen(function* () {
    const journals: Array<Journal> = []
    const { executed, own } = yield* executeThen(
      {
        ...execution,
        ...(processes === undefined ? {} : { job: () => processes.run() }),
        program: journaled(execution.program, journals),
        record: true,
        ...(values ? { keeps: keepsResults, keepsInputs: updates } : {})
      },
      (ended) => ({
        executed: resultOf(ended),
        own: values
          ? {
              journals: journals.map((journal) => withKept(journal, ended)),
              finals: finalValues(journals, ended.valuesOf)
            }
          : { journals, finals: new Map() }
      })
    )
    const calls = yield* gathered(own, processes)
    const { timeline, opLogs, makespanSeconds, clockErrorSeconds, capacityBytes, ranks } = executed
    return {
      executed,
      record: {
        ...calls,
        timeline: timeline!,
        opLogs,
        makespanSeconds,
        clockErrorSeconds,
        realLinks: processes !== undefined,
        sums: sumsOf(execution.backend ?? (yield* CurrentBackend), processes !== undefined),
        capacityBytes,
        peakBytes: ranks.map(({ rank, peakBytes }) => ({ rank, bytes: peakBytes }))
      }
    }
  })

/** Of one message between processes: far below the most that one can have. */
const usualPartBytes = 2 ** 28

/** At rank 0 what every rank has, of whatever size; undefined elsewhere. All ranks call it together. */
export const inParts = (
  own: Uint8Array,
  processes: Pick<ProcessJob, "rank" | "exchange" | "gather">,
  partBytes = usualPartBytes
): Effect.Effect<ReadonlyArray<Uint8Array> | undefined, RankLost> =>
  Effect.gen(function* () {
    const sizes = yield* processes.exchange(own.length)
    const parts = sizes.map(() => new Array<Uint8Array>())
    for (let begin = 0; begin < Math.max(...sizes); begin += partBytes) {
      const all = yield* processes.gather(own.slice(begin, begin + partBytes))
      all?.forEach((part, rank) => parts[rank]!.push(part))
    }
    return processes.rank === 0 ? parts.map((of) => Buffer.concat(of)) : undefined
  })

const gathered = (
  own: RecordedCalls,
  processes: ProcessJob | undefined
): Effect.Effect<RecordedCalls, RankLost> =>
  processes === undefined
    ? Effect.succeed(own)
    : Effect.map(inParts(encodeJournals(`rank ${processes.rank}`, own), processes), (every) => {
        if (every === undefined) return own
        const all = every.map((bytes, rank) => decodeJournals(`rank ${rank}`, bytes))
        return {
          journals: all.flatMap(({ journals }) => journals),
          finals: new Map(all.flatMap(({ finals }) => [...finals]))
        }
      })

const withKept = (
  { rank, entries }: Journal,
  { inputsOf, resultsOf }: Pick<Ended<unknown>, "inputsOf" | "resultsOf">
): Journal => ({
  rank,
  entries: entries.map((entry): JournalEntry => {
    if (entry.kind !== "op") return entry
    const [inputs, results] = [inputsOf(rank, entry.id), resultsOf(rank, entry.id)]
    return {
      ...entry,
      ...(inputs === undefined ? {} : { inputs }),
      ...(results === undefined ? {} : { results })
    }
  })
})

/** What live tensors hold when a run has ended: later there is no session to ask. */
const finalValues = (
  journals: ReadonlyArray<Journal>,
  valuesOf: (rank: number, tensor: Tensor) => TensorData
): FinalValues =>
  new Map(
    journals.map(({ rank, entries }) => {
      const live = new Set<Tensor>()
      for (const entry of entries) {
        if (entry.kind === "alloc") live.add(entry.tensor)
        if (entry.kind === "free") live.delete(entry.tensor)
      }
      return [rank, new Map([...live].map((tensor) => [tensor.id, valuesOf(rank, tensor)]))] as const
    })
  )
