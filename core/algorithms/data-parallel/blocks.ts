// Which repeated module of a model a layer is in: what people call its layers. Knows layers as module paths alone.

/** A path whose last part ends in a number, without it: what it is one of. */
const kindOf = (path: ReadonlyArray<string>, depth: number): string | undefined => {
  const numbered = /^(.*?)\d+$/.exec(path[depth]!)
  return numbered === null ? undefined : [...path.slice(0, depth), numbered[1]].join(".")
}

/**
 * The block of each layer: the outermost module around it that has siblings of its kind, as in `transformer.h.3.mlp.c_fc` or
 * `GPT2Model_0.GPT2Block_3.Conv1D_12`; undefined for a layer in none. A kind is a path whose last part ends in a number; a leaf
 * is no block. Where that module is nothing but a list of modules alike (a ResNet's stages, `layer1.0.conv1`), its blocks are these.
 */
export const blocksOf = (names: ReadonlyArray<string>): ReadonlyArray<string | undefined> => {
  const siblings = new Map<string, Set<string>>()
  const paths = names.map((name) => name.split("."))
  for (const path of paths) {
    for (let depth = 0; depth < path.length - 1; depth++) {
      const kind = kindOf(path, depth)
      if (kind === undefined) continue
      const known = siblings.get(kind)
      if (known === undefined) siblings.set(kind, new Set([path[depth]!]))
      else known.add(path[depth]!)
    }
  }
  const depths = paths.map((path) => {
    for (let depth = 0; depth < path.length - 1; depth++) {
      const kind = kindOf(path, depth)
      if (kind !== undefined && siblings.get(kind)!.size > 1) return depth
    }
    return undefined
  })
  const stages = stagesOf(paths, depths)
  const upTo = (path: ReadonlyArray<string>, depth: number): string => path.slice(0, depth + 1).join(".")
  const blocks = paths.map((path, index) => {
    const depth = depths[index]
    return depth === undefined ? undefined : upTo(path, stages.has(upTo(path, depth)) ? depth + 1 : depth)
  })
  // What a block does itself, between its parts, bears its own name: "GPT2Block_3", "GPT2Block_3#2".
  const known = new Set(blocks)
  return blocks.map((block, index) => {
    const own = names[index]!.replace(/#\d+$/, "")
    return known.has(own) ? own : block
  })
}

/** What is directly below a repeated module. */
interface Below {
  /** Undefined for what is no numbered module. */
  readonly kinds: Set<string | undefined>
  /** Modules with what they have inside them, numbers aside. */
  readonly modules: Map<string, Set<string>>
}

/** Repeated modules, by path, of which each layer is in a numbered module directly below: of one kind, alike, and several somewhere. */
const stagesOf = (
  paths: ReadonlyArray<ReadonlyArray<string>>,
  depths: ReadonlyArray<number | undefined>
): ReadonlySet<string> => {
  const below = new Map<string, Below>()
  const withoutTimes = (name: string): string => name.replace(/#\d+$/, "")
  /** Modules that have layers in them, which work of their own bears the name of, too. */
  const holders = new Set(
    paths.flatMap((path) => path.slice(1).map((_, i) => path.slice(0, i + 1).join(".")))
  )
  paths.forEach((path, index) => {
    const depth = depths[index]
    if (depth === undefined) return
    const module = path.slice(0, depth + 1).join(".")
    const found = below.get(module) ?? { kinds: new Set(), modules: new Map() }
    below.set(module, found)
    const child = withoutTimes(path.slice(0, depth + 2).join("."))
    found.kinds.add(holders.has(child) ? kindOf(child.split("."), depth + 1) : undefined)
    const parts = found.modules.get(child) ?? new Set()
    found.modules.set(child, parts)
    const inside = path.slice(depth + 2).map((part) => withoutTimes(part).replace(/\d+$/, ""))
    if (inside.length > 0) parts.add(inside.join("."))
  })
  const lists = [...below].filter(
    ([, { kinds, modules }]) => kinds.size === 1 && !kinds.has(undefined) && areAlike([...modules.values()])
  )
  return lists.some(([, { modules }]) => modules.size > 1)
    ? new Set(lists.map(([module]) => module))
    : new Set()
}

/** Half of what each has, or more, all have: a block that also scales down is one of its kind, attention and a feed-forward part are not. */
const areAlike = (modules: ReadonlyArray<ReadonlySet<string>>): boolean => {
  const common = [...modules[0]!].filter((part) => modules.every((other) => other.has(part)))
  return modules.every(({ size }) => 2 * common.length >= size)
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
