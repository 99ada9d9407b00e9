// Real processes that make a job of one rank each: what they tell each other, and what the others see when one is gone.
import { afterEach, expect, it } from "vitest"
import type { TransportWish } from "../../exec/job/environment.ts"
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
