// One process of a job that runs many drawn programs, one after the other, for agreement.test.ts: all draw the same. Rank 0 holds
// each to a run of threads, bit for bit (but for serving, which is told the time), and to the simulator.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { holdToSimulation, runForReal } from "../../exec/cli/both-machines.ts"
import type { ProcessJob } from "../../exec/job/processes.ts"
import type { RunRecord } from "../../exec/record-run.ts"
import { checkLaws } from "../../core/laws/laws.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import {
  drawnExperts,
  drawnGossip,
  drawnOffloads,
  drawnPrograms,
  drawnServing,
  drawnTraining,
  type Drawn
} from "../agreement/generated-families.ts"
import { joined } from "./joined.ts"

const [counts, seed] = [
  JSON.parse(process.argv[2]!) as Readonly<Record<string, number>>,
  Number(process.argv[3])
]

const families = (size: number): Readonly<Record<string, fc.Arbitrary<Drawn>>> => ({
  programs: drawnPrograms(size),
  training: drawnTraining(fc.constant(size)),
  gossip: drawnGossip(size),
  "moe-training": fc.oneof(
    drawnExperts(fc.constant(1), fc.constant(size)),
    drawnExperts(fc.constant(size), fc.constant(1))
  ),
  "expert-offload": drawnOffloads(size),
  "kv-serving": drawnServing(fc.constant("node"))
})

const bitsOf = (values: TensorData): string =>
  Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString("base64")

/** What a program read and what its tensors held at the end, to the bit. */
const valuesIn = ({ journals, finals }: RunRecord) => ({
  reads: journals
    .toSorted((one, other) => one.rank - other.rank)
    .map(({ entries }) =>
      entries.flatMap((entry) =>
        entry.kind === "read" ? [`${entry.tensor.id} ${bitsOf(entry.values)}`] : []
      )
    ),
  finals: [...finals]
    .toSorted(([one], [other]) => one - other)
    .map(([, tensors]) => [...tensors].map(([id, values]) => `${id} ${bitsOf(values)}`))
})

const act = (job: ProcessJob): Effect.Effect<unknown, Error> =>
  Effect.gen(function* () {
    const seen: Record<string, Record<string, number>> = {}
    let [tensors, collectives] = [0, 0]
    // Who is told of time may decide otherwise each time: held to the simulator alone, and counted.
    const serving = { asThreads: 0, otherwise: 0 }
    const wires = { elements: 0, turned: 0 }
    for (const [family, numRuns] of Object.entries(counts)) {
      const drawn = fc.sample(families(job.size)[family]!, { numRuns, seed })
      const algorithms: Record<string, number> = (seen[family] = {})
      for (const [index, { of, options }] of drawn.entries()) {
        const { record } = yield* runForReal(options, job)
        if (job.rank !== 0) continue
        const where = `${family} ${index} of seed ${seed}, ${of}`
        const failed = (what: string) => Effect.fail(new Error(`${where}: ${what}`))
        const threads = (yield* runForReal(options)).record
        const asThreads = JSON.stringify(valuesIn(record)) === JSON.stringify(valuesIn(threads))
        if (family === "kv-serving") serving[asThreads ? "asThreads" : "otherwise"]++
        else if (!asThreads) return yield* failed("values differ from those of threads")
        const { agreement, simulatedRun, executedRun } = yield* holdToSimulation(options, record)
        const { firstDisagreement, comparedTensors, narrowWires } = agreement
        wires.elements += narrowWires!.elements
        wires.turned += narrowWires!.turned
        if (firstDisagreement !== undefined) return yield* failed(firstDisagreement.message)
        const violation = checkLaws(simulatedRun)
        if (violation !== undefined) return yield* failed(violation.message)
        algorithms[of] = (algorithms[of] ?? 0) + 1
        tensors += comparedTensors
        for (const { entries } of executedRun.opLogs)
          for (const { group } of entries) if (group !== undefined) collectives++
      }
    }
    return { seen, tensors, collectives, serving, wires }
  })

await joined(act)
