// The world's links as the engine sees them, and what a collective does on them: its phases, each a coupled flow over
// every link it crosses. Knows nothing of programs or layers.
import { onOneNode, type LinkSpec, type World } from "../world.ts"
import {
  bothWays,
  chainOver,
  farthestHops,
  ringOver,
  stepsAlong,
  stepsOfTrees,
  treesOver,
  wireUnits,
  type Hop,
  type Rounds,
  type Step
} from "./hops.ts"
import { Delays } from "./delays.ts"
import { hierarchyOver } from "./hierarchy.ts"
import { pairLinks } from "./pair-links.ts"
import type { Classes, Symmetry } from "./symmetry.ts"
import { Windows, type Held, type Turns } from "./windows.ts"

/** How a collective is laid out on the wire. */
export const collectiveAlgorithms = ["ring", "tree", "hierarchical", "direct"] as const
/** One of `collectiveAlgorithms`. */
export type CollectiveAlgorithm = (typeof collectiveAlgorithms)[number]

/** Interchangeable links, of which the first is simulated. */
interface LinkClass {
  readonly name: string
  readonly tier: "intra" | "inter" | "wan"
  /** Direction as seen from the rank, node or site that owns it. */
  readonly direction: "out" | "in"
  readonly spec: LinkSpec
  /** How many links of the world it stands for. */
  readonly count: number
}

/** What a class of links carried in a run. */
export interface LinkResult {
  readonly name: string
  readonly tier: "intra" | "inter" | "wan"
  /** Links of the world this row stands for. */
  readonly count: number
  /** Bytes over all of them, in the whole run; exact. */
  readonly bytes: number
  /** Time during which something was in flight on one of them. */
  readonly busySeconds: number
}

/** One stretch of a collective: pay the latency, then move `unitsPerByte * sizeBytes` through every link at once. */
export interface Phase {
  readonly latencySeconds: number
  /** The same with the links as they are now, after `setLink`. */
  readonly latencyNowSeconds: () => number
  /** How much longer windows let it take, of flow bytes. */
  readonly held: Held
  /** Of rings of even parts: the steps that bytes make, one after another, and the delay of the farthest. */
  readonly turns: Turns | undefined
  /** Flow bytes per byte of the op's `sizeBytes`. */
  readonly unitsPerByte: number
  /** Link classes crossed, and on the busiest link of each class the bytes per flow byte. */
  readonly links: Int32Array
  readonly weights: Float64Array
  /** Per entry of `links`: bytes per flow byte summed over all links of the class, for exact accounting. */
  readonly totals: Float64Array
  /** Which collective it is by itself, of how many ranks, and what share of the op's bytes one of them puts in. */
  readonly like: PhaseKind
}

interface PhaseKind {
  readonly kernel: string
  readonly ranks: number
  readonly share: number
}

/** Where one tier's links begin among all links of the world, per direction. */
interface Tier {
  readonly out: number
  readonly in: number
}

/** A world's links, interchangeable ones as one, and what each collective puts on them. */
export class Network {
  readonly links: ReadonlyArray<LinkClass>
  /** Which ranks it takes to be interchangeable. */
  readonly ranks: Classes
  readonly #world: World
  /** Class of every single link of the world. */
  readonly #classOf: Int32Array
  readonly #intra: Tier
  readonly #inter: Tier
  readonly #wan: Tier | undefined
  readonly #pairs: ReadonlyMap<string, number> | undefined
  /** Per link class, as changed by `setLink`. */
  readonly #latencies: Float64Array
  readonly #rates: Float64Array
  readonly #delays: Delays
  readonly #windows: Windows
  readonly #known = new WeakMap<object, Map<string, ReadonlyArray<Phase>>>()

  constructor(world: World, symmetry: Symmetry) {
    this.#world = world
    this.ranks = symmetry.ranks
    const links: Array<LinkClass> = []
    const classOf: Array<number> = []
    const tier = (name: LinkClass["tier"], owner: string, classes: Classes, spec: LinkSpec): Tier => {
      const begin = { out: 0, in: 0 }
      for (const direction of ["out", "in"] as const) {
        const first = links.length
        classes.representatives.forEach((representative, id) => {
          const single = classes.sizes.length === 1 ? "" : ` ${owner} ${representative}`
          links.push({
            name: `${name} ${direction}${single}`,
            tier: name,
            direction,
            spec,
            count: classes.sizes[id]!
          })
        })
        begin[direction] = classOf.length
        for (const id of classes.classOf) classOf.push(first + id)
      }
      return begin
    }
    this.#intra = tier("intra", "rank", symmetry.ranks, world.links.intra)
    this.#inter = tier("inter", "node", symmetry.nodes, world.links.inter)
    const wan = world.sites.length > 1 ? world.links.wan : undefined
    const ofPairs = wan !== undefined && "pairs" in wan ? pairLinks(world, wan) : undefined
    this.#wan = wan === undefined || "pairs" in wan ? undefined : tier("wan", "site", symmetry.sites, wan)
    this.#pairs =
      ofPairs &&
      new Map(
        ofPairs.map(({ from, to, name, spec }) => {
          links.push({ name, tier: "wan", direction: "out", spec, count: 1 })
          return [`${from} ${to}`, classOf.push(links.length - 1) - 1] as const
        })
      )
    this.links = links
    this.#latencies = Float64Array.from(links, ({ spec }) => spec.latencySeconds)
    this.#rates = Float64Array.from(links, ({ spec }) => spec.bytesPerSecond)
    this.#classOf = Int32Array.from(classOf)
    // A tier's delay is that of the whole crossing, so its far end adds nothing.
    this.#delays = new Delays(
      (a, b) => this.path(a, b).filter((link) => links[link]!.direction === "out"),
      (link) => this.#latencies[link]!
    )
    this.#windows = new Windows(
      (a, b) => this.path(a, b),
      (a, b) => this.latencySeconds(a, b),
      links.map(({ spec }) => spec.windowBytes ?? Infinity)
    )
  }

  /** Single links, by their index in `#classOf`, that a message from rank `a` to rank `b` crosses. */
  #path(a: number, b: number): ReadonlyArray<number> {
    if (a === b) return []
    const world = this.#world
    const nodeA = world.nodeOf[a]!
    const nodeB = world.nodeOf[b]!
    if (nodeA === nodeB) return [this.#intra.out + a, this.#intra.in + b]
    const out = this.#inter.out + nodeA
    const into = this.#inter.in + nodeB
    const siteA = world.siteOf[a]!
    const siteB = world.siteOf[b]!
    if (siteA === siteB) return [out, into]
    const pair = this.#pairs?.get(`${siteA} ${siteB}`)
    if (pair !== undefined) return [out, pair, into]
    if (this.#wan !== undefined) return [out, this.#wan.out + siteA, this.#wan.in + siteB, into]
    return [out, into]
  }

  /** From now on, this class of links is such. */
  setLink(link: number, { bytesPerSecond, latencySeconds }: LinkSpec): void {
    this.#rates[link] = bytesPerSecond
    this.#latencies[link] = latencySeconds
  }

  bytesPerSecondNow(link: number): number {
    return this.#rates[link]!
  }

  /** Link classes of a tier, both directions: of one rank, node or site, or all. */
  linksOf(tier: LinkClass["tier"], owner: number | undefined): ReadonlyArray<number> {
    const begin = { intra: this.#intra, inter: this.#inter, wan: this.#wan }[tier]
    if (owner === undefined || begin === undefined) {
      if (tier === "wan" && owner !== undefined && this.#pairs !== undefined) {
        // A site's links are those of every pair it is one of.
        return [...this.#pairs].flatMap(([pair, link]) =>
          pair.split(" ").includes(String(owner)) ? [this.#classOf[link]!] : []
        )
      }
      return this.links.flatMap((link, id) => (link.tier === tier ? [id] : []))
    }
    return [...new Set([this.#classOf[begin.out + owner]!, this.#classOf[begin.in + owner]!])]
  }

  /** Link classes that a message from rank `a` to rank `b` crosses, in order. */
  path(a: number, b: number): ReadonlyArray<number> {
    return this.#path(a, b).map((link) => this.#classOf[link]!)
  }

  /** They are all of one node. */
  onOneNode(ranks: ReadonlyArray<number>): boolean {
    return onOneNode(this.#world, ranks)
  }

  /** No byte of it leaves a node. */
  staysInside({ links }: Phase): boolean {
    return links.every((link) => this.links[link]!.tier === "intra")
  }

  /** One-way delay from rank `a` to rank `b`: that of each tier crossed, counted once. */
  latencySeconds(a: number, b: number): number {
    return this.#delays.between(a, b)
  }

  /**
   * What a collective moves. `kernel` is the collective's name; `sizeBytes` of the op is one rank's input.
   *
   * Ring (Patarasuk and Yuan, 2009): all-reduce 2(n-1) steps of size/n; reduce-scatter, all-gather n-1 steps. Every hop carries as
   * much at each, so the whole ring advances at one rate: a coupled flow, after the delays of as many hops one after another. Tree (NCCL's double binary
   * tree): the message goes along the ranks of each node, up and down trees over the nodes, and back, over 2 (m-1) hops of m ranks
   * on a node and 2 log2(nodes) between them; of unlike hops the longest way counts, and along a chain each hop once. Hierarchical: reduce-scatter inside each
   * node, then inside each site, all-reduce of the shards across, and back; where nodes or sites are of unlike sizes, all of it along
   * chains to the first of each and back. Direct: every pair at once, in one step for each
   * of reduce-scatter and all-gather, as this project's processes do it. Sums are not rounded to what was sent: they travel in the
   * dtype of what comes out; where everything to everybody is fewer bytes than that, or as many, as of two members it is, and no more
   * than `oneShotBytes`, each adds for itself, in one step. A direct broadcast gives each member a share that
   * it hands on. All-to-all: every pair at once.
   *
   * Tree and hierarchical are ways of an all-reduce; other collectives go around a ring then, a broadcast along a chain.
   *
   * @param groups groups of equal size that do the same at the same time, as one flow over the links of all
   * @param from position in each group of the member whose bytes the others get, for a broadcast and a message
   * @param widening bytes of sums per byte that is sent; of a direct all-reduce alone
   * @param short whether the op's bytes are no more than `oneShotBytes`; of a direct all-reduce alone
   */
  phases(
    kernel: string,
    algorithm: CollectiveAlgorithm,
    groups: ReadonlyArray<ReadonlyArray<number>>,
    from = 0,
    widening = 1,
    short = false
  ): ReadonlyArray<Phase> {
    let known = this.#known.get(groups)
    if (known === undefined) this.#known.set(groups, (known = new Map()))
    const key = `${kernel} ${algorithm} ${from} ${widening} ${short}`
    let phases = known.get(key)
    if (phases === undefined)
      known.set(key, (phases = this.#makePhases(kernel, algorithm, groups, from, widening, short)))
    return phases
  }

  #makePhases(
    kernel: string,
    algorithm: CollectiveAlgorithm,
    groups: ReadonlyArray<ReadonlyArray<number>>,
    from: number,
    widening: number,
    short: boolean
  ): ReadonlyArray<Phase> {
    const n = groups[0]!.length
    if (n < 2) return []
    const whole = { kernel, ranks: n, share: 1 }
    switch (kernel) {
      case "all_reduce": {
        if (algorithm === "hierarchical")
          return hierarchyOver(groups, [this.#world.nodeOf, this.#world.siteOf]).map(
            ({ hops, unitsPerByte, steps, like }) => this.#hops(hops, unitsPerByte, steps, like)
          )
        if (algorithm === "tree") return [this.#tree(groups)]
        if (algorithm === "direct") {
          if (n < 1 + widening || (n === 1 + widening && short))
            return [this.#pairwise(groups, 1, widening === 1 ? whole : { ...whole, kernel: "all_gather" })]
          // Of two members half goes each way, and half of the sums: one flow of all the bytes, which waits for the farthest hop twice.
          if (n === 1 + widening && widening === 1) return [this.#pairwise(groups, 1, whole, 2)]
          return [
            this.#pairwise(groups, 1 / n, { kernel: "reduce_scatter", ranks: n, share: 1 }),
            this.#pairwise(groups, widening / n, { kernel: "all_gather", ranks: n, share: widening / n })
          ]
        }
        return [this.#ring(groups, wireUnits(kernel, n), 2 * (n - 1), whole)]
      }
      case "reduce_scatter":
      case "all_gather":
        if (algorithm === "direct")
          return [this.#pairwise(groups, kernel === "all_gather" ? 1 : 1 / n, whole)]
        return [this.#ring(groups, wireUnits(kernel, n), n - 1, whole)]
      case "broadcast": {
        const ordered = groups.map((ranks) => [...ranks.slice(from), ...ranks.slice(0, from)])
        if (algorithm === "direct") return [this.#shares(ordered, whole)]
        return [this.#chain(ordered, whole)]
      }
      case "all_to_all":
        return [this.#pairwise(groups, 1 / n, whole)]
      case "send_recv":
        return [this.#chain(from === 0 ? groups : groups.map((ranks) => ranks.toReversed()), whole)]
      default:
        throw new RangeError(`no wire model for collective "${kernel}"`)
    }
  }

  /**
   * A collective whose members put in, or get, different numbers of rows. `rows`: for an all-to-all what each member sends
   * to each, otherwise what each has. The flow's bytes are those of one row.
   */
  unevenPhase(
    kernel: string,
    ranks: ReadonlyArray<number>,
    rows: ReadonlyArray<ReadonlyArray<number>>
  ): Phase {
    const n = ranks.length
    const like = { kernel, ranks: n, share: 1 }
    const crossings = new Float64Array(this.#classOf.length)
    const carry = (from: number, to: number, amount: number): void => {
      for (const link of this.#path(ranks[from]!, ranks[to]!)) crossings[link]! += amount
    }
    if (kernel === "all_to_all") {
      const hops: Array<Hop> = []
      const amounts: Array<number> = []
      rows.forEach((row, from) =>
        row.forEach((amount, to) => {
          if (amount === 0) return
          amounts.push(amount)
          hops.push([ranks[from]!, ranks[to]!])
          carry(from, to, amount)
        })
      )
      const held = this.#windows.over(hops, 1, (hop) => amounts[hop]!)
      return this.#phase(crossings, 1, this.#delays.farthest(hops, 1), held, like)
    }
    const counts = rows[0]!
    const total = counts.reduce((sum, count) => sum + count, 0)
    // Around a ring every block crosses every hop but the one into the rank that holds it (all-gather), or out of it.
    const amount = (i: number): number =>
      total - (kernel === "all_gather" ? counts[(i + 1) % n]! : counts[i]!)
    if (n > 1) for (let i = 0; i < n; i++) carry(i, (i + 1) % n, amount(i))
    // A block begins at the rank that holds it, or at the one after that whose sum it is.
    const begins = [...counts.keys()].filter(
      (i) => counts[kernel === "all_gather" ? i : (i + n - 1) % n]! > 0
    )
    const latency = this.#delays.around({ rings: [ranks], steps: n - 1, begins })
    return this.#phase(crossings, 1, latency, this.#windows.over(ringOver(ranks), n - 1, amount), like)
  }

  #ring(
    groups: ReadonlyArray<ReadonlyArray<number>>,
    unitsPerByte: number,
    steps: number,
    like: PhaseKind
  ): Phase {
    return this.#hops(groups.flatMap(ringOver), unitsPerByte, { rings: groups, steps }, like)
  }

  /** The first of each group is where the bytes come from. */
  #chain(groups: ReadonlyArray<ReadonlyArray<number>>, like: PhaseKind): Phase {
    return this.#hops(groups.flatMap(chainOver), 1, stepsAlong(groups), like)
  }

  /**
   * Two complementary binary trees over the nodes' first ranks, each carrying half the message up and down; on a node it goes from
   * rank to rank along a chain, half for each tree, as NCCL lays it out.
   */
  #tree(groups: ReadonlyArray<ReadonlyArray<number>>): Phase {
    const nodes = groups.map((ranks) => [...Map.groupBy(ranks, (rank) => this.#world.nodeOf[rank]!).values()])
    const trees = nodes.map((own) => treesOver(own.map(([head]) => head!)))
    const between = bothWays(trees.flat(2))
    const inside = bothWays(nodes.flat().flatMap(chainOver))
    const latency = this.#delays.longest(nodes.map((own, group) => stepsOfTrees(trees[group]!, own)))
    const crossings = new Float64Array(this.#classOf.length)
    const hops = [...between, ...inside, ...inside]
    for (const [a, b] of hops) for (const link of this.#path(a, b)) crossings[link]! += 1
    const like = { kernel: "all_reduce", ranks: groups[0]!.length, share: 1 }
    return this.#phase(crossings, 0.5, latency, this.#windows.over(hops, 1), like)
  }

  /** Every pair of each group at once, each with its flow. */
  #pairwise(
    groups: ReadonlyArray<ReadonlyArray<number>>,
    unitsPerByte: number,
    like: PhaseKind,
    steps = 1
  ): Phase {
    const crossings = new Float64Array(this.#classOf.length)
    const hops = groups.flatMap((ranks) => this.#crossPairs(ranks, crossings))
    return this.#phase(
      crossings,
      unitsPerByte,
      this.#delays.farthest(hops, steps),
      this.#windows.over(hops, steps),
      like
    )
  }

  /** The first of each group sends every other its share and that one's own, which these hand to each other. */
  #shares(groups: ReadonlyArray<ReadonlyArray<number>>, like: PhaseKind): Phase {
    const crossings = new Float64Array(this.#classOf.length)
    const hops = groups.flatMap(([root, ...others]) => {
      const between = this.#crossPairs(others, crossings)
      for (const rank of others) for (const link of this.#path(root!, rank)) crossings[link]! += 2
      return [...others.map((rank): Hop => [root!, rank]), ...between]
    })
    const roots = new Set(groups.map(([root]) => root!))
    const held = this.#windows.over(hops, 1, (hop) => (roots.has(hops[hop]![0]) ? 2 : 1))
    return this.#phase(crossings, 1 / like.ranks, this.#delays.farthest(hops, 2), held, like)
  }

  /** Delay of the farthest way between two ranks of a group. */
  farthest(groups: ReadonlyArray<ReadonlyArray<number>>): () => number {
    const none = new Float64Array(this.#classOf.length)
    return this.#delays.farthest(
      groups.flatMap((ranks) => this.#crossPairs(ranks, none)),
      1
    )
  }

  /**
   * Adds what one crossing from every rank to every other puts on each link: counted, not listed, for there are n(n-1). Hops
   * among which is the farthest.
   */
  #crossPairs(ranks: ReadonlyArray<number>, crossings: Float64Array): ReadonlyArray<Hop> {
    const { nodeOf, siteOf } = this.#world
    const n = ranks.length
    const cross = (tier: Tier | undefined, owner: number, pairs: number): void => {
      if (tier === undefined) return
      crossings[tier.out + owner]! += pairs
      crossings[tier.in + owner]! += pairs
    }
    const sites = Map.groupBy(ranks, (rank) => siteOf[rank]!)
    const nodes = Map.groupBy(ranks, (rank) => nodeOf[rank]!)
    for (const [node, members] of nodes) {
      for (const rank of members) cross(this.#intra, rank, members.length - 1)
      cross(this.#inter, node, members.length * (n - members.length))
    }
    for (const [site, members] of sites) {
      cross(this.#wan, site, members.length * (n - members.length))
      if (this.#pairs === undefined) continue
      for (const [other, others] of sites) {
        const pair = this.#pairs.get(`${site} ${other}`)
        if (pair !== undefined) crossings[pair]! += members.length * others.length
      }
    }
    return farthestHops(nodes, sites, nodeOf, this.#pairs !== undefined)
  }

  /** A coupled flow over all hops, each of which carries the flow's bytes once, and waits for the longest way that a message makes. */
  #hops(
    hops: ReadonlyArray<Hop>,
    unitsPerByte: number,
    steps: Rounds | ReadonlyArray<Step>,
    like: PhaseKind
  ): Phase {
    const crossings = new Float64Array(this.#classOf.length)
    for (const [a, b] of hops) for (const link of this.#path(a, b)) crossings[link]! += 1
    // Along a chain the bytes go as one stream.
    if (!("rings" in steps)) {
      const latency = this.#delays.longest([steps])
      return this.#phase(crossings, unitsPerByte, latency, this.#windows.over(hops, 1), like)
    }
    const latency = this.#delays.around(steps)
    const turns = { steps: steps.steps, farthestSeconds: this.#delays.farthest(hops, 1) }
    return this.#phase(crossings, unitsPerByte, latency, this.#windows.over(hops, steps.steps), like, turns)
  }

  /** A phase from how often a byte of the flow crosses each single link of the world. */
  #phase(
    crossings: Float64Array,
    unitsPerByte: number,
    latency: () => number,
    held: Held,
    like: PhaseKind,
    turns?: Turns
  ): Phase {
    const busiest = new Float64Array(this.links.length)
    const totals = new Float64Array(this.links.length)
    crossings.forEach((count, link) => {
      const id = this.#classOf[link]!
      totals[id]! += count
      if (count > busiest[id]!) busiest[id] = count
    })
    const links: Array<number> = []
    totals.forEach((total, id) => {
      if (total > 0) links.push(id)
    })
    return {
      latencySeconds: latency(),
      latencyNowSeconds: latency,
      held,
      turns,
      unitsPerByte,
      like,
      links: Int32Array.from(links),
      weights: Float64Array.from(links, (id) => busiest[id]!),
      totals: Float64Array.from(links, (id) => totals[id]!)
    }
  }
}
