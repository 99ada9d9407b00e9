// The engine's own rules, each against a closed form: order, holds, recycling, speeds, changing links, statistics.

import { describe, expect, it } from "vitest"
import { build } from "../../bench/fluid/workloads.ts"
import { Engine, type Activity } from "../../sim/engine/engine.ts"

const link = (name: string, bytesPerSecond: number, latencySeconds = 0) => ({
  name,
  bytesPerSecond,
  latencySeconds
})
const engineOn = (network: "fluid" | "alpha-beta", ...links: Array<ReturnType<typeof link>>) =>
  new Engine({ network, links })

/** Watches activities and returns a table that fills with their ends. */
function endsOf(engine: Engine, activities: Record<string, Activity>): Record<string, number> {
  const names = Object.keys(activities)
  const ends: Record<string, number> = {}
  names.forEach((name, tag) => expect(engine.watch(activities[name]!, tag)).toBe(true))
  engine.onEnd = (tag) => {
    ends[names[tag]!] = engine.now
  }
  return ends
}

/** Creates and starts at once. */
const go = (engine: Engine, activity: Activity): Activity => {
  engine.release(activity)
  return activity
}

describe("activities", () => {
  it("start when their predecessors have ended and end after their duration", () => {
    const engine = engineOn("fluid")
    const a = go(engine, engine.work(1))
    const b = go(engine, engine.work(2))
    const c = engine.work(0.5)
    engine.after(c, a)
    engine.after(c, b)
    engine.release(c)
    const ends = endsOf(engine, { a, b, c })
    expect(engine.run()).toBe(2.5)
    expect(ends).toEqual({ a: 1, b: 2, c: 2.5 })
    expect(engine.pending).toBe(0)
    expect(engine.endedCount).toBe(3)
  })

  it("of zero duration end at the same time, in one step", () => {
    const engine = engineOn("fluid")
    let last = go(engine, engine.work(1))
    for (let i = 0; i < 10; i++) {
      const next = engine.work(0)
      engine.after(next, last)
      engine.release(next)
      last = next
    }
    expect(engine.step()).toBe(true)
    expect(engine.now).toBe(1)
    expect(engine.ended(last)).toBe(true)
    expect(engine.step()).toBe(false)
  })

  it("meet: one activity that several parties hold starts when the last lets go", () => {
    const engine = engineOn("fluid")
    const ranks = 4
    const meeting = engine.work(1)
    for (let i = 1; i < ranks; i++) engine.hold(meeting)
    const arrivals = Array.from({ length: ranks }, (_, i) => go(engine, engine.work(i * 0.25)))
    arrivals.forEach((arrival, i) => engine.watch(arrival, i))
    const seen: Array<[number, number]> = []
    engine.watch(meeting, 99)
    engine.onEnd = (tag) => {
      seen.push([tag, engine.now])
      if (tag < ranks) engine.release(meeting)
    }
    engine.run()
    expect(seen).toEqual([
      [0, 0],
      [1, 0.25],
      [2, 0.5],
      [3, 0.75],
      [99, 1.75]
    ])
  })

  it("that end at the same time are reported in the order they were made", () => {
    const engine = engineOn("fluid", link("l", 10))
    const route = engine.route([0])
    // Made in this order, started in another; the flow of the network ends among the works.
    const first = engine.work(1)
    const second = engine.flow(route, 10)
    const third = engine.work(0.5)
    const fourth = engine.work(0.5)
    ;[first, second, third, fourth].forEach((activity, tag) => engine.watch(activity, tag))
    engine.release(fourth)
    engine.after(third, fourth)
    engine.release(third)
    engine.release(second)
    engine.release(first)
    const order: Array<number> = []
    engine.onEnd = (tag) => order.push(tag)
    engine.run()
    expect(order).toEqual([3, 0, 1, 2])
  })

  it("may be added by callbacks, and the memory of ended ones is used again", () => {
    const engine = engineOn("fluid")
    const handles: Array<Activity> = []
    let left = 10_000
    const next = () => {
      const activity = engine.work(0.001)
      handles.push(activity)
      engine.watch(activity, 0)
      engine.release(activity)
    }
    engine.onEnd = () => {
      if (--left > 0) next()
    }
    next()
    engine.run()
    expect(engine.endedCount).toBe(10_000)
    expect(new Set(handles).size).toBe(10_000) // every handle is its own
    expect(new Set(handles.map((handle) => handle % 2 ** 24)).size).toBeLessThanOrEqual(2) // in hardly any slots
  })

  it("stay recognisably ended after their slot went to another", () => {
    const engine = engineOn("fluid")
    const old = go(engine, engine.work(1))
    expect(engine.ended(old)).toBe(false)
    engine.run()
    const young = engine.work(1)
    expect(young % 2 ** 24).toBe(old % 2 ** 24)
    expect(engine.ended(old)).toBe(true)
    expect(engine.ended(young)).toBe(false)
    expect(engine.watch(old, 1)).toBe(false)
    engine.after(young, old) // nothing to wait for
    engine.release(young)
    expect(engine.run()).toBe(2)
    expect(() => engine.hold(old)).toThrow(RangeError)
    expect(() => engine.release(young)).toThrow(RangeError)
  })

  it("tell the recorder when and why they started", () => {
    const engine = engineOn("fluid", link("l", 10, 0.5))
    const log: Array<unknown> = []
    const a = engine.work(1)
    const b = engine.work(2)
    const c = engine.flow(engine.route([0]), 10)
    const names = new Map([
      [a, "a"],
      [b, "b"],
      [c, "c"],
      [-1, "-"]
    ])
    engine.recorder = {
      started: (activity, time, cause) => log.push(["start", names.get(activity), time, names.get(cause)]),
      ended: (activity, time) => log.push(["end", names.get(activity), time])
    }
    engine.after(c, b)
    engine.after(c, a)
    for (const activity of [a, b, c]) engine.release(activity)
    engine.run()
    expect(log).toEqual([
      ["start", "a", 0, "-"],
      ["start", "b", 0, "-"],
      ["end", "a", 1],
      ["end", "b", 2],
      ["start", "c", 2, "b"],
      ["end", "c", 3.5]
    ])
  })

  it("are the same, bit for bit, when the same program runs again", () => {
    const run = () => {
      const log: Array<number> = []
      const engine = build("a2a", { workers: 6, layers: 4, iterations: 2, latencySeconds: 0 })
      engine.recorder = {
        started: (activity, time, cause) => log.push(activity, time, cause),
        ended: (activity, time) => log.push(activity, time)
      }
      engine.run()
      return Buffer.from(new Float64Array(log).buffer)
    }
    const once = run()
    expect(once.length).toBeGreaterThan(20_000)
    expect(run().equals(once)).toBe(true)
  })

  it("refuse what is not a duration, an amount or a link", () => {
    const engine = engineOn("fluid", link("l", 1))
    expect(() => engine.work(-1)).toThrow(RangeError)
    expect(() => engine.work(NaN)).toThrow(RangeError)
    expect(() => engine.work(Infinity)).toThrow(RangeError)
    expect(() => engine.route([1])).toThrow(RangeError)
    expect(() => engine.route([0], [0])).toThrow(RangeError)
    expect(() => engine.flow(engine.route([0]), -1)).toThrow(RangeError)
    expect(() => engine.flow(engine.route([0]), 1, 0, 0)).toThrow(RangeError)
    expect(() => engine.setLink(7, { bytesPerSecond: 1 })).toThrow(RangeError)
    expect(() => engine.setLink(0, { bytesPerSecond: -1 })).toThrow(RangeError)
    expect(() => engineOn("fluid", link("l", NaN))).toThrow(RangeError)
    expect(() => engineOn("fluid", link("l", 1, Infinity))).toThrow(RangeError)
  })
})

describe("speed profiles", () => {
  // Closed form: the end is where the integral of the speed from the start equals the work.
  const profile = [
    { atSeconds: 1, factor: 0.5 },
    { atSeconds: 3, factor: 0 },
    { atSeconds: 5, factor: 2 }
  ]
  const cases: Array<[start: number, seconds: number, end: number]> = [
    [0, 0.5, 0.5], // before the first change
    [0, 1, 1], // up to it exactly
    [0, 1.5, 2], // 1 at full speed + 0.5 at half speed
    [0, 2, 3], // done the moment the pause begins
    [0, 3, 5.5], // 1 + 1 + pause + 1 at double speed
    [2, 0.5, 3],
    [3.5, 1, 5.5], // starts in the pause
    [3.5, 0, 3.5], // nothing to do ends even in a pause
    [6, 4, 8]
  ]
  for (const [start, seconds, end] of cases) {
    it(`${seconds} s of work begun at ${start} s end at ${end} s`, () => {
      const engine = engineOn("fluid")
      const wait = go(engine, engine.work(start))
      const work = engine.work(seconds, 3, engine.speedProfile(profile))
      engine.after(work, wait)
      engine.release(work)
      const ends = endsOf(engine, { work })
      engine.run()
      expect(ends.work).toBe(end)
      // In the pause nothing is done.
      const paused = Math.max(0, Math.min(end, 5) - Math.max(start, 3))
      expect(engine.meters[3]).toBe(end - start - paused)
    })
  }

  it("that stop for good leave the work waiting, and say so", () => {
    const engine = engineOn("fluid")
    const work = go(engine, engine.work(2, 0, engine.speedProfile([{ atSeconds: 1, factor: 0 }])))
    expect(engine.step()).toBe(false)
    expect(engine.pending).toBe(1)
    expect(engine.waiting()).toEqual([
      { activity: work, kind: "work", waitsFor: "speed", holds: 0, predecessors: [], links: [] }
    ])
  })

  it("must ascend in time and not run backwards", () => {
    const engine = engineOn("fluid")
    expect(() => engine.speedProfile([{ atSeconds: 0, factor: -1 }])).toThrow(RangeError)
    const twice = { atSeconds: 1, factor: 1 }
    expect(() => engine.speedProfile([twice, twice])).toThrow(RangeError)
  })
})

describe("fluid flows", () => {
  it("pay latency first, then share: the closed form of two flows on one link", () => {
    // a joins at 0.1, b at 0.3, both 10 bytes at 10 bytes/s. a alone until 0.3 (2 bytes), then 5 bytes/s each:
    // a ends at 0.3 + 8/5 = 1.9; b has 8 of 10, the rest alone: 1.9 + 2/10 = 2.1.
    const engine = engineOn("fluid", link("l", 10, 0.1))
    const a = go(engine, engine.flow(engine.route([0]), 10))
    const b = go(engine, engine.flow(engine.route([0]), 10, 0.3))
    const ends = endsOf(engine, { a, b })
    engine.run()
    expect(ends.a).toBeCloseTo(1.9, 14)
    expect(ends.b).toBeCloseTo(2.1, 14)
    expect(engine.linkBytes(0)).toBe(20)
    expect(engine.linkBusySeconds(0)).toBeCloseTo(2, 14) // idle while the first pays its latency
  })

  it("of no bytes, over no link, or over links without limit end after their latency", () => {
    const engine = engineOn("fluid", link("slow", 1), link("free", Infinity), link("down", 0))
    const none = go(engine, engine.flow(engine.route([0]), 0, 0.25))
    const local = go(engine, engine.flow(engine.route([]), 1e9, 0.5))
    const free = go(engine, engine.flow(engine.route([1]), 1e9, 0.75))
    const limited = go(engine, engine.flow(engine.route([1]), 8, 0.75, 4))
    const down = go(engine, engine.flow(engine.route([2]), 0, 1))
    const ends = endsOf(engine, { none, local, free, limited, down })
    engine.run()
    expect(ends).toEqual({ none: 0.25, local: 0.5, free: 0.75, limited: 2.75, down: 1 })
    expect(engine.linkBytes(1)).toBe(1e9 + 8)
  })

  it("follow a link that changes under way", () => {
    // 30 bytes: 10 in the first second at 10/s, none while it is down, then 20 at 40/s.
    const engine = engineOn("fluid", link("l", 10))
    const flow = go(engine, engine.flow(engine.route([0]), 30))
    const ends = endsOf(engine, { flow })
    const bandwidths = [0, 40]
    engine.at(1, 0)
    engine.at(3, 1)
    engine.onTimer = (tag) => engine.setLink(0, { bytesPerSecond: bandwidths[tag]! })
    engine.run()
    expect(ends.flow).toBe(3.5)
    expect(engine.linkBusySeconds(0)).toBe(3.5)
  })

  it("share anew when one link of several changes: the slack goes to the others", () => {
    // a over 0 and 1, b over 1 only (10/s): 5 each. At 1 s link 0 falls to 2/s, so b gets 8/s; b's 13 bytes end at 2 s.
    const engine = engineOn("fluid", link("0", 100), link("1", 10))
    const a = go(engine, engine.flow(engine.route([0, 1]), 7 + 10))
    const b = go(engine, engine.flow(engine.route([1]), 13))
    const ends = endsOf(engine, { a, b })
    engine.at(1, 0)
    engine.onTimer = () => engine.setLink(0, { bytesPerSecond: 2 })
    engine.run()
    expect(ends.b).toBe(2)
    expect(ends.a).toBe(1 + 12 / 2)
  })

  it("pay the latency in force when they start", () => {
    const engine = engineOn("fluid", link("l", Infinity, 1))
    const early = go(engine, engine.flow(engine.route([0]), 1))
    const wait = go(engine, engine.work(0.5))
    const late = engine.flow(engine.route([0]), 1)
    engine.after(late, wait)
    engine.release(late)
    engine.at(0.25, 0)
    engine.onTimer = () => engine.setLink(0, { latencySeconds: 3 })
    const ends = endsOf(engine, { early, late })
    engine.run()
    expect(ends).toEqual({ early: 1, late: 3.5 })
  })

  it("that stand for several count with their weight, in rate and in bytes", () => {
    // One flow counts 3 times on the link of 12: with a plain one both get 3.
    const engine = engineOn("fluid", link("l", 12))
    const many = go(engine, engine.flow(engine.route([0], [3]), 6))
    const one = go(engine, engine.flow(engine.route([0]), 6))
    const ends = endsOf(engine, { many, one })
    engine.run()
    expect(ends).toEqual({ many: 2, one: 2 })
    expect(engine.linkBytes(0)).toBe(24)
    expect(engine.route([0, 0, 0])).toBe(engine.route([0], [3])) // crossing three times is the same route
  })

  it("account for bytes exactly, however many there are", () => {
    const engine = engineOn("fluid", link("a", 7), link("b", 11))
    let expectedA = 0
    let expectedB = 0
    for (let i = 0; i < 2000; i++) {
      const bytes = 1 + ((i * 7919) % 1009)
      const both = i % 3 === 0
      go(engine, engine.flow(engine.route(both ? [0, 1] : [1], both ? [2, 1] : [1]), bytes, (i % 17) * 0.01))
      if (both) expectedA += 2 * bytes
      expectedB += bytes
    }
    engine.run()
    expect(engine.linkBytes(0)).toBe(expectedA)
    expect(engine.linkBytes(1)).toBe(expectedB)
    expect(engine.linkBusySeconds(1)).toBeLessThanOrEqual(engine.now)
    expect(engine.linkBusySeconds(1)).toBeGreaterThanOrEqual((expectedB / 11) * (1 - 1e-12))
  })
})

describe("deadlock", () => {
  it("is reported with what each activity waits for", () => {
    const engine = engineOn("fluid", link("up", 1), link("broken", 0))
    const flow = go(engine, engine.flow(engine.route([0, 1]), 5))
    const next = engine.work(1)
    engine.after(next, flow)
    engine.release(next)
    const held = engine.work(1)
    engine.hold(held)
    engine.release(held)
    expect(engine.step()).toBe(false)
    expect(engine.pending).toBe(3)
    expect(engine.waiting()).toEqual([
      { activity: flow, kind: "flow", waitsFor: "links", holds: 0, predecessors: [], links: ["broken"] },
      { activity: next, kind: "work", waitsFor: "predecessors", holds: 0, predecessors: [flow], links: [] },
      { activity: held, kind: "work", waitsFor: "holds", holds: 1, predecessors: [], links: [] }
    ])
    engine.setLink(1, { bytesPerSecond: 5 })
    engine.run()
    expect(engine.ended(next)).toBe(true)
    expect(engine.now).toBe(6) // 5 bytes at the 1 byte/s of the other link
  })
})

describe("alpha-beta flows", () => {
  it("use a link one at a time in the order they became ready: t = alpha + beta n each", () => {
    const engine = engineOn("alpha-beta", link("l", 10, 0.5))
    const route = engine.route([0])
    const a = go(engine, engine.flow(route, 10))
    const b = go(engine, engine.flow(route, 20, 0.25))
    const c = go(engine, engine.flow(route, 10, 0, 5))
    const ends = endsOf(engine, { a, b, c })
    engine.run()
    expect(ends).toEqual({ a: 1.5, b: 1.5 + 2.25, c: 1.5 + 2.25 + 2 })
    expect(engine.linkBytes(0)).toBe(40)
    expect(engine.linkBusySeconds(0)).toBe(5.75)
  })

  it("hold all links of their route, so nobody overtakes on a part of it", () => {
    // a on 0; b on 0 and 1 waits for a; c on 1 came after b and waits for it, though link 1 is idle; d on 2 is alone.
    const engine = engineOn("alpha-beta", link("0", 1), link("1", 2), link("2", 1))
    const a = go(engine, engine.flow(engine.route([0]), 3))
    const b = go(engine, engine.flow(engine.route([0, 1]), 2))
    const c = go(engine, engine.flow(engine.route([1]), 4))
    const d = go(engine, engine.flow(engine.route([2]), 1))
    const ends = endsOf(engine, { a, b, c, d })
    engine.run()
    expect(ends).toEqual({ a: 3, b: 5, c: 7, d: 1 })
    expect(engine.linkBusySeconds(1)).toBe(4)
  })

  it("take as long as their slowest link, weights included", () => {
    const engine = engineOn("alpha-beta", link("0", 10, 0.5), link("1", 4, 0.25))
    const a = go(engine, engine.flow(engine.route([0, 1], [8, 2]), 10))
    const ends = endsOf(engine, { a })
    engine.run()
    expect(ends.a).toBe(0.75 + 10 * Math.max(8 / 10, 2 / 4))
    expect(engine.linkBytes(0)).toBe(80)
  })

  it("keep what they have sent when a link changes, and stall while it is down", () => {
    // 1 s latency, then 10 bytes at 2/s: 4 by t = 3, down until 5, then 6 at 3/s.
    const engine = engineOn("alpha-beta", link("l", 2, 1))
    const a = go(engine, engine.flow(engine.route([0]), 10))
    const b = go(engine, engine.flow(engine.route([0]), 3, 0))
    const ends = endsOf(engine, { a, b })
    const bandwidths = [0, 3]
    engine.at(3, 0)
    engine.at(5, 1)
    engine.onTimer = (tag) => {
      engine.setLink(0, { bytesPerSecond: bandwidths[tag]! })
      if (tag === 0) expect(engine.waiting().map((w) => w.links)).toEqual([["l"], ["l"]])
    }
    engine.run()
    expect(ends).toEqual({ a: 7, b: 8 })
  })

  it("change speed with their own link, and those beside them do not", () => {
    const bytes = [9, 4, 7, 12, 3, 10, 6, 11, 5]
    for (const faster of bytes.keys()) {
      const engine = engineOn("alpha-beta", ...bytes.map((_, i) => link(String(i), 1)))
      const flows = bytes.map((size, i) => go(engine, engine.flow(engine.route([i]), size)))
      const ends = endsOf(engine, Object.fromEntries(flows.map((flow, i) => [i, flow])))
      engine.at(1, 0)
      engine.onTimer = () => engine.setLink(faster, { bytesPerSecond: 2 })
      engine.run()
      expect(Object.values(ends)).toEqual(bytes.map((size, i) => (i === faster ? 1 + (size - 1) / 2 : size)))
    }
  })

  it("change speed also while the latency of the flow at the head is not over", () => {
    const engine = engineOn("alpha-beta", link("l", 2, 1))
    const a = go(engine, engine.flow(engine.route([0]), 10))
    const ends = endsOf(engine, { a })
    engine.at(0.5, 0)
    engine.onTimer = () => engine.setLink(0, { bytesPerSecond: 5 })
    engine.run()
    expect(ends.a).toBe(3)
  })
})

describe("timers", () => {
  it("come at their own moments, to the last bit, however far these are from all that happens before", () => {
    for (const network of ["fluid", "alpha-beta"] as const) {
      const engine = engineOn(network)
      // A thousand steps of a microsecond, which move the epoch; in each a timer is set, up to some thousand years ahead.
      const moments: Array<number> = []
      let next = go(engine, engine.work(0.75e-6))
      const early: Array<number> = []
      engine.onTimer = (tag) => {
        if (engine.now !== moments[tag]) early.push(moments[tag]!)
      }
      engine.onEnd = (step) => {
        if (step === 1000) return
        const moment = engine.now + 1.7e-6 * 1.04 ** step
        moments.push(moment)
        engine.at(moment, step)
        next = go(engine, engine.work(1e-6))
        engine.watch(next, step + 1)
      }
      engine.watch(next, 0)
      engine.run()
      expect(moments).toHaveLength(1000)
      expect(early).toEqual([])
    }
  })
})
