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

  it("are the blocks of stages, which are nothing but lists of them", () => {
    const blocks = (...names: ReadonlyArray<string>) => blocksOf(names)
    // A ResNet's, by its modules' paths; a block that scales down has more in it, and a stage may have one block.
    expect(
      blocks("conv1", "layer1.0.conv1", "layer1.0.bn1", "layer1.1.conv1", "layer1.1.bn1", "layer2.0.conv1")
    ).toEqual([undefined, "layer1.0", "layer1.0", "layer1.1", "layer1.1", "layer2.0"])
    expect(
      blocks("layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1", "layer2.0.down.0", "layer2.1.conv1")
    ).toEqual(["layer1.0", "layer1.1", "layer2.0", "layer2.0", "layer2.1"])
    // As traces name them, with work of a block's own between its parts.
    expect(
      blocks(
        "Seq_0.Block_0.Conv_1",
        "Seq_0.Block_0",
        "Seq_0.Block_1.Conv_2",
        "Seq_0.Block_1#2",
        "Seq_1.Block_2.Conv_3"
      )
    ).toEqual(["Seq_0.Block_0", "Seq_0.Block_0", "Seq_0.Block_1", "Seq_0.Block_1", "Seq_1.Block_2"])
    // Modules with other parts than a list, those of one block each, and lists of unlike parts, are blocks themselves.
    const own = (...names: ReadonlyArray<string>) =>
      expect(blocks(...names)).toEqual(names.map((name) => name.split(".").slice(0, 2).join(".")))
    own("h.0.attn", "h.0.experts.0.w", "h.0.experts.1.w", "h.1.attn", "h.1.experts.0.w", "h.1.experts.1.w")
    own("h.0.norm", "h.0.0.w", "h.0.1.w", "h.1.norm", "h.1.0.w", "h.1.1.w")
    own(
      "h.0.0.qkv",
      "h.0.0.proj",
      "h.0.1.up",
      "h.0.1.down",
      "h.1.0.qkv",
      "h.1.0.proj",
      "h.1.1.up",
      "h.1.1.down"
    )
    own("h.0.0.w", "h.1.0.w")
    own("h.0.0", "h.0.1", "h.1.0", "h.1.1")
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
