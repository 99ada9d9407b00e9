// Texts too large for a device: chunks take turns there, each rank's as seed, rank and step say, on every machine, whole or gone on
// from; and what a scenario may name as its files of tokens.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { afterAll, describe, expect, it } from "vitest"
import { readCorpus, type Corpus } from "../../core/algorithms/data-parallel/corpus.ts"
import { Machine } from "../../core/machine/machine.ts"
import { InputError } from "../../core/input-error.ts"
import { loadCorpus, type CorpusSettings } from "../../scenarios/corpus.ts"
import { corpusOf } from "../../scenarios/text.ts"
import { describeContract, runOn } from "../contract/machines.ts"

const folder = mkdtempSync(path.join(tmpdir(), "corpus-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Five chunks of four tokens; a chunk's tokens are its number. */
const numbered: Corpus = {
  tokens: 20,
  chunkTokens: 4,
  chunk: (index) => new Int32Array(4).fill(index)
}

describeContract("a corpus in chunks", (machine) => {
  const ranks = 2
  /** The chunk that each rank has at each step. */
  const seen = async (steps: number, from = 0) => {
    const program = Effect.gen(function* () {
      const { read } = yield* Machine
      // Two steps draw as many tokens as a chunk has.
      const { tensor, turn } = yield* readCorpus(numbered, { seed: 3, stepTokens: 2 })
      const chunks: Array<number> = []
      for (let step = from; step < steps; step++) {
        yield* turn(step)
        const tokens = yield* read(tensor)
        expect(new Set(tokens).size).toBe(1)
        chunks.push(tokens[0]!)
      }
      return chunks
    })
    return (await runOn(machine, ranks, program)).ranks.map(({ value }) => value)
  }

  it("has every chunk on one rank once in a pass, and goes on from any step", async () => {
    const steps = 20
    const [first, second] = await seen(steps)
    const turns = Array.from({ length: steps / 2 }, (_, turn) => [
      first![2 * turn]!,
      second![2 * turn]!
    ]).flat()
    expect(first!.filter((_, step) => step % 2 === 1)).toEqual(first!.filter((_, step) => step % 2 === 0))
    // Ten turns of two ranks: four passes of five chunks.
    const passes = Array.from({ length: 4 }, (_, pass) => turns.slice(5 * pass, 5 * pass + 5))
    for (const pass of passes) expect(pass.toSorted()).toEqual([0, 1, 2, 3, 4])
    expect(new Set(passes.map((pass) => pass.join())).size).toBeGreaterThan(1)
    for (const from of [1, 7, 12])
      expect(await seen(steps, from)).toEqual([first!.slice(from), second!.slice(from)])
  })
})

describe("files that a scenario names", () => {
  const scenario = path.join(folder, "scenario.yaml")
  const model = { context: 4, vocabulary: 100 }
  const write = (name: string, tokens: ReadonlyArray<number>): void =>
    writeFileSync(path.join(folder, name), new Uint8Array(Uint16Array.from(tokens).buffer))
  const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)
  write("train_0.bin", range(0, 30))
  write("train_1.bin", range(30, 61))
  write("val.bin", range(61, 80))
  write("foreign.bin", [...range(0, 50), 100])
  writeFileSync(path.join(folder, "a.txt"), "abc".repeat(10))
  writeFileSync(path.join(folder, "b.txt"), "xyz".repeat(10))
  const settings: CorpusSettings = { tokenDtype: "uint16", chunkTokens: 2 ** 24, heldOut: 0.1 }
  const load = (more: Partial<CorpusSettings>) =>
    Effect.runSync(loadCorpus({ ...settings, ...more }, model, scenario))
  const refusal = (more: Partial<CorpusSettings>): string => {
    const error = Effect.runSync(Effect.flip(loadCorpus({ ...settings, ...more }, model, scenario)))
    expect(error).toBeInstanceOf(InputError)
    return error.message
  }

  it("are read in the order of their names, their end held out, or other files", () => {
    const { train, heldOut, characters } = load({ tokens: "train_*.bin" })
    expect([...train.chunk(0), ...heldOut]).toEqual(range(0, 61))
    expect([train.tokens, heldOut.length, characters]).toEqual([55, 6, []])
    const split = load({ tokens: "train_*.bin", heldOutTokens: "val.bin" })
    expect([...split.train.chunk(0)]).toEqual(range(0, 61))
    expect([...split.heldOut]).toEqual(range(61, 80))
    expect(load({ text: "*.txt", heldOut: 0 }).characters).toEqual([..."abcxyz"])
  })

  it("are cut into chunks of equal length where they have more tokens than lie on a device", () => {
    const { train } = load({ tokens: "train_*.bin", heldOutTokens: "val.bin", chunkTokens: 25 })
    expect([train.tokens, train.chunkTokens]).toEqual([60, 20])
    expect([0, 1, 2].flatMap((index) => [...train.chunk(index)])).toEqual(range(0, 60))
  })

  it("are told from others", () => {
    const { source } = load({ tokens: "train_0.bin" })
    expect(load({ tokens: "train_*.bin" }).source).not.toEqual(source)
    write("train_0.bin", [1, ...range(1, 30)])
    expect(load({ tokens: "train_0.bin" }).source).not.toEqual(source)
    write("train_0.bin", range(0, 30))
    expect(load({ tokens: "train_0.bin" }).source).toEqual(source)
  })

  it.each<readonly [string, Partial<CorpusSettings>, RegExp]>([
    [
      "tokens that the model has not",
      { tokens: "foreign.bin", heldOut: 0 },
      /foreign\.bin: token 50: 100 .* below the model's vocabulary of 100/u
    ],
    [
      "a pattern that nothing has",
      { tokens: "none_*.bin" },
      /training\.tokens: none_\*\.bin is not accepted; expected a pattern/u
    ],
    ["a file that is not there", { tokens: "none.bin" }, /training\.tokens: .*none\.bin \(file is missing/u],
    [
      "a text beside tokens",
      { tokens: "val.bin", text: "a.txt" },
      /training\.text: a\.txt .* nothing beside training\.tokens/u
    ],
    [
      "held-out tokens beside a text",
      { heldOutTokens: "val.bin" },
      /training\.heldOutTokens: .* training\.tokens beside it/u
    ],
    [
      "less than a window",
      { tokens: "val.bin", heldOut: 0.9 },
      /2 tokens to train on\) .* more tokens than the 4 of a window/u
    ],
    [
      "chunks smaller than a window",
      { tokens: "val.bin", chunkTokens: 3 },
      /training\.chunkTokens: 3 .* more than the 4 tokens/u
    ]
  ])("refuses %s", (_, more, message) => {
    expect(refusal(more)).toMatch(message)
  })
})

it("a text's tokens are its characters, whatever their code points, numbered in order", () => {
  let astral = 0
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), fc.double({ min: 0, max: 1, noNaN: true }), (text, share) => {
      const { characters, train, heldOut } = corpusOf(text, share)
      const all = [...text]
      expect([...train, ...heldOut].map((token) => characters[token])).toEqual(all)
      expect(heldOut).toHaveLength(all.length - Math.round(all.length * (1 - share)))
      const points = characters.map((character) => character.codePointAt(0)!)
      expect(points).toEqual([...new Set(points)].toSorted((a, b) => a - b))
      if (text.length > all.length) astral++
    })
  )
  expect(astral).toBeGreaterThan(20)
})
