// Generation with offloaded experts by policy, for real and predicted. One run with every expert resident gives the routes, and the
// times of its kernels and copies, less what recording them costs (exec/run-costs.ts, as `exec profile`); from these the simulator predicts
// each policy, and then each is run: once as it is, which is held to what was predicted, and once with its ops timed, which has stalls and
// copies. Decoding of the layers of Mixtral 8x7B with random weights in bfloat16, a quarter of the experts resident.
//   npx node bench/native/offload.ts --backend cuda --layers 4 --out offload
//   npx node bench/native/offload.ts --backend cpu --layers 2 --out offload \
//     --set model.width=64 --set model.ffnWidth=128 --set model.heads=4 --set model.vocabulary=256
// Writes offload.json, with the routes that bench/native/torch-offload.py takes too, and costs.arrow and routing.arrow, with which
// `sim run scenarios/expert-offload.yaml` predicts further policies.
import { mkdirSync, writeFileSync } from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { offloadAlgorithms } from "../../core/algorithms/expert-offload/algorithms.ts"
import type { OffloadLog } from "../../core/algorithms/expert-offload/program.ts"
import type { RoutedSteps } from "../../core/algorithms/expert-offload/routing.ts"
import { formatSeconds } from "../../core/units.ts"
import { expertBytes } from "../../core/algorithms/expert-offload/model.ts"
import { interposing } from "../../core/machine/interpose.ts"
import { rowsByRank } from "../../core/laws/execution.ts"
import { Lane } from "../../core/machine/lane.ts"
import type { OpCost } from "../../core/profile.ts"
import { CurrentBackend } from "../../exec/backend.ts"
import { thisDevice } from "../../exec/bench.ts"
import { execute } from "../../exec/execute.ts"
import { recordRun, type Ran } from "../../exec/record-run.ts"
import { rowSeconds } from "../../exec/recorded.ts"
import { costsOfRun } from "../../exec/run-costs.ts"
import { timedAndPlain } from "../../exec/timed-and-plain.ts"
import { kernels } from "../../scenarios/families/expert-offload/kernels.ts"
import type { ExpertOffloadScenario } from "../../scenarios/families/expert-offload/scenario.ts"
import { prepare, type OffloadFigures } from "../../scenarios/families/expert-offload/simulated.ts"
import { Loader } from "../../scenarios/load.ts"
import type { Rehearsed, Runnable } from "../../scenarios/runnable.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { alignColumns } from "../../scenarios/table.ts"
import { runScenario, simulator } from "../../sim/run.ts"
import { writeProfile } from "../../traces/profile-file.ts"
import { writeRouting } from "../../traces/routing-file.ts"
import { routingRows } from "../../traces/routing/import.ts"
import { tableProfile } from "../../traces/table-profile.ts"
import { backendOf, namesOf, optionsOf, wholeNumber } from "../numbers.ts"

const { values: options } = optionsOf({
  options: {
    backend: { type: "string", default: "cuda" },
    layers: { type: "string", default: "4" },
    /** Slots of each layer. */
    slots: { type: "string", default: "2" },
    tokens: { type: "string", default: "64" },
    policies: {
      type: "string",
      default: "on-demand,lru,lfu,previous-token,predict-next,expertflow,optimum"
    },
    /** More of the scenario, as of `sim run`. */
    set: { type: "string", multiple: true, default: [] },
    out: { type: "string", default: "offload" }
  }
})
const backend = backendOf(options.backend)
const root = fileURLToPath(new URL("../..", import.meta.url))
const file = path.join(root, "scenarios/expert-offload.yaml")
const out = path.resolve(options.out)
const layers = wholeNumber("--layers", options.layers)
const slots = wholeNumber("--slots", options.slots)
const tokens = wholeNumber("--tokens", options.tokens)
const policies = namesOf(
  "--policies",
  options.policies,
  offloadAlgorithms.map(({ name }) => name)
)
const warmupSteps = Math.floor(tokens / 4)
const base = [
  `model={like: mixtral-8x7b, layers: ${layers}}`,
  `workload={batch: 1, promptTokens: 32, decodeTokens: ${tokens}, warmupSteps: ${warmupSteps}}`,
  `cache={slotsPerLayer: ${slots}}`,
  ...options.set
]
const [costs, trace] = [path.join(out, "costs.arrow"), path.join(out, "routing.arrow")]
const loader = new Loader()

const scenarioWith = (...more: ReadonlyArray<string>) =>
  Effect.map(loadScenario(file, [...base, ...more]), (scenario) => scenario as ExpertOffloadScenario)

type Timed = Ran<OffloadLog>

const executionOf = ({ world, capacityBytes, h2d, d2h }: Runnable<OffloadLog>) => ({
  world,
  capacityBytes,
  h2d,
  d2h
})

/** For real, with the time of every op. */
const timed = (runnable: Runnable<OffloadLog>) =>
  recordRun({ ...executionOf(runnable), program: runnable.program() }, undefined, { values: false })

/** For real as it is: when the host had each of the choices that the program reads, seconds. */
const plain = (runnable: Runnable<OffloadLog>) =>
  Effect.suspend(() => {
    const reads: Array<number> = []
    const program = interposing(runnable.program(), (machine) => ({
      read: (tensor) =>
        Effect.tap(machine.read(tensor), () => Effect.sync(() => reads.push(performance.now() / 1e3)))
    }))
    return Effect.as(execute({ ...executionOf(runnable), program }), reads as ReadonlyArray<number>)
  })

/** What the routers chose: the program reads a layer's choices, layer by layer, step by step, and nothing else. */
const routesOf = (
  { record: { journals } }: Timed,
  scenario: ExpertOffloadScenario,
  layers: number
): RoutedSteps => {
  const reads = journals[0]!.entries.filter((entry) => entry.kind === "read")
  const choices: Array<Array<Int32Array>> = []
  for (const [at, { values }] of reads.entries()) {
    if (at % layers === 0) choices.push([])
    choices.at(-1)!.push(Int32Array.from(values))
  }
  const topK = reads[0]!.tensor.shape.at(-1)!
  return { shape: { layers, experts: scenario.model.experts ?? 8 }, topK, choices }
}

/** When the compute lane had finished each step. */
const stepEnds = ({ record: { timeline, journals } }: Timed): ReadonlyArray<number> => {
  const { op, lane, endSeconds } = timeline
  const ended = new Map<number, number>()
  for (let row = 0; row < op.length; row++)
    if (lane[row] === Lane.compute) ended.set(op[row]!, endSeconds[row]!)
  const ends: Array<number> = []
  let last = 0
  for (const entry of journals[0]!.entries) {
    if (entry.kind === "op") last = ended.get(entry.id) ?? last
    if (entry.kind === "endStep") ends.push(last)
  }
  return ends
}

/** What a policy came to, for real. */
interface Real {
  /** The family's own figures, of the run whose ops were timed. */
  readonly figures: OffloadFigures
  /** Of a decoding step after the warm-up, of the run that nobody timed: from the last choices that one step reads to those of the next. */
  readonly plainStepSeconds: number
  readonly tokensPerSecond: number
  readonly copies: Copies
  readonly peakBytes: { readonly device: number; readonly host: number }
}

/** Of experts to the device, means: NaN of none. */
interface Copies {
  /** From when a copy could have begun to its end, so that the host which chooses and launches is part of it. */
  readonly spanSeconds: number
  /** From its own start, of those that kernels run beside for less than a tenth of their time, and for more than half of it. */
  readonly aloneSeconds: number
  readonly besideSeconds: number
  readonly alone: number
  readonly beside: number
}

const meanOf = (values: ReadonlyArray<number>): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length

const copiesOf = ({ record }: Timed, bytes: number): Copies => {
  const { timeline, journals } = record
  const { startSeconds, endSeconds } = timeline
  const rows = rowsByRank(timeline).get(0) ?? []
  const spans = rowSeconds(record, "span")
  // in the order of the lane, so in that of time
  const computing = rows.filter((row) => row >= 0 && timeline.lane[row] === Lane.compute)
  const copied = journals[0]!.entries.flatMap((entry) =>
    entry.kind === "op" && entry.op.kernel.name === "h2d" && entry.op.reads[0]!.sizeBytes === bytes
      ? [rows[entry.id]!]
      : []
  )
  let first = 0
  const shares = copied.map((row) => {
    const [from, to] = [startSeconds[row]!, endSeconds[row]!]
    while (first < computing.length && endSeconds[computing[first]!]! <= from) first++
    let seconds = 0
    for (let at = first; at < computing.length && startSeconds[computing[at]!]! < to; at++)
      seconds += Math.min(to, endSeconds[computing[at]!]!) - Math.max(from, startSeconds[computing[at]!]!)
    return seconds / (to - from)
  })
  const taken = (of: (share: number) => boolean): ReadonlyArray<number> =>
    copied.filter((_, index) => of(shares[index]!)).map((row) => endSeconds[row]! - startSeconds[row]!)
  const [alone, beside] = [taken((share) => share < 0.1), taken((share) => share > 0.5)]
  return {
    spanSeconds: meanOf(copied.map((row) => spans[row]!)),
    aloneSeconds: meanOf(alone),
    besideSeconds: meanOf(beside),
    alone: alone.length,
    beside: beside.length
  }
}

const realOf = (ran: Timed, reads: ReadonlyArray<number>, scenario: ExpertOffloadScenario) =>
  Effect.gen(function* () {
    const { planned, summarise } = yield* prepare(scenario, file, { loader, simulator })
    const { ranks, makespanSeconds } = ran.executed
    const { timeline, opLogs } = ran.record
    const { rank, value, ops, peakBytes } = ranks[0]!
    const end = {
      rank,
      value,
      ops,
      peakBytes,
      count: 1,
      stepEndSeconds: stepEnds(ran),
      stepBusySeconds: [],
      laneBusySeconds: []
    }
    const summary = yield* summarise(
      {
        ranks: [end],
        makespanSeconds,
        timeline,
        opLogs,
        links: [],
        estimates: [],
        idle: new Set(),
        digest: ""
      },
      simulator
    )
    const { model, workload } = planned
    const [steps, before] = [summary.steps!, summary.warmupSteps!]
    const lastRead = (step: number): number => reads[(step + 1) * model.layers - 1]!
    const plainStepSeconds = (lastRead(before + steps - 1) - lastRead(before - 1)) / steps
    const real: Real = {
      figures: summary.figures,
      plainStepSeconds,
      tokensPerSecond: workload.batch / plainStepSeconds,
      copies: copiesOf(ran, expertBytes(model)),
      peakBytes
    }
    return real
  })

/** Of an expert to the device. */
const expertCopy = (ops: ReadonlyArray<OpCost>, bytes: number): number | undefined =>
  ops.find(({ op, attributes }) => op === "h2d" && attributes["bytes"] === bytes)?.medianSeconds

interface Row {
  readonly policy: string
  readonly real: Real
  readonly predicted: OffloadFigures
  /** Simulated over real time of a step that nobody times, less 1. */
  readonly timeError: number
  readonly predictedPeakBytes: { readonly device: number; readonly host: number }
}

const predicting = (policy: string): ReadonlyArray<string> => [
  `algorithm=${policy}`,
  `costs=${JSON.stringify(costs)}`,
  `routing={trace: ${JSON.stringify(trace)}}`
]

const compare = (policy: string, rehearsed: ReadonlyArray<OffloadLog>) =>
  Effect.gen(function* () {
    const scenario = yield* scenarioWith(...predicting(policy))
    const { result } = yield* runScenario(scenario, file, { loader })
    const predicted = result as typeof result & OffloadFigures
    const { performance } = (yield* kernels(scenario, file, { loader, simulator })) as Rehearsed<OffloadLog>
    const runnable = performance(rehearsed)
    const reads = yield* plain(runnable)
    const real = yield* realOf(yield* timed(runnable), reads, scenario)
    const row: Row = {
      policy,
      real,
      predicted,
      timeError: predicted.decodeStepSeconds / real.plainStepSeconds - 1,
      predictedPeakBytes: predicted.peakBytes
    }
    process.stderr.write(`${policy}: ${real.tokensPerSecond.toFixed(2)} tokens/s\n`)
    return row
  })

const columns = (rows: ReadonlyArray<Row>): ReadonlyArray<ReadonlyArray<string>> => [
  [
    "policy",
    "tokens/s",
    "predicted",
    "error",
    "ops timed",
    "loads",
    "predicted",
    "stalls, ms a step",
    "predicted",
    "ready",
    "a copy alone, ms",
    "beside kernels",
    "with the host"
  ],
  ...rows.map(({ policy, real: { figures, tokensPerSecond, copies }, predicted, timeError }) => [
    policy,
    tokensPerSecond.toFixed(2),
    predicted.tokensPerSecond.toFixed(2),
    `${(100 * timeError).toFixed(1)} %`,
    figures.tokensPerSecond.toFixed(2),
    figures.loads.toFixed(0),
    predicted.loads.toFixed(0),
    (1e3 * figures.stallSeconds).toFixed(2),
    (1e3 * predicted.stallSeconds).toFixed(2),
    `${(100 * figures.readyShare).toFixed(0)} %`,
    ...[copies.aloneSeconds, copies.besideSeconds, copies.spanSeconds].map((seconds) =>
      Number.isNaN(seconds) ? "" : (1e3 * seconds).toFixed(2)
    )
  ])
]

const bench = Effect.gen(function* () {
  const scenario = yield* scenarioWith("algorithm=lru")
  const { planned } = yield* prepare(scenario, file, { loader, simulator })
  const { model, workload } = planned
  const { rehearsal } = (yield* kernels(scenario, file, { loader, simulator })) as Rehearsed<OffloadLog>
  const device = yield* thisDevice
  // Once to have everything compiled and allocated, as it is for the runs that are predicted.
  yield* plain(rehearsal)
  const whole = yield* timedAndPlain(
    executionOf(rehearsal),
    { timed: { program: rehearsal.program() }, plain: [() => ({ program: rehearsal.program() })] },
    undefined
  )
  const routes = routesOf(whole, scenario, model.layers)
  const { ops, host, recording } = yield* costsOfRun(whole)
  yield* writeProfile(
    costs,
    tableProfile(
      "offload bench",
      {
        name: scenario.name,
        device,
        unprofiledStepSeconds: recording?.plainSeconds,
        recordingSeconds: recording?.recordingSeconds
      },
      { ops, ...(host === undefined ? {} : { host }) }
    )
  )
  yield* writeRouting(trace, routingRows(routes))
  const resident = yield* realOf(whole, yield* plain(rehearsal), scenario)
  const { result: predictedResident } = yield* runScenario(
    yield* scenarioWith(...predicting("lru"), `cache={slotsPerLayer: ${model.experts}}`),
    file,
    { loader }
  )
  const copied = expertBytes(model)
  const copySeconds = expertCopy(ops, copied)
  const rows: Array<Row> = []
  for (const policy of policies) rows.push(yield* compare(policy, [whole.executed.ranks[0]!.value]))
  const { fewestLoads, fewestForcedLoads } = rows[0]!.predicted
  const result = {
    device,
    backend,
    model,
    workload,
    warmupSteps,
    slotsPerLayer: slots,
    set: options.set,
    host,
    // what ops were recorded with, and a stretch between two reads, timed and plain
    recording,
    expertBytes: copied,
    copySeconds,
    resident,
    predictedResident,
    fewestLoads,
    fewestForcedLoads,
    rows,
    choices: routes.choices.map((layers) => layers.map((chosen) => [...chosen]))
  }
  writeFileSync(path.join(out, "offload.json"), JSON.stringify(result))
  const rate = copySeconds === undefined ? "never" : `at ${(copied / copySeconds / 1e9).toFixed(1)} GB/s`
  console.log(
    `${device}: ${model.layers} layers, ${slots} of ${model.experts} experts resident, experts of ${(copied / 1e6).toFixed(1)} MB (${model.expertDtype ?? model.dtype}), copied ${rate}`
  )
  console.log(
    `the host: ${host === undefined ? "unknown" : `${formatSeconds(host.launchSeconds ?? 0)} a launch, ${formatSeconds(host.readSeconds ?? 0)} a read`}`
  )
  console.log(
    `all resident: ${resident.tokensPerSecond.toFixed(2)} tokens/s, predicted ${(predictedResident as typeof predictedResident & OffloadFigures).tokensPerSecond.toFixed(2)}; the fewest loads that any policy needs in ${workload.decodeTokens} steps and the prefill: ${fewestLoads}, ${fewestForcedLoads} where every load takes a slot`
  )
  for (const line of alignColumns(columns(rows), (column) => column >= 1)) console.log(line)
})

mkdirSync(out, { recursive: true })
await Effect.runPromise(Effect.provideService(bench, CurrentBackend, backend))
