// A collective as one coupled flow against the same collective spelled out, hop by hop and step by step, on the engine.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { makeWorld, type LinkSpec, type World } from "../core/world.ts"
import { aloneSeconds } from "../core/wire/alone.ts"
import { Engine, type Activity } from "../sim/engine/engine.ts"
import { collectiveAlgorithms, Network } from "../core/wire/network.ts"
import { distinct, interchangeable } from "../core/wire/symmetry.ts"

const alike = { rank: () => "", node: () => "", site: () => "" }

/**
 * Finish time of a ring all-reduce of `sizeBytes` in which every message of every step is a flow of its own: a rank sends what it
 * has got, and as soon as its last message has left it, which is on its way for the hop's delay.
 */
const spelledOutRing = (world: World, sizeBytes: number): number => {
  const network = new Network(world, distinct(world))
  const engine = new Engine({
    network: "fluid",
    links: network.links.map(({ name, spec }) => ({
      name,
      bytesPerSecond: spec.bytesPerSecond,
      latencySeconds: 0
    }))
  })
  const n = world.size
  let before: ReadonlyArray<{ readonly left: Activity; readonly arrived: Activity }> = []
  for (let step = 0; step < 2 * (n - 1); step++) {
    const sends = Array.from({ length: n }, (_, rank) => {
      const next = (rank + 1) % n
      const left = engine.flow(engine.route(network.path(rank, next)), sizeBytes / n, 0)
      const arrived = engine.work(network.latencySeconds(rank, next))
      engine.after(arrived, left)
      if (step > 0) {
        engine.after(left, before[rank]!.left) // its own previous send
        engine.after(left, before[(rank + n - 1) % n]!.arrived) // the chunk it passes on
      }
      return { left, arrived }
    })
    for (const { left, arrived } of sends) {
      engine.release(arrived)
      engine.release(left)
    }
    before = sends
  }
  return engine.run()
}

const link = (bytesPerSecond: number, latencySeconds: number): LinkSpec => ({
  bytesPerSecond,
  latencySeconds
})

const worldOf = (sites: number, nodes: number, perNode: number, links: World["links"]): World =>
  makeWorld(
    Array.from({ length: sites }, (_, i) => ({
      name: `site ${i}`,
      nodes: Array.from({ length: nodes }, () => perNode)
    })),
    links
  )

const worlds = fc
  .record({
    sites: fc.integer({ min: 1, max: 3 }),
    nodes: fc.integer({ min: 1, max: 3 }),
    perNode: fc.integer({ min: 1, max: 3 }),
    intra: fc.record({ gigabytes: fc.integer({ min: 1, max: 400 }), micros: fc.nat(50) }),
    inter: fc.record({ gigabytes: fc.integer({ min: 1, max: 50 }), micros: fc.nat(500) }),
    wan: fc.record({ gigabytes: fc.integer({ min: 1, max: 10 }), micros: fc.nat(50_000) })
  })
  .filter(({ sites, nodes, perNode }) => sites * nodes * perNode > 1)
  .map(({ sites, nodes, perNode, intra, inter, wan }) =>
    worldOf(sites, nodes, perNode, {
      intra: link(intra.gigabytes * 1e9, intra.micros * 1e-6),
      inter: link(inter.gigabytes * 1e9, inter.micros * 1e-6),
      wan: link(wan.gigabytes * 1e9, wan.micros * 1e-6)
    })
  )

describe("ring all-reduce", () => {
  it("as a coupled flow equals the spelled-out ring where all hops are alike", () => {
    for (const n of [2, 3, 4, 8, 16]) {
      const world = worldOf(1, n, 1, { intra: link(1e12, 0), inter: link(1.25e8, 3e-4), wan: undefined })
      const coupled = aloneSeconds(
        new Network(world, interchangeable(world, alike)),
        "all_reduce",
        world.all,
        {
          algorithm: "ring"
        }
      )(1e8)
      // Patarasuk and Yuan: 2(n-1) steps of latency + size/n at full bandwidth.
      expect(coupled).toBeCloseTo(2 * (n - 1) * (3e-4 + 1e8 / n / 1.25e8), 9)
      expect(spelledOutRing(world, 1e8)).toBeCloseTo(coupled, 9)
    }
  })

  it("where hops differ, is slower than the spelled-out ring by at most what fills and drains it", () => {
    let uneven = 0
    fc.assert(
      fc.property(worlds, fc.integer({ min: 1, max: 1000 }), (world, megabytes) => {
        const sizeBytes = megabytes * 1e6
        const network = new Network(world, interchangeable(world, alike))
        const coupled = aloneSeconds(network, "all_reduce", world.all, { algorithm: "ring" })(sizeBytes)
        const exact = spelledOutRing(world, sizeBytes)
        // The coupled flow lets every step wait for the slowest hop, after all delays; spelled out, fast hops may run ahead.
        expect(exact).toBeLessThanOrEqual(coupled * (1 + 1e-9))
        // But the slowest hop still carries every chunk once each step.
        const n = world.size
        const slowest = Math.max(
          ...world.all.ranks.map((rank) => {
            const rates = network
              .path(rank, (rank + 1) % n)
              .map((id) => network.links[id]!.spec.bytesPerSecond)
            return sizeBytes / n / Math.min(...rates)
          })
        )
        expect(exact).toBeGreaterThanOrEqual(2 * (n - 1) * slowest * (1 - 1e-9))
        // And no message is sooner than its delays.
        const delays = aloneSeconds(network, "all_reduce", world.all, { algorithm: "ring" })(0)
        expect(exact).toBeGreaterThanOrEqual(delays * (1 - 1e-9))
        if (exact < coupled * (1 - 1e-6)) uneven++
      })
    )
    expect(uneven).toBeGreaterThan(5)
  })

  it("of next to nothing takes what the delays along the spelled-out ring's longest way are, wherever it is far", () => {
    const seen = { alike: 0, unlike: 0 }
    fc.assert(
      fc.property(worlds, (world) => {
        const network = new Network(world, interchangeable(world, alike))
        const coupled = aloneSeconds(network, "all_reduce", world.all, { algorithm: "ring" })(0)
        expect(coupled).toBeCloseTo(spelledOutRing(world, 0), 12)
        const hops = world.all.ranks.map((rank) => network.latencySeconds(rank, (rank + 1) % world.size))
        seen[new Set(hops).size === 1 ? "alike" : "unlike"]++
      })
    )
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(10)
    // Two sites of eight ranks: a message comes over the far hops about twice each.
    const wan = link(Infinity, 30e-3)
    const far = worldOf(2, 1, 8, { intra: link(Infinity, 1e-6), inter: link(Infinity, 0), wan })
    const network = new Network(far, interchangeable(far, alike))
    const all = (kernel: string) => aloneSeconds(network, kernel, far.all, { algorithm: "ring" })(0)
    expect(all("all_reduce")).toBeCloseTo(4 * 30e-3 + 26 * 1e-6, 12)
    expect(all("all_gather")).toBeCloseTo(2 * 30e-3 + 13 * 1e-6, 12)
  })

  it("of unlike members waits for those alone that have anything", () => {
    const far = worldOf(2, 1, 2, { intra: link(1, 1), inter: link(1, 0), wan: link(1, 100) })
    const network = new Network(far, distinct(far))
    const latency = (kernel: string, counts: ReadonlyArray<number>) =>
      network.unevenPhase(kernel, far.all.ranks, [counts]).latencySeconds
    // Hops in turn take 1, 100, 1 and 100 s. A block goes over all but that into its holder, or out of who sums it.
    expect(latency("all_gather", [1, 0, 0, 0])).toBe(102)
    expect(latency("all_gather", [0, 3, 0, 0])).toBe(201)
    expect(latency("all_gather", [1, 1, 1, 1])).toBe(201)
    expect(latency("reduce_scatter", [1, 0, 0, 0])).toBe(201)
    expect(latency("reduce_scatter", [0, 3, 0, 0])).toBe(102)
    expect(latency("all_gather", [0, 0, 0, 0])).toBe(0)
  })
})

describe("bytes on links", () => {
  it("are the same whether interchangeable links are counted once or each by itself", () => {
    fc.assert(
      fc.property(
        worlds,
        fc.constantFrom("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"),
        fc.constantFrom(...collectiveAlgorithms),
        (world, kernel, algorithm) => {
          const tierTotals = (network: Network) => {
            const totals = new Map<string, number>()
            for (const phase of network.phases(kernel, algorithm, [world.all.ranks])) {
              phase.links.forEach((id, i) => {
                const { tier, direction } = network.links[id]!
                const key = `${tier} ${direction}`
                totals.set(key, (totals.get(key) ?? 0) + phase.totals[i]! * phase.unitsPerByte)
              })
            }
            return [...totals].toSorted(([a], [b]) => a.localeCompare(b))
          }
          const once = tierTotals(new Network(world, interchangeable(world, alike)))
          const each = tierTotals(new Network(world, distinct(world)))
          expect(once.map(([key]) => key)).toEqual(each.map(([key]) => key))
          once.forEach(([, total], i) => expect(total).toBeCloseTo(each[i]![1], 9))
        }
      )
    )
  })

  it("of collectives between all pairs equal those listed one by one, whoever meets and whatever links are slow", () => {
    const slowed = { inside: 0, between: 0 }
    fc.assert(
      fc.property(
        worlds,
        fc.infiniteStream(fc.nat(1_000_000)),
        fc.constantFrom("all_to_all", "broadcast"),
        (world, draws, kernel) => {
          const draw = (): number => draws.next().value!
          const network = new Network(world, distinct(world))
          const drawn = world.all.ranks.map((rank) => ({ rank, place: draw() }))
          const group = drawn.toSorted((a, b) => a.place - b.place).map(({ rank }) => rank)
          const ranks = group.slice(0, 2 + (draw() % (group.length - 1)))
          const [phase] = network.phases(kernel, "direct", [ranks])
          // One link after another becomes slow; a delay is that of whoever is farthest apart then.
          for (const [id, { tier }] of network.links.entries()) {
            const listed = new Float64Array(network.links.length)
            let farthest = 0
            network.setLink(id, link(1, draw() * 1e-6))
            for (const [from, a] of ranks.entries())
              for (const [to, b] of ranks.entries()) {
                const times = kernel === "all_to_all" ? 1 : to === 0 ? 0 : from === 0 ? 2 : 1
                for (const link of network.path(a, b)) listed[link]! += times
                if (times > 0) farthest = Math.max(farthest, network.latencySeconds(a, b))
              }
            const counted = new Float64Array(network.links.length)
            phase!.links.forEach((link, i) => (counted[link] = phase!.totals[i]!))
            expect([...counted]).toEqual([...listed])
            expect(phase!.latencyNowSeconds()).toBe((kernel === "all_to_all" ? 1 : 2) * farthest)
            if (farthest > 1e-4) slowed[tier === "intra" ? "inside" : "between"]++
          }
        }
      )
    )
    expect(Math.min(...Object.values(slowed))).toBeGreaterThan(100)
  })

  it("of an all-reduce among unlike nodes are, on each, what it has to let in and out", () => {
    const seen = { nodes: 0, sites: 0 }
    const sizes = fc.array(fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 }), {
      minLength: 1,
      maxLength: 3
    })
    fc.assert(
      fc.property(sizes, fc.constantFrom("ring", "direct", "tree"), (sites, algorithm) => {
        const nodes = sites.flat()
        const total = (counts: ReadonlyArray<number>) => counts.reduce((sum, count) => sum + count, 0)
        const n = total(nodes)
        fc.pre(n > 1)
        const any = link(1, 0)
        const links = { intra: any, inter: any, wan: any }
        const world = makeWorld(
          sites.map((own, index) => ({ name: `site ${index}`, nodes: own })),
          links
        )
        const network = new Network(world, distinct(world))
        const found = { intra: [] as Array<number>, inter: [] as Array<number>, wan: [] as Array<number> }
        const bytes = new Float64Array(network.links.length)
        for (const phase of network.phases("all_reduce", algorithm, [world.all.ranks]))
          phase.links.forEach((id, i) => (bytes[id]! += phase.totals[i]! * phase.unitsPerByte))
        network.links.forEach(({ tier, direction }, id) => {
          if (direction === "out") found[tier].push(bytes[id]!)
        })
        // Of a message of one byte. A ring over ranks in node order leaves each node once, and each rank but a node's last inside it.
        const around = (2 * (n - 1)) / n
        const last = (index: number, rank: number) => nodes.length > 1 && rank === nodes[index]! - 1
        const each = (of: (index: number, rank: number) => number) =>
          nodes.flatMap((count, index) => Array.from({ length: count }, (_, rank) => of(index, rank)))
        const [intra, inter, wan] = {
          ring: [
            each((index, rank) => (last(index, rank) ? 0 : around)),
            nodes.map(() => (nodes.length > 1 ? around : 0)),
            sites.map(() => around)
          ],
          // A share to each other rank, and its sum back.
          direct: [
            each((index) => (2 * (nodes[index]! - 1)) / n),
            nodes.map((count) => (2 * count * (n - count)) / n),
            sites.map((own) => (2 * total(own) * (n - total(own))) / n)
          ],
          // Along each node's chain, all of it to each neighbour; in the trees half for each edge, of which nodes have two to four.
          tree: [
            each((index, rank) => Number(rank > 0) + Number(rank < nodes[index]! - 1)),
            undefined,
            undefined
          ]
        }[algorithm]
        const close = (counts: ReadonlyArray<number>) => counts.map((count) => expect.closeTo(count, 9))
        expect(found.intra).toEqual(close(intra!))
        if (inter === undefined) {
          expect(total(found.inter)).toBeCloseTo(2 * (nodes.length - 1), 9)
          if (nodes.length > 1)
            for (const out of found.inter) expect(out >= 1 && out <= 2, String(out)).toBe(true)
        } else expect(found.inter).toEqual(close(inter))
        if (wan !== undefined && sites.length > 1) expect(found.wan).toEqual(close(wan))
        if (new Set(nodes).size > 1) seen.nodes++
        if (new Set(sites.map(total)).size > 1) seen.sites++
      })
    )
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(40)
  })

  it("of many sites or ranks that all meet are soon counted", () => {
    const wan = link(1e9, 1e-3)
    const sites = worldOf(2000, 1, 1, { intra: link(1, 0), inter: link(1, 0), wan })
    const apart = new Network(sites, interchangeable(sites, alike))
    expect(apart.phases("all_to_all", "direct", [sites.all.ranks])[0]!.latencySeconds).toBe(1e-3)
    const ranks = worldOf(1, 20_000, 1, { intra: link(1, 0), inter: link(1, 1e-6), wan: undefined })
    const many = new Network(ranks, interchangeable(ranks, alike))
    const [broadcast] = many.phases("broadcast", "direct", [ranks.all.ranks])
    // The root's interface carries the share of each other twice; so does theirs, once in and once on to the rest.
    expect(broadcast!.weights[0]! * broadcast!.unitsPerByte).toBeCloseTo((2 * 19_999) / 20_000, 12)
  })

  it("of a hierarchical all-reduce leave each node and site once in each direction", () => {
    // 2 sites of 3 nodes of 4 ranks; 24 ranks, message of 1 byte.
    const world = worldOf(2, 3, 4, { intra: link(1, 0), inter: link(1, 0), wan: link(1, 0) })
    const network = new Network(world, interchangeable(world, alike))
    const bytes = new Map<string, number>()
    for (const phase of network.phases("all_reduce", "hierarchical", [world.all.ranks])) {
      phase.links.forEach((id, i) => {
        const { name, count } = network.links[id]!
        bytes.set(name, (bytes.get(name) ?? 0) + (phase.totals[i]! * phase.unitsPerByte) / count)
      })
    }
    // Inside a node 2 * 3/4; a node's interface carries the site's ring 2 * 2/3 and the site's exchange 2 * 1/2 / 3; a
    // site's uplink 2 * 1/2.
    expect(bytes.get("intra out")).toBeCloseTo(1.5, 12)
    expect(bytes.get("inter out")).toBeCloseTo(4 / 3 + 1 / 3, 12)
    expect(bytes.get("wan out")).toBeCloseTo(1, 12)
  })

  it("of a hierarchical all-reduce where nodes or sites are of unlike sizes go by the first of each, by hand", () => {
    const out = (...sites: ReadonlyArray<ReadonlyArray<number>>) => {
      const links = { intra: link(1, 1e-6), inter: link(1, 1e-4), wan: link(1, 1e-2) }
      const world = makeWorld(
        sites.map((nodes, index) => ({ name: `site ${index}`, nodes })),
        links
      )
      const bytesBy = (network: Network) => {
        const bytes = { intra: [] as Array<number>, inter: [] as Array<number>, wan: [] as Array<number> }
        const carried = new Float64Array(network.links.length)
        for (const { links, totals, unitsPerByte } of network.phases("all_reduce", "hierarchical", [
          world.all.ranks
        ]))
          links.forEach((id, i) => (carried[id]! += totals[i]! * unitsPerByte))
        network.links.forEach(({ tier, direction }, id) => {
          if (direction === "out") bytes[tier].push(carried[id]!)
        })
        return bytes
      }
      const latencySeconds = new Network(world, distinct(world))
        .phases("all_reduce", "hierarchical", [world.all.ranks])
        .reduce((sum, phase) => sum + phase.latencySeconds, 0)
      return { ...bytesBy(new Network(world, distinct(world))), latencySeconds }
    }
    // Two machines of three and one of two: the sum goes along each node's chain, from the second node to the first of its site, over
    // the uplinks by halves around a ring of two, and all the way back.
    const near = out([3, 3], [2])
    expect(near.intra).toEqual([1, 2, 1, 1, 2, 1, 1, 1])
    expect(near.inter).toEqual([2, 1, 1])
    expect(near.wan).toEqual([1, 1])
    expect(near.latencySeconds).toBeCloseTo(2 * 2 * 1e-6 + 2 * 1e-4 + 2 * (1e-4 + 1e-2), 12)
    // Unlike nodes in sites that are alike: the first ranks of a site's two nodes have a half each from there on.
    const alikeSites = out([2, 1], [2, 1])
    expect(alikeSites.intra).toEqual([1, 1, 0, 1, 1, 0])
    expect(alikeSites.inter).toEqual([1.5, 1.5, 1.5, 1.5])
    expect(alikeSites.wan).toEqual([1, 1])
    // Nodes that are alike in unlike sites: two ranks of a node go on with a half each, and these by sites as above.
    const alikeNodes = out([2, 2], [2])
    expect(alikeNodes.intra).toEqual([1, 1, 1, 1, 1, 1])
    expect(alikeNodes.inter).toEqual([2, 1, 1])
    expect(alikeNodes.wan).toEqual([1, 1])
    // Of one rank on each node, only sites are a level.
    expect(out([1, 1, 1], [1]).inter).toEqual([2, 2, 1, 1])
  })
})

describe("the latency of unlike hops", () => {
  const links = { intra: link(1e12, 1e-6), inter: link(1e11, 1e-3), wan: link(1e9, 30e-3) }
  const phaseOf = (kernel: string, world: World) => {
    const network = new Network(world, distinct(world))
    const [phase] = network.phases(kernel, "tree", [world.all.ranks])
    const onUplinks = [...phase!.links].flatMap((id, i) =>
      network.links[id]!.tier === "wan" ? [phase!.totals[i]! * phase!.unitsPerByte] : []
    )
    return { latencySeconds: phase!.latencySeconds, onUplinks }
  }

  it("of an all-reduce by trees is that of the longest way, over NCCL's trees, by hand", () => {
    // Of eight nodes tree 1 has the edges 0-4, 4-2, 4-6, 2-1, 2-3, 6-5 and 6-7, and tree 2, its mirror, 7-3, 3-5, 3-1, 5-6, 5-4, 1-2 and 1-0.
    // Two of each leave a site of four, with half the message each way. From a root to 1 or 6 are three edges, and two leave a site.
    const found = phaseOf("all_reduce", worldOf(2, 4, 1, links))
    expect(found.onUplinks).toEqual([2, 2, 2, 2])
    expect(found.latencySeconds).toBeCloseTo(2 * (3 * 1e-3 + 2 * 30e-3), 12)
    // Of three sites' nodes, tree 1 has the edges 0-2 and 2-1, and tree 2, shifted for they are odd, 1-0 and 0-2. A chain of three ranks goes on from node 1.
    const odd = makeWorld(
      [[1], [3], [2]].map((nodes, i) => ({ name: `site ${i}`, nodes })),
      links
    )
    expect(phaseOf("all_reduce", odd).latencySeconds).toBeCloseTo(2 * (2 * 31e-3 + 2 * 1e-6), 12)
  })

  it("of a broadcast along a chain counts each hop once", () => {
    // Fourteen hops inside two nodes of eight, and one between their sites.
    const { latencySeconds, onUplinks } = phaseOf("broadcast", worldOf(2, 1, 8, links))
    expect(latencySeconds).toBeCloseTo(14 * 1e-6 + 31e-3, 12)
    expect(onUplinks).toEqual([1, 1])
  })
})
