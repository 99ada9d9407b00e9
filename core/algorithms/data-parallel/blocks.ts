// Which repeated module of a model a layer is in: what people call its layers. Knows layers as module paths alone.

/**
 * The block of each layer: the outermost module around it that has siblings of its kind, as in `transformer.h.3.mlp.c_fc` or
 * `GPT2Model_0.GPT2Block_3.Conv1D_12`; undefined for a layer in none. A kind is a path whose last part ends in a number; a leaf
 * is no block.
 */
export const blocksOf = (names: ReadonlyArray<string>): ReadonlyArray<string | undefined> => {
  const siblings = new Map<string, Set<string>>()
  const paths = names.map((name) => name.split("."))
  const kindOf = (path: ReadonlyArray<string>, depth: number): string | undefined => {
    const numbered = /^(.*?)\d+$/.exec(path[depth]!)
    return numbered === null ? undefined : [...path.slice(0, depth), numbered[1]].join(".")
  }
  for (const path of paths) {
    for (let depth = 0; depth < path.length - 1; depth++) {
      const kind = kindOf(path, depth)
      if (kind === undefined) continue
      const known = siblings.get(kind)
      if (known === undefined) siblings.set(kind, new Set([path[depth]!]))
      else known.add(path[depth]!)
    }
  }
  const blocks = paths.map((path) => {
    for (let depth = 0; depth < path.length - 1; depth++) {
      const kind = kindOf(path, depth)
      if (kind !== undefined && siblings.get(kind)!.size > 1) return path.slice(0, depth + 1).join(".")
    }
    return undefined
  })
  // What a block does itself, between its parts, bears its own name: "GPT2Block_3", "GPT2Block_3#2".
  const known = new Set(blocks)
  return blocks.map((block, index) => {
    const own = names[index]!.replace(/#\d+$/, "")
    return block ?? (known.has(own) ? own : undefined)
  })
}

/**
 * The model's layers as papers count them: its blocks, each with what is in none behind it, the first with what is before it too
 * (embeddings, the last norm, the head). Without blocks each layer by itself. Indices in forward order, ascending.
 */
export const wholeBlocks = (
  blocks: ReadonlyArray<string | undefined>
): ReadonlyArray<ReadonlyArray<number>> => {
  const first = blocks.find((block) => block !== undefined)
  if (first === undefined) return blocks.map((_, layer) => [layer])
  let current = first
  const dealt = Map.groupBy(blocks.keys(), (layer) => (current = blocks[layer] ?? current))
  return [...dealt.values()]
}
