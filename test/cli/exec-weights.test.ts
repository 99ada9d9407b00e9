// Weights from `exec train --save` to `exec generate --weights`, as a user meets them.
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { freePort } from "../../exec/job/free-port.ts"
import { freshSecret } from "../../exec/job/secret.ts"
import { variablesOf } from "../job/started.ts"
import { describeNative } from "../native/addon.ts"
import { exec, root } from "./launch.ts"

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "exec-weights-"))
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

const file = (name: string, content: string): string => {
  const at = path.join(folder, name)
  fs.writeFileSync(at, content)
  return at
}

const text = file("text.txt", "abcdefgh".repeat(200))
const sizes = "layers: 1, width: 16, heads: 2, kvHeads: 1, ffnWidth: 24, vocabulary: 8"
const train = file(
  "train.yaml",
  `name: alphabet
model: { llama: { ${sizes}, context: 24, batch: 4 } }
world: { ranks: 2 }
algorithm: ddp
training: { text: text.txt, optimizer: { name: adamw, learningRate: 0.01 } }
`
)
const serve = file(
  "serve.yaml",
  `task: kv-serving
name: continue
model: { ${sizes} }
algorithm: full
requests: { count: 5, prompt: 9, output: 12 }
maxBatch: 2
`
)
const weights = path.join(folder, "weights.arrow")

interface Generated {
  readonly weights: string
  readonly requests: ReadonlyArray<{ prompt: string; text: string; tokens: ReadonlyArray<number> }>
}

describeNative("exec train --save and exec generate --weights", () => {
  beforeAll(() => {
    const { status, stderr } = exec("train", train, "--steps", "150", "--save", weights)
    expect([status, stderr]).toEqual([0, ""])
  })

  it("continue a text that was learnt", () => {
    const args = ["generate", serve, "--weights", weights, "--text", text]
    const generated = exec(...args, "--json")
    expect(generated.stderr).toBe("")
    const result = JSON.parse(generated.stdout) as Generated
    expect(result.weights).toBe("alphabet")
    expect(result.requests).toHaveLength(5)
    for (const { prompt, text, tokens } of result.requests) {
      expect([prompt.length, text.length]).toEqual([9, 12])
      expect("abcdefgh".repeat(4)).toContain(prompt + text)
      expect(tokens.map((token) => "abcdefgh"[token]).join("")).toBe(text)
    }
    const page = fs.readFileSync(path.join(root, "docs/exec.md"), "utf8")
    for (const field of ["weights", "prompt", "text"]) expect(page).toContain(`\`${field}\``)
    const [first] = result.requests
    expect(exec(...args).stdout).toContain(`…"${first!.prompt}" + "${first!.text}"\n`)
  })

  it("save the same bytes with the same seed, and others with another", () => {
    const saved = (seed: string): Buffer => {
      const at = path.join(folder, "again.arrow")
      expect(exec("train", train, "--steps", "3", "--seed", seed, "--save", at).status).toBe(0)
      return fs.readFileSync(at)
    }
    const once = saved("4")
    expect(saved("4").equals(once)).toBe(true)
    expect(saved("5").equals(once)).toBe(false)
  })

  it.each<[string, ReadonlyArray<string>, RegExp]>([
    [
      "a model of another width",
      ["--text", text, "--set", "model.width=32"],
      /model\.width: 32 .*expected 16, as the model of/u
    ],
    ["a text of other characters", [], /psalms\.txt: the character .* expected a text of the 8 characters/u],
    ["prompts longer than the text", ["--text", text, "--set", "prompt=200"], /requests: a prompt of 200/u]
  ])("refuse %s", (_, args, message) => {
    const { status, stdout, stderr } = exec("generate", serve, "--weights", weights, ...args)
    expect(stderr).toMatch(message)
    expect([status, stdout]).toEqual([2, ""])
  })

  it.each<[string, ReadonlyArray<string>, RegExp]>([
    ["a file of another kind", [serve, "--weights", text], /text\.txt: .*not an Arrow file/u],
    ["a profile", [serve, "--weights", "traces/profiles/gpt2-h200.arrow"], /tandem\.format: "profile"/u],
    ["a text without weights", [serve, "--text", text], /--text.*together with --weights/u],
    [
      "offloaded experts",
      ["scenarios/agree/expert-offload.yaml", "--weights", text],
      /task: expert-offload .*kv-serving with --weights/u
    ]
  ])("refuse %s", (_, args, message) => {
    const { status, stdout, stderr } = exec("generate", ...args)
    expect(stderr).toMatch(message)
    expect([status, stdout]).toEqual([2, ""])
  })

  it("refuse a rank whose weights or text are others", async () => {
    const others = path.join(folder, "others.arrow")
    expect(exec("train", train, "--steps", "1", "--seed", "5", "--save", others).status).toBe(0)
    const run = async (weightsOf1: string, textOf1: string) => {
      const [port, secret] = [await freePort(), freshSecret()]
      const start = (rank: number) => {
        // Files of one name that are not the same, as hosts may have them.
        const cwd = path.join(folder, `host ${rank}`)
        fs.mkdirSync(cwd, { recursive: true })
        fs.copyFileSync(rank === 0 ? weights : weightsOf1, path.join(cwd, "w.arrow"))
        fs.writeFileSync(path.join(cwd, "t.txt"), rank === 0 ? fs.readFileSync(text) : textOf1)
        const apart = "transfer={to: node, bandwidth: 1Gbit/s, latency: 100us}"
        const args = ["generate", serve, "--weights", "w.arrow", "--text", "t.txt", "--set", apart]
        const child = spawn(process.execPath, [path.join(root, "bin/exec.js"), ...args], {
          cwd,
          env: { ...process.env, ...variablesOf(rank, 2, "127.0.0.1", port, secret) },
          stdio: ["ignore", "ignore", "pipe"]
        })
        let said = ""
        child.stderr.on("data", (more) => (said += String(more)))
        return new Promise((resolve) => child.on("close", (code) => resolve({ code, said })))
      }
      return Promise.all([start(0), start(1)])
    }
    const alike = fs.readFileSync(text, "utf8")
    const refusal = (option: string) => ({
      code: 1,
      said: expect.stringMatching(
        new RegExp(`${option} of rank 1 is \\w+ of \\d+ B, that of rank 0 is \\w+ of \\d+ B`, "u")
      )
    })
    expect(await run(others, alike)).toEqual([refusal("--weights"), refusal("--weights")])
    expect(await run(weights, "hgfedcba".repeat(200))).toEqual([refusal("--text"), refusal("--text")])
    expect(await run(weights, alike)).toMatchObject([{ code: 0 }, { code: 0 }])
  })

  it("refuse to save where nothing can be written, and layers of experts alone", () => {
    const nowhere = exec("train", train, "--save", "/nowhere/a.arrow")
    expect(nowhere.stderr).toMatch(/\/nowhere\/a\.arrow: --save/u)
    const experts = exec("train", "scenarios/agree/moe-training.yaml", "--save", weights)
    expect(experts.stderr).toMatch(/--save: .*layers of experts alone learn no text/u)
    expect([nowhere.status, experts.status]).toEqual([2, 2])
  })
})
