// Real processes that make a job of one rank each: what they tell each other, and what the others see when one is gone.
import { spawn, type ChildProcess } from "node:child_process"
import { createServer } from "node:net"
import * as path from "node:path"
import { afterEach, expect, it } from "vitest"
import { freshSecret } from "../../exec/job/secret.ts"
import { describeNative } from "../native/addon.ts"

const children: Array<ChildProcess> = []
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL")
})

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { readonly port: number }
      server.close(() => resolve(port))
    })
  })

interface Member {
  readonly child: ChildProcess
  /** Lines so far. */
  readonly lines: Array<unknown>
  /** The last line, when it has ended. */
  readonly end: Promise<unknown>
}

const startJob = async (act: string, size: number): Promise<ReadonlyArray<Member>> => {
  const port = await freePort()
  const secret = freshSecret()
  return Array.from({ length: size }, (_, rank) => {
    const child = spawn(process.execPath, [path.join(import.meta.dirname, "member.ts"), act], {
      env: {
        ...process.env,
        RANK: String(rank),
        WORLD_SIZE: String(size),
        MASTER_ADDR: "127.0.0.1",
        MASTER_PORT: String(port),
        TANDEM_SECRET: secret
      },
      stdio: ["ignore", "pipe", "inherit"]
    })
    children.push(child)
    const lines: Array<unknown> = []
    let text = ""
    child.stdout!.on("data", (more) => {
      text += String(more)
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        lines.push(JSON.parse(text.slice(0, end)))
        text = text.slice(end + 1)
      }
    })
    return { child, lines, end: new Promise((resolve) => child.on("close", () => resolve(lines.at(-1)))) }
  })
}

const begun = async (members: ReadonlyArray<Member>): Promise<void> => {
  while (members.some(({ lines }) => lines.length === 0)) await new Promise((go) => setTimeout(go, 20))
}

describeNative("a job of processes", () => {
  it("exchanges values, gathers them and has one clock on one host", async () => {
    const members = await startJob("exchange", 3)
    const ends = await Promise.all(members.map(({ end }) => end))
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

  it.each([["SIGKILL" as const], ["SIGSTOP" as const]])(
    "tells every other rank within 10 s who has met %s",
    async (signal) => {
      const members = await startJob("wait", 3)
      await begun(members)
      const killedAt = performance.now()
      members[1]!.child.kill(signal)
      const ends = await Promise.all(
        [members[0]!.end, members[2]!.end].map((end) => Promise.race([end, tooLong()]))
      )
      expect(performance.now() - killedAt).toBeLessThan(10_000)
      expect(ends[0]).toMatchObject({ failed: { _tag: "RankLost", rank: 0, lost: 1 } })
      expect(ends[1]).toMatchObject({ failed: { _tag: "RankLost", rank: 2, lost: 1 } })
    }
  )

  it("does not take a busy rank for a lost one", async () => {
    const members = await startJob("busy", 2)
    expect(await Promise.all(members.map(({ end }) => end))).toEqual(["alive", "alive"])
  })

  it("lets a rank that owes nothing leave", async () => {
    const members = await startJob("leave", 2)
    expect(await Promise.all(members.map(({ end }) => end))).toEqual(["no fault", "left"])
  })
})

const tooLong = (): Promise<unknown> =>
  new Promise((resolve) => setTimeout(() => resolve("too long"), 9500).unref())
