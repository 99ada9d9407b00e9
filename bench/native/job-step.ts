// Host time of a step over processes beside the same step in one process: processor time of the thread that submits, for each
// rank, of a step of small kernels with a collective after every layer. Beside them, as many processes of one rank that know nothing of
// each other, started together: what it costs that a thread serves one rank alone. The three are run in turn, in processes of their own.
//   npx node bench/native/job-step.ts --ranks 2 --pairs 5
//   npx node bench/native/job-step.ts --backend cuda --ranks 1,2,4,8     over processes alone, a GPU each: whether a rank's time stays
import { spawn } from "node:child_process"
import * as Effect from "effect/Effect"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import { CurrentBackend } from "../../exec/backend.ts"
import { localWorld } from "../../exec/bench.ts"
import { execute } from "../../exec/execute.ts"
import { placeIn } from "../../exec/job/environment.ts"
import { freePort } from "../../exec/job/free-port.ts"
import { ProcessJob } from "../../exec/job/processes.ts"
import { freshSecret, secretIn } from "../../exec/job/secret.ts"
import { median } from "../../core/median.ts"
import { backendOf, numbersOf, optionsOf, wholeNumber } from "../numbers.ts"

const { values } = optionsOf({
  options: {
    backend: { type: "string", default: "cpu" },
    ranks: { type: "string", default: "2" },
    pairs: { type: "string", default: "5" },
    rounds: { type: "string", default: "20" },
    alone: { type: "boolean", default: false },
    strangers: { type: "boolean", default: false }
  }
})
const backend = backendOf(values.backend)
const [pairs, rounds] = [wholeNumber("--pairs", values.pairs), wholeNumber("--rounds", values.rounds)]
const scale = numbersOf("--ranks", values.ranks, wholeNumber)
const ranks = scale[0]!
const [layers, kernelsOfLayer, steps] = [16, 4, 10]

interface Micros {
  readonly submitting: number
  readonly step: number
  /** Of all threads of the process: those that launch and wait, too. */
  readonly all: number
  /** By the clock. */
  readonly passed: number
}

const totalOf = ({ user, system }: NodeJS.CpuUsage): number => user + system
const cpuMicros = (): number => totalOf(process.threadCpuUsage())

const program = Effect.gen(function* () {
  const machine = yield* Machine
  const [value, gradient] = [
    yield* machine.alloc({ name: "value", shape: [1024], dtype: "float32" }),
    yield* machine.alloc({ name: "gradient", shape: [1024], dtype: "float32" })
  ]
  const kernel = launch("kernel", kernels.scale, Lane.compute, [value], [gradient], { factor: 0.5 })
  const { all } = machine.world
  const sum = collective("sum", kernels.all_reduce, Lane.inter, all, [gradient], [gradient])
  const submitting: Array<number> = []
  const whole: Array<number> = []
  const ofAll: Array<number> = []
  const passed: Array<number> = []
  // The first rounds compile.
  for (let round = -5; round < rounds; round++) {
    const [start, startOfAll, began] = [cpuMicros(), totalOf(process.cpuUsage()), performance.now()]
    let submitted = 0
    for (let step = 0; step < steps; step++) {
      const before = cpuMicros()
      for (let layer = 0; layer < layers; layer++) {
        for (let i = 0; i < kernelsOfLayer; i++) machine.submit(kernel)
        machine.submit(sum)
      }
      submitted += cpuMicros() - before
      yield* machine.drain
    }
    if (round < 0) continue
    submitting.push(submitted / steps)
    whole.push((cpuMicros() - start) / steps)
    ofAll.push((totalOf(process.cpuUsage()) - startOfAll) / steps)
    passed.push((1000 * (performance.now() - began)) / steps)
  }
  return {
    submitting: median(submitting),
    step: median(whole),
    all: median(ofAll),
    passed: median(passed)
  } satisfies Micros
})

const onBackend = <A, E>(run: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.provideService(run, CurrentBackend, backend)

/** A rank's times; in one process the thread serves all ranks, so a step is its share. */
const measured = async (): Promise<Micros> => {
  const world = localWorld(values.strangers ? 1 : ranks)
  const place = values.alone ? undefined : await Effect.runPromise(placeIn(process.env))
  if (place === undefined) {
    const { ranks: own } = await Effect.runPromise(onBackend(execute({ world, program })))
    const { step, all, ...rest } = own[0]!.value
    return { ...rest, step: step / own.length, all: all / own.length }
  }
  const secret = await Effect.runPromise(secretIn(process.env))
  const { ranks: own } = await Effect.runPromise(
    ProcessJob.use({ place, secret, alike: { version: "1" }, timeoutSeconds: 60 }, (job) =>
      onBackend(execute({ world, job: () => job.run(), program }))
    )
  )
  return own[0]!.value
}

const child = (env: NodeJS.ProcessEnv, more: ReadonlyArray<string>, of = ranks): Promise<Micros> =>
  new Promise((resolve, reject) => {
    const args = [
      import.meta.filename,
      "--ranks",
      String(of),
      "--rounds",
      String(rounds),
      "--backend",
      backend,
      ...more
    ]
    const one = spawn(process.execPath, args, {
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "inherit"]
    })
    let text = ""
    one.stdout.on("data", (bytes) => (text += String(bytes)))
    one.on("close", (code) =>
      code === 0 ? resolve(JSON.parse(text) as Micros) : reject(new Error(`ended with ${code}`))
    )
  })

/** Each rank's times. */
const ofProcesses = async (ranks: number): Promise<ReadonlyArray<Micros>> => {
  const [port, secret] = [await freePort(), freshSecret()]
  return Promise.all(
    Array.from({ length: ranks }, (_, rank) =>
      child(
        {
          RANK: String(rank),
          WORLD_SIZE: String(ranks),
          MASTER_ADDR: "127.0.0.1",
          MASTER_PORT: String(port),
          TANDEM_SECRET: secret
        },
        [],
        ranks
      )
    )
  )
}

const overProcesses = async (): Promise<Micros> => (await ofProcesses(ranks))[0]!

/** Whether a rank's time stays, however many there are. In turn, so that what else the machine does falls on all. */
const compareScale = async (): Promise<void> => {
  const runs = scale.map((): Array<Micros> => [])
  for (let pair = 0; pair < pairs; pair++)
    for (const [index, ranks] of scale.entries()) {
      const each = await ofProcesses(ranks)
      process.stderr.write(`${pair + 1} of ${pairs}, ${ranks} ranks: ${JSON.stringify(each)}\n`)
      runs[index]!.push(...each)
    }
  console.log(
    `${layers * (kernelsOfLayer + 1)} ops a step and rank, ${layers} of them all-reduces among all; us of a rank a step, medians of ${pairs} jobs`
  )
  console.log("ranks  submitting  its thread  all threads  by the clock")
  for (const [index, ranks] of scale.entries()) {
    const of = (what: keyof Micros, width: number): string =>
      median(runs[index]!.map((run) => run[what]))
        .toFixed(0)
        .padStart(width)
    console.log(
      `${String(ranks).padStart(5)}${of("submitting", 12)}${of("step", 12)}${of("all", 13)}${of("passed", 14)}`
    )
  }
}

const strangers = async (): Promise<Micros> =>
  (await Promise.all(Array.from({ length: ranks }, () => child({}, ["--alone", "--strangers"]))))[0]!

const compare = async (): Promise<void> => {
  const runs: Array<readonly [Micros, Micros, Micros]> = []
  for (let pair = 0; pair < pairs; pair++) {
    runs.push([await child({}, ["--alone"]), await strangers(), await overProcesses()])
    const [alone, unrelated, apart] = runs.at(-1)!
    process.stderr.write(`${pair + 1} of ${pairs}: ${JSON.stringify({ alone, unrelated, apart })}\n`)
  }
  console.log(
    `${layers * (kernelsOfLayer + 1)} ops a step and rank, ${layers} of them all-reduces among ${ranks}; us of a rank's thread`
  )
  for (const what of ["submitting", "step"] as const) {
    const [alone, unrelated, apart] = ([0, 1, 2] as const).map((side) =>
      median(runs.map((run) => run[side][what]))
    )
    const ratioTo = (side: 0 | 1): string =>
      median(runs.map((run) => run[2][what] / run[side][what])).toFixed(2)
    console.log(
      `${what.padEnd(12)} in one process ${alone!.toFixed(0)}, in processes without each other ${unrelated!.toFixed(0)}, over processes ${apart!.toFixed(0)}; median ratio of the last to the first ${ratioTo(0)}, to the second ${ratioTo(1)}`
    )
  }
}

if (values.alone || process.env["RANK"] !== undefined) console.log(JSON.stringify(await measured()))
else if (scale.length > 1) await compareScale()
else await compare()
