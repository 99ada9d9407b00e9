// Ranks on hosts of their own, as far as one machine can have them: a network namespace for each, whose link is cut in the middle;
// and clocks that differ. Needs root and a kernel with namespaces; says when it could not.
import { spawn, spawnSync, type ChildProcess } from "node:child_process"
import { afterEach, expect, it } from "vitest"
import { Cluster, whyNoCluster } from "../../bench/cluster/namespaces.ts"
import { describeNative } from "../native/addon.ts"
import { begun, startMembers, type Member } from "./started.ts"
import { transports, untilCut } from "./transports.ts"

const noCluster = whyNoCluster()
const noClocks = spawnSync("unshare", ["--time", "--fork", "--monotonic", "1000", "true"]).status !== 0
if (noCluster !== undefined) process.stderr.write(`no network namespaces here: ${noCluster}\n`)
if (noClocks) process.stderr.write("no time namespaces here (unshare --time)\n")

const members: Array<Member> = []
afterEach(() => {
  for (const { child } of members.splice(0)) child.kill("SIGKILL")
})

const tooLong = (): Promise<unknown> =>
  new Promise((resolve) => setTimeout(() => resolve("too long"), 10_000).unref())

describeNative("a job on several hosts", () => {
  it.skipIf(noCluster !== undefined).each(transports)(
    "tells every other rank whose link is down, over %s",
    async (transport) => {
      const unshaped = { up: Infinity, down: Infinity }
      const cluster = new Cluster([unshaped, unshaped, unshaped])
      try {
        const start = (rank: number, command: ReadonlyArray<string>, env: NodeJS.ProcessEnv): ChildProcess =>
          cluster.spawn(rank, command, { env, stdio: ["ignore", "pipe", "inherit"] })
        const master = cluster.addressOf(0)
        members.push(
          ...(await startMembers({
            script: "member.ts",
            args: [untilCut(transport)],
            size: 3,
            start,
            master,
            transport
          }))
        )
        await begun(members)
        const cutAt = performance.now()
        cluster.setLink(1, "down")
        const others = [members[0]!.end, members[2]!.end]
        const [first, third] = await Promise.all(others.map((end) => Promise.race([end, tooLong()])))
        expect(performance.now() - cutAt).toBeLessThan(10_000)
        expect(first).toMatchObject({ failed: { _tag: "RankLost", rank: 0, lost: 1 } })
        expect(third).toMatchObject({ failed: { _tag: "RankLost", rank: 2, lost: 1 } })
      } finally {
        cluster.close()
      }
    }
  )

  // Rank 1's clock is 1000 s ahead, rank 2's behind: its timeline is told on rank 0's, and obeys every law.
  it.skipIf(noClocks)("has one timeline where clocks differ", async () => {
    const start = (rank: number, command: ReadonlyArray<string>, env: NodeJS.ProcessEnv): ChildProcess => {
      const ahead = [0, 1000, -500][rank]!
      const apart = ["--time", "--fork", "--kill-child", "--monotonic", String(ahead), ...command]
      const [program, ...args] = rank === 0 ? command : ["unshare", ...apart]
      return spawn(program!, args, { env, stdio: ["ignore", "pipe", "inherit"] })
    }
    const size = 3
    members.push(...(await startMembers({ script: "member.ts", args: ["exchange"], size, start })))
    const offsets = (await Promise.all(members.map(({ end }) => end))) as ReadonlyArray<{
      readonly offset: { readonly seconds: number; readonly errorSeconds: number }
    }>
    for (const [rank, ahead] of [0, 1000, -500].entries()) {
      const { seconds, errorSeconds } = offsets[rank]!.offset
      expect(Math.abs(seconds + ahead)).toBeLessThanOrEqual(errorSeconds)
      expect(errorSeconds).toBeLessThan(0.05)
    }
    const counts = JSON.stringify({ programs: 4, training: 3 })
    const agreeing = await startMembers({ script: "agree-member.ts", args: [counts, "5"], size, start })
    members.push(...agreeing)
    expect(await agreeing[0]!.end).toMatchObject({ seen: { programs: { generated: 4 } } })
  })
})
