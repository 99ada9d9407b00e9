// Real processes that make a job of one rank each: what they tell each other, and what the others see when one is gone.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { afterEach, expect, it } from "vitest"
import { CollectiveOrder } from "../../core/machine/collective-order.ts"
import { Lane } from "../../core/machine/lane.ts"
import { threadTimes } from "../../exec/core-waits.ts"
import { stuckForGood, type WaitingRank } from "../../exec/job/deadlock.ts"
import type { TransportWish } from "../../exec/job/meeting.ts"
import { StandstillWatch } from "../../exec/job/standstill.ts"
import { describeNative } from "../native/addon.ts"
import { begun, startMembers, type Member } from "./started.ts"
import { transports, untilCut } from "./transports.ts"

const members: Array<Member> = []
afterEach(() => {
  for (const { child } of members.splice(0)) child.kill("SIGKILL")
})

const startJob = async (
  act: string,
  size: number,
  transport: TransportWish = "tcp"
): Promise<ReadonlyArray<Member>> => {
  const started = await startMembers({ script: "member.ts", args: [act], size, transport })
  members.push(...started)
  return started
}

const endsOf = async (act: string, size: number): Promise<ReadonlyArray<unknown>> =>
  Promise.all((await startJob(act, size)).map(({ end }) => end))

describeNative("a job of processes", () => {
  it("exchanges values, gathers them and has one clock on one host", async () => {
    const ends = await endsOf("exchange", 3)
    expect(ends[0]).toMatchObject({
      squares: [0, 1, 4],
      gathered: [
        [0, 0.5],
        [1, 0.5],
        [2, 0.5]
      ]
    })
    for (const end of ends.slice(1))
      expect(end).toEqual({ squares: [0, 1, 4], offset: { seconds: 0, errorSeconds: 0 } })
  })

  it.runIf(threadTimes() !== undefined).each(transports)(
    "has threads that carry messages counted with those of lanes, over %s",
    async (over) => {
      for (const [rank, { end }] of (await startJob("threads", 2, over)).entries()) {
        const { carriers, ranSeconds } = (await end) as {
          carriers: ReadonlyArray<string>
          ranSeconds: number
        }
        // The control connection's, and two streams' or UCX's.
        expect(carriers).toEqual(Array.from({ length: over === "ucx" ? 2 : 3 }, () => `rank${rank} messages`))
        expect(ranSeconds).toBeGreaterThan(0)
      }
    }
  )

  it.each(
    transports.flatMap((over) => (["SIGKILL", "SIGSTOP"] as const).map((signal) => [signal, over] as const))
  )("tells every other rank within 10 s who has met %s, over %s", async (signal, over) => {
    const members = await startJob(untilCut(over), 3, over)
    await begun(members)
    const killedAt = performance.now()
    members[1]!.child.kill(signal)
    const ends = await Promise.all(
      [members[0]!.end, members[2]!.end].map((end) => Promise.race([end, tooLong()]))
    )
    expect(performance.now() - killedAt).toBeLessThan(10_000)
    expect(ends[0]).toMatchObject({ failed: { _tag: "RankLost", rank: 0, lost: 1 } })
    expect(ends[1]).toMatchObject({ failed: { _tag: "RankLost", rank: 2, lost: 1 } })
  })

  it.each(
    ([1, 0] as const).flatMap((gone) =>
      (["SIGKILL", "SIGSTOP"] as const).map((signal) => [gone, signal] as const)
    )
  )(
    "tells every other rank within 10 s that rank %i met the others and then %s, before it connected",
    async (gone, signal) => {
      const others = { [gone]: ["gone-member.ts", signal] as const }
      const started = await startMembers({ script: "member.ts", args: ["exchange"], others, size: 3 })
      members.push(...started)
      await begun([started[gone]!])
      const began = performance.now()
      const left = started.filter((_, rank) => rank !== gone)
      const ends = await Promise.all(left.map(({ end }) => Promise.race([end, tooLong()])))
      expect(performance.now() - began).toBeLessThan(10_000)
      for (const end of ends) expect(end).toMatchObject({ failed: { _tag: "RankLost", lost: gone } })
    }
  )

  it.each(transports)("moves and adds what is long, over %s", async (over) => {
    const ends = await Promise.all((await startJob("large", 3, over)).map(({ end }) => end))
    expect(ends).toEqual([[[], [], []], [[]], [[]]])
  })

  it("tells every other rank, of whom one waits for all, who was ended by a signal and said goodbye", async () => {
    const members = await startJob("wait", 3)
    await begun(members)
    members[1]!.child.kill("SIGTERM")
    const others = [members[0]!.end, members[2]!.end]
    for (const [i, end] of (await Promise.all(others.map((one) => Promise.race([one, tooLong()])))).entries())
      expect(end).toMatchObject({
        failed: { _tag: "RankLost", rank: 2 * i, lost: 1, reason: "rank 1 has ended" }
      })
  })

  it("tells every other rank who has no memory left", async () => {
    const [first, second, third] = await endsOf("memory", 3)
    expect(second).toMatchObject({ failed: { _tag: "OutOfMemory", rank: 1, tensor: "large" } })
    for (const [rank, end] of [[0, first] as const, [2, third] as const])
      expect(end).toMatchObject({ failed: { _tag: "RankLost", rank, lost: 1 } })
  })

  it("tells every other rank whose program has failed, and why", async () => {
    const ends = await endsOf("fail", 3)
    expect(ends[1]).toMatchObject({ message: "the disk is full" })
    for (const rank of [0, 2]) {
      expect(ends[rank]).toMatchObject({ failed: { _tag: "RankLost", rank, lost: 1 } })
      expect((ends[rank] as { readonly message: string }).message).toContain("rank 1: the disk is full")
    }
  })

  it("does not take a busy rank for a lost one", async () => {
    expect(await endsOf("busy", 2)).toEqual(["alive", "alive"])
  })

  it("lets a rank that owes nothing leave", async () => {
    expect(await endsOf("leave", 2)).toEqual(["no fault", "left"])
  })

  it("finds that ranks wait for each other for ever, and tells every one of them what waits for what", async () => {
    const ends = await endsOf("deadlock", 3)
    for (const end of ends) {
      expect(end).toMatchObject({ failed: { _tag: "Deadlock" } })
      const { message } = end as { readonly message: string }
      expect(message).toContain(
        'collective 1 of group "world" (never joined): 2 of 3 ranks joined, not rank 2; rank 0 waits for'
      )
      expect(message).toMatch(/rank 1 waits for .*; rank 2 has ended/u)
    }
    const [crossed] = await endsOf("crossed", 2)
    expect(crossed).toMatchObject({ failed: { _tag: "Deadlock" } })
    expect((crossed as { readonly message: string }).message).toMatch(
      /rank 0 waits for .*; rank 1 waits for/u
    )
  })

  it.each([0, 1, 2])(
    "finds that those that stay wait for each other, where rank %i has left by a signal",
    async (leaver) => {
      const members = await startJob(`crossed without ${leaver}`, 3)
      await begun([members[leaver]!])
      members[leaver]!.child.kill("SIGTERM")
      const others = [0, 1, 2].filter((rank) => rank !== leaver)
      const ends = await Promise.all(others.map((rank) => Promise.race([members[rank]!.end, tooLong()])))
      for (const end of ends) {
        expect(end).toMatchObject({ failed: { _tag: "Deadlock" } })
        const { message } = end as { readonly message: string }
        for (const rank of others) expect(message).toContain(`rank ${rank} waits for`)
        expect(message).toContain(`rank ${leaver} has left`)
      }
    }
  )

  it("keeps communicators over the same ranks apart", async () => {
    expect((await endsOf("communicators", 2))[0]).toEqual([
      [3, 30],
      [3, 30]
    ])
  })

  it("ends where ranks submit different collectives, and says what each submitted", async () => {
    for (const end of await endsOf("mismatch", 3)) {
      expect(end).toHaveProperty("failed")
      const { message } = end as { readonly message: string }
      expect(message).toContain("all_reduce of 16 B")
      expect(message).toContain("broadcast of 16 B")
      expect(message).toMatch(/collective 1: .*rank 1/u)
    }
  })
})

const tooLong = (): Promise<unknown> =>
  new Promise((resolve) => setTimeout(() => resolve("too long"), 9500).unref())

/** Ops that can end, by going through all again and again; what is left never ends. */
const leftOver = (ranks: ReadonlyArray<WaitingRank>): ReadonlyArray<ReadonlySet<number>> => {
  const left = ranks.map(({ pending }) => new Set(Array.from(pending, ({ op }) => op)))
  const free = (at: number) => {
    const ops = [...ranks[at]!.pending].filter(({ op }) => left[at]!.has(op))
    return ops.filter(
      ({ lane, edges }, i) =>
        !ops.slice(0, i).some((before) => before.lane === lane) && !edges.some((edge) => left[at]!.has(edge))
    )
  }
  for (;;) {
    const startable = left.map((_, at) => free(at))
    const ends = (meeting: (typeof startable)[number][number]["meeting"]) =>
      meeting === undefined ||
      (meeting.missing === 0 &&
        ranks.every(({ pending }, other) =>
          [...pending].every((one) => one.meeting !== meeting || startable[other]!.includes(one))
        ))
    const ended = startable.map((ops) => ops.filter(({ meeting }) => ends(meeting)))
    if (ended.every((ops) => ops.length === 0)) return left
    for (const [at, ops] of ended.entries()) for (const { op } of ops) left[at]!.delete(op)
  }
}

it("finds what can never end, as going through all ops again and again does", () => {
  const op = fc.record({
    lane: fc.constantFrom(Lane.compute, Lane.intra, Lane.inter),
    edges: fc.array(fc.nat(7), { maxLength: 2 }),
    collective: fc.option(fc.nat(2), { nil: undefined })
  })
  const drawn = fc.tuple(fc.array(fc.array(op, { maxLength: 5 }), { minLength: 2, maxLength: 3 }), fc.nat(3))
  const reached = { all: 0, some: 0, none: 0 }
  fc.assert(
    fc.property(drawn, ([programs, lonely]) => {
      const meetings = [0, 1, 2].map((which) => ({ missing: which === lonely ? 1 : 0 }))
      const ranks = programs.map((ops, rank) => ({
        rank,
        finished: false,
        waits: [ops.map((_, id) => id)],
        // Each rank comes to a collective once.
        pending: ops.map(({ lane, edges, collective }, id) => ({
          op: id,
          lane,
          edges: edges.filter((edge) => edge < id),
          meeting:
            collective === undefined || ops.slice(0, id).some((before) => before.collective === collective)
              ? undefined
              : meetings[collective]
        }))
      }))
      const left = leftOver(ranks)
      const sizes = left.map(({ size }) => size)
      const stuck = stuckForGood(ranks)
      reached[
        sizes.every((size) => size === 0) ? "none" : sizes.some((size) => size === 0) ? "some" : "all"
      ]++
      if (sizes.some((size) => size === 0)) expect(stuck).toBeUndefined()
      else expect(left.map((_, rank) => stuck!.get(rank))).toEqual(left)
    })
  )
  for (const times of Object.values(reached)) expect(times).toBeGreaterThan(5)
})

it("looks at each op once, however many collectives stand behind each other", () => {
  const collectives = 100
  const meetings = Array.from({ length: collectives }, (_, i) => ({ missing: i === collectives - 1 ? 1 : 0 }))
  let looks = 0
  const ranks = [0, 1, 2].map((rank) => ({
    rank,
    finished: false,
    waits: [[collectives - 1]],
    pending: meetings.map((meeting, op) => ({
      op,
      lane: Lane.inter,
      meeting,
      get edges() {
        looks++
        return []
      }
    }))
  }))
  expect([...stuckForGood(ranks)!.values()].map((ops) => [...ops])).toEqual(ranks.map(() => [99]))
  expect(looks).toBeLessThanOrEqual(2 * 3 * collectives)
})

/** A watch of three ranks at one of them, which waits for two ops that wait for each other; the others have ended. */
const watchAt = async (rank: number) => {
  const handlers = new Map<string, (peer: number, value: unknown) => void>()
  const told: Array<readonly [number, string, unknown]> = []
  const left = new Set<number>()
  let leaving: (peer: number) => void = () => {}
  const links = {
    mesh: { handle: undefined, nowNanoseconds: 0 },
    localRank: 0,
    clockOffset: Effect.never,
    gather: () => Effect.never,
    tell: (peer: number, about: string, value: unknown) => {
      told.push([peer, about, value])
      if (peer === rank) handlers.get(about)!(rank, value)
    },
    onTold: (about: string, handler: (peer: number, value: unknown) => void) =>
      void handlers.set(about, handler),
    forget: () => {},
    left,
    onLeft: (handler: (peer: number) => void) => {
      leaving = handler
      return () => {}
    }
  }
  const hear = (peer: number, what: string, value?: unknown) =>
    handlers.get(`standstill 0 ${what}`)!(peer, value)
  const ended = (peer: number, submitted: number) =>
    JSON.stringify({
      rank: peer,
      pending: [],
      waits: [],
      waitingFor: [],
      finished: true,
      submitted: { submitted }
    })
  const state = {
    rank,
    finished: false,
    waits: [[0]],
    waitingFor: [`rank ${rank} waits`],
    pending: [0, 1].map((op) => ({ op, lane: Lane.compute, edges: [1 - op], meeting: undefined }))
  }
  const watch = new StandstillWatch({ links, rank, size: 3, run: 0, order: new CollectiveOrder() })
  const found = Effect.runPromise(
    Effect.flip(
      watch.watch(
        () => state,
        () => 1
      )
    )
  )
  await new Promise((go) => setImmediate(go))
  hear(rank, "again?", 0)
  const own = (told.at(-1)![2] as { readonly stands: string }).stands
  return {
    found,
    heard: (peer: number) => hear(peer, "heard"),
    stands: (peer: number, submitted = 0) =>
      hear(peer, "stands", peer === rank ? own : ended(peer, submitted)),
    answers: (peer: number, round: number, submitted = 0) =>
      hear(peer, "again", { round, stands: ended(peer, submitted) }),
    /** How often a rank was asked where it stands. */
    asked: (peer: number) =>
      told.filter(([to, about]) => to === peer && about === "standstill 0 again?").length,
    leaves: (peer: number) => {
      left.add(peer)
      leaving(peer)
    }
  }
}

it("asks again where a rank has told something newer before the last has answered", async () => {
  const { found, heard, stands, answers, asked } = await watchAt(0)
  for (const rank of [0, 1, 2]) stands(rank)
  expect(asked(1)).toBe(1)
  answers(1, 1, 1)
  stands(1, 1)
  answers(2, 1)
  expect(asked(1)).toBe(2)
  answers(1, 2, 1)
  answers(2, 2)
  for (const rank of [1, 2]) heard(rank)
  expect((await found).waiting).toEqual(["rank 0 waits", "rank 1 has ended", "rank 2 has ended"])
})

it("judges those that stay where the first leaves, and the next is the first", async () => {
  const { found, heard, stands, answers, asked, leaves } = await watchAt(1)
  for (const rank of [1, 2]) stands(rank)
  expect(asked(2)).toBe(0)
  leaves(0)
  expect(asked(2)).toBe(1)
  answers(2, 1)
  heard(2)
  expect((await found).waiting).toEqual(["rank 1 waits", "rank 2 has ended", "rank 0 has left"])
})

it("asks again where a rank leaves instead of answering, and takes no answer for another round's", async () => {
  const { found, heard, stands, answers, asked, leaves } = await watchAt(0)
  for (const rank of [0, 1, 2]) stands(rank)
  leaves(2)
  expect(asked(1)).toBe(2)
  let over = false
  void found.then(() => (over = true))
  // Of before: it has submitted more since, and tells so.
  answers(1, 1)
  stands(1, 1)
  answers(1, 2, 1)
  heard(1)
  await new Promise((go) => setImmediate(go))
  expect(over).toBe(false)
  answers(1, 3, 1)
  heard(1)
  expect((await found).waiting).toEqual(["rank 0 waits", "rank 1 has ended", "rank 2 has left"])
})
