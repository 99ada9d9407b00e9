// PyTorch's steps beside those of bench/cluster/what-if.ts: what it is asked for and what is said of it, with a Python that is none.
import { spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { afterAll, describe, expect, it } from "vitest"
import { huggingFaceModel } from "../../bench/cluster/hugging-face.ts"
import { Runners, startRanks, type Failed } from "../../bench/cluster/runners.ts"
import { layoutOf, pointNamed } from "../../bench/cluster/what-if-choices.ts"
import {
  reportOf,
  torchFigures,
  torchLine,
  type Row,
  type TorchRow
} from "../../bench/cluster/what-if-report.ts"
import {
  patienceOf,
  torchModelOf,
  torchStepsAt,
  whyNoTorch,
  type BesideTorch
} from "../../bench/cluster/what-if-torch.ts"
import { whatIfs } from "../../bench/native/gpu-parts-several.ts"
import { parameterCount } from "../../core/models/layer-graph.ts"
import { loadAddon } from "../../exec/native-addon.ts"
import { modelGraph } from "../../scenarios/model-graph.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"

const folder = mkdtempSync(path.join(tmpdir(), "what-if-torch-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/**
 * A "Python" that has every module but those of `lacks`, and whose ranks do as the last of `does` that the folder has files for: each
 * start of rank 0 writes one. What it was asked goes to `asked`, process ids to `started`.
 */
const pythonThat = (name: string, does: ReadonlyArray<string>, lacks = ""): string => {
  const file = path.join(folder, name)
  const own = (kind: string): string => JSON.stringify(path.join(folder, `${name}.${kind}`))
  writeFileSync(
    file,
    `#!${process.execPath}
const fs = require("node:fs")
if (process.argv[2] === "-c") { console.log(${JSON.stringify(lacks)}); process.exit(0) }
const rank = Number(process.env.TANDEM_RANK)
fs.appendFileSync(${own("started")}, process.pid + "\\n")
const read = (pid, file) => { try { return fs.readFileSync("/proc/" + pid + "/" + file, "utf8") } catch { return "" } }
const ours = fs.readdirSync("/proc").filter((pid) => read(pid, "cmdline").includes("what-if-rank.ts")
  && read(pid, "status").includes("PPid:\\t" + process.ppid + "\\n"))
fs.appendFileSync(${own("asked")}, JSON.stringify({ rank, ranks: process.env.TANDEM_WORLD_SIZE, args: process.argv.slice(2),
  algo: process.env.NCCL_ALGO, ours: ours.length }) + "\\n")
const does = ${JSON.stringify(does)}
let run = 0
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  fs.appendFileSync(${own("asked")}, rank === 0 ? line + "\\n" : "")
  const starts = fs.readFileSync(${own("started")}, "utf8").trim().split("\\n").length / Number(process.env.TANDEM_WORLD_SIZE)
  const what = does[Math.min(Math.ceil(starts) - 1 + run++, does.length - 1)]
  if (what === "wait") return
  const answer = what === "fail" ? { error: "RuntimeError: no" }
    : { stepSeconds: 0.05, meanSeconds: 0.06, steps: 60, warmupSteps: 22, steady: true, versions: { torch: "2.11", transformers: "5" } }
  console.log(JSON.stringify({ answer }))
}).on("close", () => process.exit(0))
`,
    { mode: 0o755 }
  )
  return file
}

/** None where nothing came so far. */
const linesOf = (python: string, kind: string): ReadonlyArray<string> =>
  existsSync(`${python}.${kind}`) ? readFileSync(`${python}.${kind}`, "utf8").trim().split("\n") : []

const isThere = (pid: string): boolean =>
  existsSync(`/proc/${pid}/stat`) && !/\) Z /u.test(readFileSync(`/proc/${pid}/stat`, "utf8"))

const model = { family: "gpt2", sizes: { n_layer: 1 }, vocabulary: 7, batch: 1, context: 8 } as const
const besides = (python: string, more: Partial<BesideTorch> = {}): BesideTorch => ({
  python,
  backend: "cpu",
  model,
  wire: "bfloat16",
  secondsLeft: () => 1000,
  missing: undefined,
  ...more
})

const two = layoutOf(2, undefined, false)
const inHalves = layoutOf(4, 2, false)

const stepsAt = async (
  torch: BesideTorch,
  names: ReadonlyArray<string>,
  layout = two,
  stepSeconds: number | undefined = 0.1
) => {
  const rows: Array<TorchRow> = []
  const shaped: Array<string> = []
  await torchStepsAt(torch, {
    layout,
    points: names.map(pointNamed),
    cluster: undefined,
    env: { NCCL_ALGO: "Ring" },
    shape: ({ name }) => shaped.push(name),
    stepSecondsNear: () => stepSeconds,
    heard: (row) => rows.push(row)
  })
  return { rows, shaped }
}

describe("steps of PyTorch", () => {
  it("are asked of as many ranks at every point but those that drop, once for all, and the ranks end", async () => {
    const python = pythonThat("well", ["answer"])
    const names = ["nvlink", "1Gbit/s", "drop:1Gbit/s", "asymmetric:1Gbit/s"]
    const { rows, shaped } = await stepsAt(besides(python), names, inHalves)
    expect(shaped).toEqual(["nvlink", "1Gbit/s", "asymmetric:1Gbit/s"])
    expect(rows.map(({ point }) => point)).toEqual(shaped)
    for (const row of rows)
      expect(row).toMatchObject({ ranks: 4, mode: "hsdp", outcome: { stepSeconds: 0.05, steps: 60 } })
    const asked = linesOf(python, "asked").map((line) => JSON.parse(line) as Record<string, unknown>)
    const starts = asked.filter((one) => "rank" in one)
    expect(starts.map(({ rank }) => rank).toSorted()).toEqual([0, 1, 2, 3])
    for (const { args, ranks, algo } of starts) {
      const [program, backend, spec] = args as [string, string, string]
      expect([program, backend, ranks, algo]).toEqual(["bench/cluster/torch-steps.py", "cpu", "4", "Ring"])
      expect(existsSync(program)).toBe(true)
      expect(JSON.parse(spec)).toEqual({ ...model, mode: "hsdp", hosts: 2, wire: "bfloat16" })
    }
    expect(asked.filter((one) => !("rank" in one))).toEqual(
      shaped.map(() => ({ measureSeconds: 3, warmUpSeconds: patienceOf(0.1).warmUpSeconds }))
    )
    const pids = linesOf(python, "started")
    expect(pids).toHaveLength(4)
    expect(pids.filter(isThere)).toEqual([])
  })

  it("that fail are a row, and the next point has new ranks", async () => {
    const python = pythonThat("fails", ["fail", "answer"])
    const { rows } = await stepsAt(besides(python), ["2Gbit/s", "1Gbit/s"])
    // In the order in which they answer.
    const [failed, next] = rows.map(({ outcome }) => outcome)
    expect((failed as Failed).error.split("; ").toSorted()).toEqual(
      [0, 1].map((rank) => `rank ${rank}: RuntimeError: no`)
    )
    expect(next).toMatchObject({ stepSeconds: 0.05 })
    expect(rows[0]!.mode).toBe("ddp")
    expect(linesOf(python, "started")).toHaveLength(4)
  })

  it("that never come are ended when the time is over, and begun no more with none left", async () => {
    const python = pythonThat("waits", ["wait"])
    const began = performance.now()
    // Enough to begin with, of which a moment is left then.
    const left = [1000, 2, 5]
    const { rows } = await stepsAt(besides(python, { secondsLeft: () => left.shift()! }), [
      "2Gbit/s",
      "1Gbit/s"
    ])
    expect(rows.map(({ outcome }) => outcome)).toEqual([{ error: "ended after 2 s" }, undefined])
    expect(performance.now() - began).toBeLessThan(60_000)
    expect(linesOf(python, "started").filter(isThere)).toEqual([])
  })

  it("may take so long: to start, and then in proportion to a step", () => {
    // Ten steps of warm-up and ten that count, of a step three times as long as predicted, take 60 of it.
    const [short, long] = [patienceOf(0.01), patienceOf(4)]
    expect(long.runSeconds - short.runSeconds).toBeCloseTo(60 * 3.99, 9)
    expect(short.runSeconds).toBeGreaterThan(60)
    expect(long.warmUpSeconds).toBeLessThan(long.runSeconds)
  })

  it("are failed ones where there is no PyTorch, with what is missing and what helps", async () => {
    const bare = pythonThat("bare", [], "torch transformers")
    const missing = whyNoTorch(bare)
    expect(missing).toContain(`${bare} has no module torch, transformers; "pip install torch transformers"`)
    expect(whyNoTorch(pythonThat("whole", []))).toBeUndefined()
    expect(whyNoTorch("/no/such/python")).toMatch(/ENOENT.*--python/u)
    const { rows } = await stepsAt(besides(bare, { missing }), ["2Gbit/s", "1Gbit/s"])
    expect(rows.map(({ outcome }) => outcome)).toEqual([{ error: missing }, { error: missing }])
    expect(existsSync(`${bare}.started`)).toBe(false)
  })
})

it("says of a program that is not there that it did not start", async () => {
  const program = ["/no/such/python"]
  const gone = new Runners(startRanks(2, undefined, ["x.py"], "pipe", { program }))
  expect(await gone.run({})).toMatchObject({ error: expect.stringMatching(/did not start: .*ENOENT/u) })
  await gone.close()
})

const gpt2File = path.resolve("scenarios/measured/what-if-gpt2.yaml")
const llamaFile = path.resolve("scenarios/measured/what-if-llama.yaml")

describe("the model that PyTorch is started with", () => {
  const graphOf = async (file: string, set: ReadonlyArray<string> = []) => {
    const scenario = await Effect.runPromise(loadScenario(file, set))
    if (scenario.task !== "data-parallel" || !("gpt2" in scenario.model || "llama" in scenario.model))
      throw new Error(file)
    return { model: scenario.model, parameters: parameterCount(modelGraph(scenario.model)) }
  }

  it("is the scenario's GPT-2, its table padded as ours", async () => {
    const { model, parameters } = await graphOf(gpt2File)
    const { family, sizes, ...rest } = huggingFaceModel(model)
    expect(family).toBe("gpt2")
    expect(sizes).toEqual({ n_layer: 12, n_embd: 768, n_head: 12, n_positions: 1024, vocab_size: 50304 })
    expect(rest).toEqual({ vocabulary: 50257, batch: 4, context: 1024 })
    // GPT2LMHeadModel: tables, a norm, and of each block two norms and four products with biases.
    const [w, layers] = [768, 12]
    const block = 4 * w + (3 * w * w + 3 * w) + (w * w + w) + (4 * w * w + 4 * w) + (4 * w * w + w)
    expect((50304 + 1024) * w + layers * block + 2 * w).toBe(parameters)
  })

  it("is the scenario's Llama, with its groups and its feed-forward width", async () => {
    const { model, parameters } = await graphOf(llamaFile)
    const { family, sizes, batch, context } = huggingFaceModel(model)
    expect([family, batch, context]).toEqual(["llama", 4, 1024])
    expect(sizes).toEqual({
      num_hidden_layers: 16,
      hidden_size: 2048,
      intermediate_size: 8192,
      num_attention_heads: 32,
      num_key_value_heads: 8,
      max_position_embeddings: 1024,
      vocab_size: 32000,
      tie_word_embeddings: false
    })
    // LlamaForCausalLM: two tables, a norm, and of each block two norms, q and o, k and v, gate, up and down.
    const block = 2 * 2048 + 2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192
    expect(2 * 32000 * 2048 + 16 * block + 2048).toBe(parameters)
    const { model: other } = await graphOf(llamaFile, [
      "model={llama: {layers: 1, width: 64, heads: 4, headWidth: 32, ffnWidth: 128, vocabulary: 100, vocabularyMultiple: 64, tied: true}}"
    ])
    expect(huggingFaceModel(other).sizes).toMatchObject({
      num_key_value_heads: 4,
      head_dim: 32,
      vocab_size: 128,
      tie_word_embeddings: true
    })
  })

  it("is refused where PyTorch's step would be another", async () => {
    const refused = async (text: string, wire = "bfloat16", mode: "ddp" | "hsdp" = "ddp") => {
      const file = path.join(folder, "scenario.yaml")
      writeFileSync(file, text)
      return torchModelOf(file, mode, wire).then(
        () => "not refused",
        (error: Error) => error.message
      )
    }
    const gpt2 =
      "name: gpt2\nmodel: {gpt2: {layers: 1, width: 64, heads: 4}}\nworld: {ranks: 2}\nalgorithm: ddp\n"
    expect(await refused(gpt2)).toBe("not refused")
    expect(await refused(gpt2.replace("gpt2: {", "mixtral: {ffnWidth: 64, "))).toMatch(
      /^model: expected \{gpt2\} or \{llama\}/u
    )
    expect(await refused(`${gpt2}training: {accumulate: 4}\n`)).toMatch(
      /^training.accumulate: 4; expected 1/u
    )
    expect(await refused(`${gpt2}activations: {recompute: block}\n`)).toMatch(
      /^activations.recompute: block; expected none/u
    )
    expect(await refused(gpt2, "float8")).toBe(
      "--wire float8: expected bfloat16 or float32, which PyTorch's DDP is asked to send"
    )
    expect(await refused(gpt2, "float8", "hsdp")).toBe("not refused")
  })
})

describe("the report with PyTorch", () => {
  const own = (point: string, stepSeconds: number): Row => ({
    ranks: 2,
    point,
    algorithm: "ddp",
    predictedSeconds: stepSeconds,
    predictedComputeSeconds: 0.01,
    measured: { stepSeconds }
  })
  const timed = {
    stepSeconds: 0.08,
    meanSeconds: 0.081,
    steps: 38,
    warmupSteps: 12,
    steady: true,
    versions: { torch: "2.11", transformers: "5.17", nccl: "2.28" }
  }
  const theirs = (point: string, outcome: TorchRow["outcome"]): TorchRow => ({
    ranks: 2,
    point,
    mode: "ddp",
    outcome
  })
  const rows = [own("nvlink", 0.01), own("1Gbit/s", 0.1), own("drop:1Gbit/s", 0.2)]
  const report = (torch: ReadonlyArray<TorchRow>) => reportOf(rows, ["ddp"], { mode: "ddp", rows: torch })

  it("has its steps beside ours, and our ddp over them, in no error", () => {
    // 10 ms over 80, 100 over 80.
    const { text, complete, medianError } = report([theirs("nvlink", timed), theirs("1Gbit/s", timed)])
    expect(text).toContain("| ranks | link | ddp | fastest | order | PyTorch DDP | our ddp over it |")
    expect(text).toContain("| 2 | nvlink | 10.0 / 10.0 (0.0 %) | right | right | 80.0 | 0.13 |")
    expect(text).toContain("| 2 | 1Gbit/s | 100.0 / 100.0 (0.0 %) | right | right | 80.0 | 1.25 |")
    expect(text).toContain("| 2 | drop:1Gbit/s | 200.0 / 200.0 (0.0 %) | right | right | - | - |")
    const widths = text
      .split("\n")
      .slice(0, 5)
      .map((line) => line.split("|").length)
    expect(new Set(widths).size).toBe(1)
    expect([complete, medianError]).toEqual([true, 0])
    expect(text).toContain("3 of 3 runs; error: median 0.0 %, worst 0.0 %; 2 of 2 of PyTorch, in no error")
    expect(reportOf(rows, ["ddp"], { mode: "hsdp", rows: [] }).text).toContain("| PyTorch HSDP |")
    expect(reportOf(rows, ["ddp"]).text).not.toContain("PyTorch")
  })

  it.each([
    ["failed", { error: "RuntimeError: no" }],
    ["not run", undefined]
  ])("is incomplete where PyTorch has %s, and errors are as they are without", (cell, outcome) => {
    const { text, complete, medianError } = report([theirs("nvlink", timed), theirs("1Gbit/s", outcome)])
    expect([complete, medianError]).toEqual([false, 0])
    expect(text).toContain(`| 2 | 1Gbit/s | 100.0 / 100.0 (0.0 %) | right | right | ${cell} | - |`)
    expect(text).toContain("1 of 2 of PyTorch, in no error; INCOMPLETE")
    expect(torchLine(theirs("1Gbit/s", outcome), rows)).toMatch(
      /^2 ranks, 1Gbit\/s, PyTorch DDP: (?:failed: RuntimeError: no|not run, no time was left)$/u
    )
  })

  it("says in a line how many steps it is of, and whether they were steady", () => {
    expect(torchLine({ ...theirs("1Gbit/s", timed), ranSeconds: 21.4 }, rows)).toBe(
      "2 ranks, 1Gbit/s, PyTorch DDP: 80.0 ms a step, the median of 38 (mean 81.0) after 12; our ddp takes 1.25 times as long; ran for 21 s"
    )
    expect(torchLine(theirs("5Gbit/s", { ...timed, steady: false }), rows)).toBe(
      "2 ranks, 5Gbit/s, PyTorch DDP: 80.0 ms a step, the median of 38 (mean 81.0) after 12, which were not steady yet"
    )
  })

  it("is a field of its own in the file, with what ran it", () => {
    const { versions, ...steps } = timed
    const failed = { error: "no" }
    expect(torchFigures("ddp", [theirs("nvlink", failed), theirs("1Gbit/s", timed)], rows)).toEqual({
      mode: "ddp",
      versions,
      rows: [
        { ranks: 2, point: "nvlink", mode: "ddp", outcome: failed },
        { ranks: 2, point: "1Gbit/s", mode: "ddp", outcome: steps, oursOver: 1.25 }
      ]
    })
  })
})

it("is asked for on one, four and eight GPUs", () => {
  const asking = whatIfs({ backend: "cuda", out: "gpu" }).filter(({ steps }) =>
    steps.some(({ command }) => command.includes("--torch"))
  )
  expect(asking.map(({ name }) => name)).toEqual([
    "sites",
    "what-if-4",
    "what-if-one",
    "what-if-llama-one",
    "sites-8"
  ])
})

it.skipIf("missing" in loadAddon())(
  "runs when ours have ended, in the same call, and a run of it that fails ends nothing",
  () => {
    const scenario = path.join(folder, "toy.yaml")
    writeFileSync(
      scenario,
      `name: toy
model: {gpt2: {layers: 1, width: 32, heads: 2, vocabulary: 64, context: 8, batch: 1}}
world: {ranks: 2, ranksPerNode: 1, links: {inter: {bandwidth: 1Gbit/s, latency: 100us}}}
algorithm: ddp
device: {name: a slow core, flops: 0.5GFLOP/s, memoryBandwidth: 1GB/s}
steps: 2
training: {heldOut: 0, optimizer: {name: sgd, learningRate: 0.1}}
`
    )
    const python = pythonThat("called", ["fail"])
    const out = path.join(folder, "called.json")
    const what = ["--scenario", scenario, "--ranks", "2", "--points", "nvlink", "--algorithms", "ddp"]
    const { status, stdout } = spawnSync(
      process.execPath,
      ["bench/cluster/what-if.ts", ...what, "--torch", "--python", python, "--out", out],
      // A bench whose ranks are not ended does not end either.
      { encoding: "utf8", timeout: 120_000 }
    )
    expect(stdout).toMatch(/\| 2 \| nvlink \| \d.* \| right \| right \| failed \| - \|/u)
    expect(stdout).toContain("0 of 1 of PyTorch, in no error; INCOMPLETE")
    expect(status).toBe(1)
    const told = JSON.parse(readFileSync(out, "utf8")) as {
      readonly rows: ReadonlyArray<Row>
      readonly torch: object
    }
    expect(told.rows).toMatchObject([{ algorithm: "ddp", measured: { stepSeconds: expect.any(Number) } }])
    expect(told.torch).toMatchObject({
      mode: "ddp",
      rows: [{ point: "nvlink", outcome: { error: /RuntimeError/u } }]
    })
    const starts = linesOf(python, "asked").map((line) => JSON.parse(line) as { readonly ours?: number })
    expect(starts.filter(({ ours }) => ours !== undefined)).toMatchObject([{ ours: 0 }, { ours: 0 }])
  }
)
