// How a model is divided: which layers are a unit, and what cannot be divided.
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { describe, expect, it } from "vitest"
import { blocksOf, wholeBlocks } from "../../core/algorithms/data-parallel/blocks.ts"
import { unitsOf } from "../../core/algorithms/data-parallel/shard/units.ts"
import { makeWorld, unlimitedLinks, type World } from "../../core/world.ts"
import { resolveShards, ShardSettings } from "../../scenarios/families/data-parallel/shard-settings.ts"

/** Sites of one node each, of so many ranks. */
const sitesOf = (...ranks: ReadonlyArray<number>): World =>
  makeWorld(
    ranks.map((count, site) => ({ name: `site ${site}`, nodes: [count] })),
    unlimitedLinks
  )

describe("units", () => {
  it("are blocks, and the root for what is in none", () => {
    const traced = [
      "GPT2Model_0.Embedding_0",
      "GPT2Model_0.Embedding_1",
      "GPT2Model_0",
      "GPT2Model_0.GPT2Block_0.LayerNorm_0",
      "GPT2Model_0.GPT2Block_0.GPT2Attention_0.Conv1D_0",
      "GPT2Model_0.GPT2Block_0",
      "GPT2Model_0.GPT2Block_1.LayerNorm_2",
      "GPT2Model_0.GPT2Block_1#2",
      "GPT2Model_0.LayerNorm_24",
      "Linear_0"
    ]
    expect(blocksOf(traced)).toEqual([
      undefined,
      undefined,
      undefined,
      "GPT2Model_0.GPT2Block_0",
      "GPT2Model_0.GPT2Block_0",
      "GPT2Model_0.GPT2Block_0",
      "GPT2Model_0.GPT2Block_1",
      "GPT2Model_0.GPT2Block_1",
      undefined,
      undefined
    ])
    expect(
      unitsOf(["transformer.wte", "transformer.h.0.attn", "transformer.h.1.attn", "lm_head"], "block")
    ).toEqual([
      { name: "root", layers: [0, 3], root: true },
      { name: "transformer.h.0", layers: [1], root: false },
      { name: "transformer.h.1", layers: [2], root: false }
    ])
    expect(unitsOf(["layer 0", "layer 1"], "block").map(({ name }) => name)).toEqual(["layer 0", "layer 1"])
  })

  it("are whole blocks where every layer must be in one", () => {
    const names = [
      "wte",
      "wpe",
      "h.0.ln",
      "h.0.mlp",
      "drop",
      "h.1.ln",
      "h.0.after",
      "h.1.mlp",
      "ln_f",
      "head"
    ]
    expect(wholeBlocks(blocksOf(names))).toEqual([
      [0, 1, 2, 3, 4, 6],
      [5, 7, 8, 9]
    ])
    expect(wholeBlocks(blocksOf(["embed", "layer 0", "layer 1"]))).toEqual([[0], [1], [2]])
    expect(wholeBlocks([])).toEqual([])
  })
})

describe("what cannot be divided", () => {
  const names = ["m.embed", "m.h.0.a", "m.h.1.a"]
  const even = sitesOf(2, 2)
  const refusal = (given: object, world = even): string => {
    const settings = Schema.decodeUnknownSync(ShardSettings)(given)
    const found = resolveShards(settings, world, names, [], "a.yaml")
    return Result.isFailure(found) ? found.failure.message : ""
  }

  it("is refused by field, with what would be accepted", () => {
    expect(refusal({})).toBe("")
    expect(() => refusal({ optimizer: false })).toThrow("true")
    expect(refusal({ gradients: false })).toContain("shard.gradients")
    const uneven = sitesOf(2, 3)
    expect(refusal({ within: "site" }, uneven)).toContain("sites of equally many ranks")
    expect(refusal({ within: "world" }, uneven)).toBe("")
  })
})
