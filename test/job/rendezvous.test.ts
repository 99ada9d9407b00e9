// Processes that find each other, and everything that can be wrong with whoever comes. All in one process here: a rendezvous
// does not know the difference.
import { createConnection, createServer, type Socket } from "node:net"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { afterEach, describe, expect, it } from "vitest"
import { loadAddon } from "../../exec/native-addon.ts"
import { freePort } from "../../exec/job/free-port.ts"
import { ProcessJob } from "../../exec/job/processes.ts"
import { rendezvous, type Meeting, type RendezvousOptions } from "../../exec/job/rendezvous.ts"
import { freshSecret } from "../../exec/job/secret.ts"

const secret = freshSecret()
const sockets: Array<Socket> = []
const meetings: Array<Meeting> = []
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy()
  for (const meeting of meetings.splice(0)) meeting.close()
})

const options = (
  port: number,
  rank: number,
  size: number,
  change: Partial<RendezvousOptions> = {}
): RendezvousOptions => ({
  rank,
  size,
  master: { host: "127.0.0.1", port },
  secret,
  alike: { version: "1.0.0", plan: "abc" },
  listen: () => 1000 + rank,
  timeoutSeconds: 20,
  ...change
})

const meet = (given: RendezvousOptions): Promise<Meeting> =>
  Effect.runPromise(rendezvous(given)).then((meeting) => {
    meetings.push(meeting)
    return meeting
  })

/** What ends an attempt that must not succeed. */
const refusal = (given: RendezvousOptions): Promise<string> =>
  Effect.runPromise(Effect.flip(rendezvous(given))).then(({ message }) => message)

const addresses = (size: number) =>
  Array.from({ length: size }, (_, rank) => ({ host: "127.0.0.1", port: 1000 + rank }))

describe("a rendezvous", () => {
  it("brings all together, in whatever order they come", async () => {
    const port = await freePort()
    const late = [3, 1, 0, 2].map(
      (rank, i) =>
        new Promise<Meeting>((resolve, reject) => {
          setTimeout(() => meet(options(port, rank, 4)).then(resolve, reject), 150 * i)
        })
    )
    const all = await Promise.all(late)
    for (const meeting of all) expect(meeting.addresses).toEqual(addresses(4))
    expect(new Set(all.map(({ key }) => key)).size).toBe(1)
    expect(all[0]!.key).not.toContain(secret)
  })

  it("makes another key each time", async () => {
    const port = await freePort()
    const first = await meet(options(port, 0, 1))
    first.close()
    const second = await meet(options(await freePort(), 0, 1))
    expect(second.key).not.toBe(first.key)
  })

  it("tells who has not come, at every end", async () => {
    const port = await freePort()
    const quick = { timeoutSeconds: 0.5 }
    const [host, member] = await Promise.all([
      refusal(options(port, 0, 4, quick)),
      refusal(options(port, 2, 4))
    ])
    expect(host).toBe(`rank 0: ranks 1, 3 have not come to 127.0.0.1:${port} within 0.5 s`)
    expect(member).toContain(host.slice("rank 0: ".length))
    // A name that the system takes for a loopback address, as Debian's /etc/hosts has a host's own.
    const own = { ...quick, master: { host: "127.1", port: await freePort() } }
    expect(await refusal(options(port, 0, 2, own))).toMatch(/here 127\.1 is 127\.0\.0\.1, .*set MASTER_ADDR/u)
    expect(await refusal(options(port, 1, 2, quick))).toMatch(
      /no rendezvous at .* within 0.5 s: rank 0 has not come, nobody listens there$/
    )
  })

  it("tells everybody who has not come, though they began a little sooner than rank 0", async () => {
    const port = await freePort()
    const member = refusal(options(port, 1, 3, { timeoutSeconds: 0.6 }))
    await new Promise((go) => setTimeout(go, 300))
    const host = await refusal(options(port, 0, 3, { timeoutSeconds: 0.6 }))
    expect(host).toBe(`rank 0: rank 2 has not come to 127.0.0.1:${port} within 0.6 s`)
    expect(await member).toBe(`rank 1: refused by 127.0.0.1:${port}: ${host.slice("rank 0: ".length)}`)
  })

  it("tells who had come and is gone, at either end", async () => {
    let port = await freePort()
    const wait = (millis: number) => new Promise((go) => setTimeout(go, millis))
    /** A rank that is ended half a second after it has begun, before all have come. */
    const comesAndGoes = async (rank: number, size = 3): Promise<void> => {
      const running = Effect.runFork(rendezvous(options(port, rank, size)))
      await wait(500)
      await Effect.runPromise(Fiber.interrupt(running))
    }
    // Rank 0 alone could bring all together: without it nobody waits for the end of their time.
    const members = [1, 2].map((rank) => refusal(options(port, rank, 4, { timeoutSeconds: 600 })))
    await comesAndGoes(0, 4)
    for (const [i, member] of members.entries())
      expect(await member).toBe(
        `rank ${i + 1}: no rendezvous at 127.0.0.1:${port}: rank 0 was there, and hung up before all had come; now nobody listens there`
      )
    port = await freePort()
    const one = refusal(options(port, 0, 3, { timeoutSeconds: 1 }))
    await comesAndGoes(1)
    expect(await one).toMatch(/^rank 0: rank 2 has not come to .* within 1 s; rank 1 has come, and hung up$/)
    port = await freePort()
    const both = refusal(options(port, 0, 3, { timeoutSeconds: 2 }))
    await comesAndGoes(1)
    await comesAndGoes(2)
    expect(await both).toMatch(/^rank 0: ranks 1, 2 have come to .* within 2 s, and hung up before all had$/)
  })

  it("tells of a rank 0 that is stopped, not of nobody", async () => {
    const silent = createServer()
    const port = await freePort()
    await new Promise<void>((done) => silent.listen(port, "127.0.0.1", done))
    try {
      expect(await refusal(options(port, 1, 2, { timeoutSeconds: 0.5 }))).toMatch(
        /within 0.5 s: whoever listens there does not answer as rank 0 of a job$/
      )
    } finally {
      silent.close()
    }
  })

  it("does not take who does not know the secret, and goes on without them", async () => {
    const port = await freePort()
    const all = Promise.all([meet(options(port, 0, 2)), new Promise((go) => setTimeout(go, 400))])
    const stranger = await refusal(options(port, 1, 2, { secret: freshSecret(), timeoutSeconds: 0.6 }))
    expect(stranger).toMatch(/does not know this job's secret/)
    await meet(options(port, 1, 2))
    await all
  })

  it("tells of whom it has heard, also where the time is over before they answer again", async () => {
    let comes = 0
    const other = createServer((connection) => {
      connection.on("error", () => {})
      if (comes++ === 0) connection.write(`${JSON.stringify({ nonce: "theirs", proof: "none" })}\n`)
    })
    const port = await freePort()
    await new Promise<void>((done) => void other.listen(port, "127.0.0.1", done))
    try {
      const text = await refusal(options(port, 1, 2, { timeoutSeconds: 0.8 }))
      expect(text).toMatch(/whoever listens there does not know this job's secret$/)
      expect(comes).toBe(2)
    } finally {
      other.close()
    }
  })

  it("tells at both ends that a secret is another, where nobody else comes", async () => {
    const port = await freePort()
    const [host, member] = await Promise.all([
      refusal(options(port, 0, 2, { timeoutSeconds: 1.5 })),
      refusal(options(port, 1, 2, { secret: freshSecret(), timeoutSeconds: 1 }))
    ])
    expect(host).toMatch(
      /^rank 0: rank 1 has not come to .* within 1.5 s; from 127.0.0.1 somebody came who does not know this job's secret: /
    )
    expect(member).toMatch(/whoever listens there does not know this job's secret$/)
  })

  it.each([
    ["another size", { size: 3 }, /rank 1 says the job has 3 processes, rank 0 says 2/],
    [
      "another version",
      { alike: { version: "1.0.1", plan: "abc" } },
      /version of rank 1 is 1.0.1, that of rank 0 is 1.0.0/
    ],
    [
      "a file that rank 0 has not",
      { alike: { version: "1.0.0", plan: "abc", "costs: a.csv": "12 of 3 B" } },
      /costs: a.csv of rank 1 is 12 of 3 B, that of rank 0 is missing/
    ],
    [
      "another plan",
      { alike: { version: "1.0.0", plan: "xyz" } },
      /plan of rank 1 is xyz, that of rank 0 is abc/
    ]
  ])("ends everywhere when one comes with %s", async (_, change, said) => {
    const port = await freePort()
    const [host, member] = await Promise.all([
      refusal(options(port, 0, 2)),
      refusal(options(port, 1, 2, change as Partial<RendezvousOptions>))
    ])
    expect(host).toMatch(said)
    expect(member).toMatch(said)
  })

  it("turns away a second of a rank, and one who comes late", async () => {
    const port = await freePort()
    const host = meet(options(port, 0, 3))
    const one = meet(options(port, 1, 3))
    await new Promise((go) => setTimeout(go, 300))
    expect(await refusal(options(port, 1, 3))).toMatch(/a second process says that it is rank 1/)
    await Promise.all([host, one, meet(options(port, 2, 3))])
    expect(await refusal(options(port, 2, 3))).toMatch(/rank 2 comes too late: the job has begun/)
  })

  it("says when its port is taken, or nothing can be listened on", async () => {
    const port = await freePort()
    await meet(options(port, 0, 1))
    expect(await refusal(options(port, 0, 2))).toMatch(/is taken: another program, or another job/)
    const nowhere = options(port, 0, 2, {
      listen: () => {
        throw new Error("cannot listen on 10.1.2.3: no such address")
      },
      master: { host: "127.0.0.1", port: await freePort() }
    })
    expect(await refusal(nowhere)).toBe("rank 0: cannot listen on 10.1.2.3: no such address")
  })

  it("says in words of an address that is none what it is to be, at either end", async () => {
    const nowhere = (rank: number) =>
      options(29_500, rank, 2, { master: { host: "nowhere.invalid", port: 29_500 }, timeoutSeconds: 2 })
    expect(await refusal(nowhere(0))).toMatch(
      /cannot listen on nowhere.invalid:29500: (?:no address is known of that name|whoever knows addresses of names does not answer); rank 0 listens on its own host, whose name/u
    )
    expect(await refusal(nowhere(1))).toMatch(
      /^rank 1: no rendezvous at nowhere.invalid:29500 within 2 s: (?:no address is known of that name|whoever knows .*); MASTER_ADDR is to be a name or address of rank 0's host by which all hosts reach it$/u
    )
    const other = { master: { host: "198.51.100.7", port: 29_500 }, timeoutSeconds: 0.5 }
    expect(await refusal(options(29_500, 0, 2, other))).toMatch(
      /: this host has no such address; rank 0 listens/u
    )
  })

  it("ends when it is interrupted", async () => {
    const port = await freePort()
    const fiber = Effect.runFork(rendezvous(options(port, 0, 2)))
    await new Promise((go) => setTimeout(go, 100))
    await Effect.runPromise(Fiber.interrupt(fiber))
    await meet(options(port, 0, 1))
  })

  it("ends when a job that waits for it is interrupted", async () => {
    const place = { rank: 1, size: 2, localRank: undefined, launcher: "test" }
    const master = { host: "127.0.0.1", port: await freePort() }
    const joining = ProcessJob.use(
      { place: { ...place, master }, secret, alike: {}, timeoutSeconds: 20 },
      () => Effect.void
    )
    const fiber = Effect.runFork(joining)
    await new Promise((go) => setTimeout(go, 100))
    const began = performance.now()
    await Effect.runPromise(Fiber.interrupt(fiber))
    expect(performance.now() - began).toBeLessThan(10_000)
    const exit = await Effect.runPromise(Fiber.await(fiber))
    expect(Exit.isFailure(exit) && Cause.hasInterrupts(exit.cause)).toBe(true)
  })

  it.skipIf("missing" in loadAddon())(
    "leaves its port to the next job where those who have met do not connect",
    async () => {
      const port = await freePort()
      const place = { rank: 0, size: 2, localRank: undefined, launcher: "test" }
      const joining = ProcessJob.use(
        {
          place: { ...place, master: { host: "127.0.0.1", port } },
          secret,
          alike: {},
          transport: "tcp",
          timeoutSeconds: 20
        },
        () => Effect.void
      )
      const fiber = Effect.runFork(joining)
      await meet(options(port, 1, 2, { alike: { transport: "tcp" } }))
      await Effect.runPromise(Fiber.interrupt(fiber))
      await meet(options(port, 0, 1))
    }
  )

  // A soak of 10,000: TANDEM_SOAK=5 npm run soak -- test/job/rendezvous.test.ts
  it("outlives whatever is sent to its port", async () => {
    const soak = Number(process.env["TANDEM_SOAK"] ?? 0)
    const attempts = soak > 0 ? 2000 * soak : 200
    const port = await freePort()
    const host = meet(options(port, 0, 2, { timeoutSeconds: 600 }))
    await new Promise((go) => setTimeout(go, 100))
    let seed = 1
    const draw = (below: number): number => {
      seed = (seed * 48271) % 2147483647
      return seed % below
    }
    const hello = `{"protocol":"tandem-rendezvous-2","nonce":"00"}\n`
    const card = `{"card":"{\\"rank\\":1,\\"size\\":2}","proof":"00"}\n`
    const kinds = { cut: 0, changed: 0, noise: 0, silent: 0 }
    for (let i = 0; i < attempts; i++) {
      const kind = (["cut", "changed", "noise", "silent"] as const)[draw(4)]!
      kinds[kind]++
      const whole = draw(2) === 0 ? hello : hello + card
      const bytes = Buffer.from(kind === "noise" ? Buffer.alloc(draw(300)) : whole)
      for (let at = 0; kind === "noise" && at < bytes.length; at++) bytes[at] = draw(256)
      if (kind === "changed") bytes[draw(bytes.length)] = draw(256)
      await new Promise<void>((done) => {
        const socket = createConnection(port, "127.0.0.1", () => {
          if (kind === "silent") {
            // One that holds its connection and says nothing.
            if (sockets.length < 50) sockets.push(socket)
            else socket.destroy()
            return done()
          }
          socket.write(kind === "cut" ? bytes.subarray(0, draw(bytes.length)) : bytes)
          if (draw(2) === 0) socket.end()
          else setTimeout(() => socket.destroy(), 1)
        })
        socket.on("error", () => {})
        socket.on("close", () => done())
        socket.resume()
      })
    }
    for (const count of Object.values(kinds)) expect(count).toBeGreaterThan(10)
    const [one, two] = await Promise.all([host, meet(options(port, 1, 2))])
    expect(one.addresses).toEqual(two.addresses)
  })
})
