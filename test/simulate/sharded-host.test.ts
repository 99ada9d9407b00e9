// What a model in parts takes of its host: so many calls, carrying so many tensors, as PyTorch's FSDP2 makes. Told by how much longer a
// step is that its host sets the pace of, a call or a tensor costing more.
import * as Effect from "effect/Effect"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"

const file = fileURLToPath(new URL("../../scenarios/measured/sharded-h100.yaml", import.meta.url))

const stepMicros = async (collective: number, hook: number, ...sets: ReadonlyArray<string>) => {
  const scenario = await Effect.runPromise(
    loadScenario(file, [
      "model.profile=../../traces/profiles/gpt2-16-h200x2-cubic.arrow",
      "activations={by: eager, of: {gpt2: {layers: 12, width: 768, heads: 12, vocabulary: 50257, context: 1024, batch: 4}}}",
      "collectives={}",
      "steps=2",
      `host={mode: eager, launch: 30us, collective: ${collective}us, hook: ${hook}us}`,
      ...sets
    ])
  )
  const { result } = await Effect.runPromise(runScenario(scenario, file, { loader: new Loader() }))
  return (result as unknown as { readonly stepSeconds: number }).stepSeconds * 1e6
}

/** Calls a step, and tensors that they carry. */
const counted = async (...sets: ReadonlyArray<string>) => {
  const step = await stepMicros(100, 200, ...sets)
  const [calls, tensors] = [await stepMicros(101, 200, ...sets), await stepMicros(100, 201, ...sets)]
  return [Math.round(calls - step), Math.round(tensors - step)]
}

// Of GPT-2's twelve blocks of twelve tensors and a root of four, as two steps of its own trace have them (bench/measured: 76 of NCCL's
// kernels): 13 gathers before the forward pass, 12 before the backward pass, 13 reduce-scatters.
const calls = 13 + 12 + 13
const tensors = 148 + 144 + 148
const links = "links: {intra: {bandwidth: 450GB/s}, inter: {bandwidth: 400GB/s}}"
const shard = (within: string) => `shard={within: ${within}, parameterDtype: bfloat16}`

it.each(["ddp", "s-sgd", "{name: local-sgd, period: 1}", "{name: diloco, period: 1, overlap: false}"])(
  "are those of its gathers and reduce-scatters, where %s has nobody to average with",
  async (algorithm) => {
    const world = `world={ranks: 2, ranksPerNode: 2, ${links}}`
    expect(await counted(world, shard("world"), `algorithm=${algorithm}`)).toEqual([calls, tensors])
  }
)

it("has a call more for each bucket of parts between nodes, and none more of their tensors", async () => {
  const world = `world={ranks: 4, ranksPerNode: 2, ${links}}`
  const algorithm = "algorithm={name: ddp, buckets: per-layer}"
  expect(await counted(world, shard("node"), algorithm)).toEqual([calls + 13, tensors])
})

// PyTorch's DDP of one rank alone runs its hooks and calls NCCL all the same.
it("is not spared DDP's hooks by being one rank alone", async () => {
  expect(await counted("world={ranks: 1}", "algorithm={name: ddp, buckets: single}")).toEqual([1, 148])
})
