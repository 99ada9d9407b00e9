// What the initial values of GPT-2 124M cost: drawn by kernels where they lie, as every run does it, beside one generator on the
// thread of JavaScript and an upload, as it was done before. Both from the same program's tensors, in turn, in one session each.
//   node bench/native/initial.ts                    or with --backend cuda, --rounds 5, --json
// Needs the native addon.
import * as Effect from "effect/Effect"
import { Machine } from "../../core/machine/machine.ts"
import type { Initial } from "../../core/machine/tensor.ts"
import { gpt2 } from "../../core/models/gpt2.ts"
import { initialParameters } from "../../core/models/initial-values.ts"
import { parameterCount, type Value } from "../../core/models/layer-graph.ts"
import { Random } from "../../core/random.ts"
import { makeWorld, unlimitedLinks } from "../../core/world.ts"
import { execute } from "../../exec/execute.ts"
import { median } from "../../core/median.ts"
import { backendOf, optionsOf, wholeNumber } from "../numbers.ts"

const { values: options } = optionsOf({
  options: {
    backend: { type: "string", default: "cpu" },
    rounds: { type: "string", default: "3" },
    json: { type: "boolean", default: false }
  }
})
const backend = backendOf(options.backend)

const graph = gpt2({ layers: 12, width: 768, heads: 12, vocabulary: 50257, context: 1024, batch: 1 })
const parameters = graph.layers.flatMap((layer) => layer.parameters)
const world = makeWorld([{ name: "here", nodes: [1] }], unlimitedLinks)

/** The same rule from a generator with a state: number after number. */
const fromHost = ({ name, shape, elements }: Value): Initial => {
  return () => {
    const values = new Float32Array(elements)
    const random = new Random(1).split(name)
    if (shape.length > 1) for (let i = 0; i < elements; i++) values[i] = 0.02 * random.normal()
    return values
  }
}

interface Taken {
  /** Until the last tensor has its values. */
  readonly seconds: number
  /** Processor time of the thread of JavaScript, and of all threads. */
  readonly threadSeconds: number
  readonly processSeconds: number
}

const sum = ({ user, system }: NodeJS.CpuUsage): number => (user + system) / 1e6

const take = (initialOf: (parameter: Value) => Initial): Promise<Taken> =>
  Effect.runPromise(
    Effect.map(
      execute({
        world,
        backend,
        program: Effect.gen(function* () {
          const machine = yield* Machine
          const [begun, thread, all] = [performance.now(), process.threadCpuUsage(), process.cpuUsage()]
          for (const parameter of parameters)
            yield* machine.alloc({ ...parameter, dtype: "float32", initial: initialOf(parameter) })
          // The first to wait begins the run, when all values are there.
          yield* machine.sleepUntil(0)
          return {
            seconds: (performance.now() - begun) / 1e3,
            threadSeconds: sum(process.threadCpuUsage()) - sum(thread),
            processSeconds: sum(process.cpuUsage(all))
          }
        })
      }),
      ({ ranks }) => ranks[0]!.value
    )
  )

const drawn = initialParameters(graph, 1)
const rounds: Array<{ readonly kernels: Taken; readonly host: Taken }> = []
const count = wholeNumber("--rounds", options.rounds)
for (let round = 0; round < count; round++)
  rounds.push({ kernels: await take(drawn), host: await take(fromHost) })

const summary = (way: "kernels" | "host"): Taken => ({
  seconds: median(rounds.map((round) => round[way].seconds)),
  threadSeconds: median(rounds.map((round) => round[way].threadSeconds)),
  processSeconds: median(rounds.map((round) => round[way].processSeconds))
})
const elements = parameterCount(graph)
const result = { backend, elements, kernels: summary("kernels"), host: summary("host") }
if (options.json) console.log(JSON.stringify({ ...result, rounds }))
else {
  console.log(`${elements} values on ${backend}, median of ${rounds.length} rounds`)
  for (const way of ["kernels", "host"] as const) {
    const { seconds, threadSeconds, processSeconds } = result[way]
    console.log(
      `${(way === "host" ? "on the host's thread" : "by kernels").padEnd(22)}${seconds.toFixed(3).padStart(8)} s; processor time: ${processSeconds.toFixed(3)} s in all (${((processSeconds / elements) * 1e9).toFixed(2)} ns a value), ${threadSeconds.toFixed(3)} s of JavaScript's thread`
    )
  }
}
