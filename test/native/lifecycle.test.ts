// How sessions begin and end, in processes of their own: what is queued when a process ends, what fails when it opens, what
// the system refuses. A child that crashes, hangs or lives on fails its test.
import { execFileSync, spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"
import { loadAddon, type Addon } from "../../exec/native-addon.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { launch } from "../../core/machine/op.ts"
import { describeNative, tensorOn, withSession } from "./addon.ts"

const root = new URL("../../", import.meta.url)

const preamble = `
  import { kernels } from "${root.href}core/kernels/catalogue.ts"
  import { launch } from "${root.href}core/machine/op.ts"
  import { NativeSession } from "${root.href}exec/native.ts"
  const tensor = (id) => ({ id, name: "t", shape: [1000], dtype: "float32", place: "device", elements: 1000, sizeBytes: 4000 })
`

/** Runs a module in a process of its own, which must end by itself. */
const child = (body: string) => {
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    ["--input-type=module", "-e", preamble + body],
    { cwd: fileURLToPath(root), encoding: "utf8", timeout: 60_000 }
  )
  return { status, signal, stdout: stdout.trim(), stderr }
}

const ended = { status: 0, signal: null }

const busy = `
  const session = NativeSession.open({ ranks: 2 })
  for (const rank of session.ranks) {
    rank.alloc(tensor(0))
    const op = launch("copy", kernels.copy, 0, [tensor(0)], [tensor(0)])
    for (let i = 0; i < 200; i++) rank.whenEnded(0, rank.submit(op, 0), () => {})
  }
`

describeNative("a process", () => {
  it("ends while a call into it is queued: by its end, by exit, by an error, by a worker's end", () => {
    expect(child(busy)).toMatchObject(ended)
    expect(child(`${busy}\nprocess.exit(0)`)).toMatchObject(ended)
    expect(child(`${busy}\nsession.close()`)).toMatchObject(ended)
    expect(child(`${busy}\nsession.abort("enough")`)).toMatchObject(ended)
    expect(child(`${busy}\nthrow new Error("on purpose")`)).toMatchObject({ status: 1, signal: null })
    const inside = `data:text/javascript,${encodeURIComponent(`${preamble}${busy}\nprocess.exit(0)`)}`
    const outside = `
      import { Worker } from "node:worker_threads"
      const worker = new Worker(new URL(${JSON.stringify(inside)}))
      worker.on("exit", () => console.log("ended"))
      worker.on("error", (error) => console.log(String(error)))
    `
    expect(child(outside)).toMatchObject({ ...ended, stdout: "ended" })
  })

  it("ends after a session was opened and nothing was done with it", () => {
    expect(child("NativeSession.open({ ranks: 3 })")).toMatchObject(ended)
    expect(child("NativeSession.open({ ranks: 3 }).close()")).toMatchObject(ended)
  })

  it("ends when a session could not be opened", () => {
    for (const options of [
      "{ ranks: 0 }",
      "{ ranks: 1, h2d: { bytesPerSecond: -1, latencySeconds: 0 } }",
      "{ ranks: 1, linkBytesPerSecond: [0] }",
      '{ ranks: 1, backend: "abacus" }',
      "{ ranks: 1, settings: { seed: 1 } }"
    ]) {
      const { status, signal, stdout } = child(
        `try { NativeSession.open(${options}) } catch (error) { console.log(error.constructor.name) }`
      )
      expect({ status, signal, stdout }, options).toEqual({ ...ended, stdout: "RangeError" })
    }
  })

  it("is told when the system gives it no more threads, and goes on", () => {
    try {
      execFileSync("prlimit", ["--version"])
    } catch {
      console.warn("skipped: there is no prlimit here to take a child's memory for threads away with")
      return
    }
    const { status, signal, stdout } = child(`
      import { execFileSync } from "node:child_process"
      import { readFileSync } from "node:fs"
      const limit = (bytes) => execFileSync("prlimit", ["--pid", String(process.pid), "--as=" + bytes])
      const session = NativeSession.open({ ranks: 1 })
      const rank = session.ranks[0]
      rank.alloc(tensor(0))
      const op = launch("copy", kernels.copy, 1, [tensor(0)], [tensor(0)])
      rank.prepare(op)
      const pages = Number(readFileSync("/proc/self/statm", "utf8").split(" ")[0])
      // a thread's stack has no room any more
      limit(pages * 4096 + (1 << 20) + ":")
      rank.submit(op, 0)
      rank.whenDrained(() => {
        limit("unlimited:")
        const { kind, rank, message } = session.fault
        console.log(kind, rank, message.includes("thread"))
        session.close()
      })
    `)
    expect({ status, signal, stdout }).toEqual({ ...ended, stdout: "thread 0 true" })
  })

  it("of a run that memory does not suffice for says so, whatever is queued", () => {
    for (const device of ["100kB", "60kB", "80kB"]) {
      const { status, stderr } = spawnSync(
        process.execPath,
        [
          "bin/exec.js",
          "generate",
          "scenarios/agree/expert-offload.yaml",
          "--set",
          `memory={device: ${device}}`
        ],
        { cwd: fileURLToPath(root), encoding: "utf8", timeout: 60_000 }
      )
      expect(status, stderr).toBe(1)
      expect(stderr).toMatch(/device memory/)
    }
  })
})

const meshes = `
  import * as Effect from "${new URL("node_modules/effect/dist/Effect.js", root).href}"
  import { Mesh } from "${root.href}exec/job/mesh.ts"
  const host = "127.0.0.1"
  const connect = (mesh, ports, seconds = 20) =>
    Effect.runPromise(mesh.connect(ports.map((port) => ({ host, port })), "key", seconds))
  const pair = async () => {
    const all = [0, 1].map((rank) => new Mesh({ rank, size: 2, host }))
    await Promise.all(all.map((mesh) => connect(mesh, all.map(({ port }) => port))))
    return all
  }
`

describeNative("a process on a mesh", () => {
  it("ends while it connects to a peer who does not come", () => {
    // Port 1 is nobody's.
    const waiting = `${meshes}
      const mesh = new Mesh({ rank: 0, size: 2, host })
      const connecting = connect(mesh, [mesh.port, 1], 1)
      await new Promise((go) => setTimeout(go, 50))
    `
    expect(child(`${waiting}\nprocess.exit(0)`)).toMatchObject(ended)
    const closed = `${waiting}\nmesh.close()\nawait connecting.catch(({ _tag }) => console.log(_tag))`
    expect(child(closed)).toMatchObject({ ...ended, stdout: "NoRendezvous" })
  })

  it("neither hears nor fails by what had come before the mesh was closed, and who answers it answers nobody", () => {
    // As the part of a checkpoint that a rank tells of while rank 0 ends, for it has lost another.
    const closing = `${meshes}
      const [mesh, other] = await pair()
      const left = () => {}
      mesh.onTold((peer) => mesh.tell(peer, "heard"), left, left)
      other.onTold(() => console.log("answered"), left, left)
      for (let i = 0; i < 100; i++) other.tell(0, i)
      // What comes waits for this thread.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)
      mesh.close()
      mesh.tell(1, "late")
      await new Promise((go) => setTimeout(go, 100))
      other.close()
    `
    expect(child(closing)).toMatchObject({ ...ended, stdout: "" })
  })

  it.each([
    ["others who do not come", 0],
    ["whoever takes its connection and says nothing", 1]
  ] as const)("ends soon where it is interrupted while it waits for %s", (_, rank) => {
    const interrupted = `${meshes}
      import { createServer } from "node:net"
      import * as Fiber from "${new URL("node_modules/effect/dist/Fiber.js", root).href}"
      const silent = createServer().listen(0, host)
      await new Promise((go) => silent.on("listening", go))
      const began = performance.now()
      process.on("exit", () => console.log(performance.now() - began < 5000 ? "soon" : "late"))
      const mesh = new Mesh({ rank: ${rank}, size: 2, host })
      const ports = ${rank} === 0 ? [mesh.port, 1] : [silent.address().port, mesh.port]
      const fiber = Effect.runFork(mesh.connect(ports.map((port) => ({ host, port })), "key", 50))
      await new Promise((go) => setTimeout(go, 300))
      await Effect.runPromise(Fiber.interrupt(fiber))
      silent.close()
    `
    expect(child(interrupted)).toMatchObject({ ...ended, stdout: "soon" })
  })

  it("ends while notes and faults are on their way to it", () => {
    const told = `${meshes}
      const [a, b] = await pair()
      let heard = 0
      const flood = () => { for (let i = 0; i < 5000; i++) b.tell(0, { i, of: new Float64Array(100) }) }
    `
    const exits = "() => { if (++heard === 100) process.exit(0) }"
    expect(child(`${told}\na.onTold(${exits}, () => {}, () => {})\nflood()`)).toMatchObject(ended)
    expect(
      child(`${told}\na.onTold(() => {}, () => {}, () => process.exit(0))\nflood()\nb.fail("enough")`)
    ).toMatchObject(ended)
    const late = 'process.on("exit", () => { a.fail("enough"); flood() })\nprocess.exit(0)'
    expect(child(`${told}\na.onTold(() => {}, () => {}, () => {})\n${late}`)).toMatchObject(ended)
  })

  it("is ended by what a handler throws, with its words", () => {
    for (const handlers of ["told, () => {}, () => {}", "() => {}, () => {}, told"]) {
      const { status, signal, stderr } = child(`${meshes}
        const [a, b] = await pair()
        const told = () => { throw new Error("on purpose") }
        a.onTold(${handlers})
        b.tell(0, 1)
        b.fail("enough")
      `)
      expect({ status, signal }, stderr).toEqual({ status: 1, signal: null })
      expect(stderr).toContain("on purpose")
    }
  })

  it("of which a worker ends while others tell it things goes on", () => {
    const inside = `${meshes}
      import { parentPort, workerData } from "node:worker_threads"
      const mesh = new Mesh({ rank: 0, size: 2, host })
      parentPort.postMessage(mesh.port)
      await connect(mesh, [mesh.port, workerData])
      let heard = 0
      mesh.onTold(() => { if (++heard === 100) process.exit(0) }, () => {}, () => {})
    `
    const outside = `${meshes}
      import { Worker } from "node:worker_threads"
      const code = ${JSON.stringify(`data:text/javascript,${encodeURIComponent(inside)}`)}
      for (let round = 0; round < 2; round++) {
        const mesh = new Mesh({ rank: 1, size: 2, host })
        const worker = new Worker(new URL(code), { workerData: mesh.port })
        let over = false
        const exit = new Promise((resolve) => worker.on("exit", (status) => resolve((over = true, status))))
        await connect(mesh, [await new Promise((resolve) => worker.on("message", resolve)), mesh.port])
        while (!over) {
          for (let i = 0; i < 500; i++) mesh.tell(0, i)
          await new Promise((go) => setImmediate(go))
        }
        console.log(await exit)
        mesh.close()
      }
    `
    expect(child(outside)).toMatchObject({ ...ended, stdout: "0\n0" })
  })
})

describeNative("the addon itself", () => {
  const options = {
    backend: "cpu",
    settings: {},
    ranks: 1,
    deviceBytes: Infinity,
    hostBytes: Infinity,
    h2d: [Infinity, 0],
    d2h: [Infinity, 0],
    linkBytesPerSecond: [],
    timed: false,
    onProgress: () => {}
  } as const

  it("refuses codes and counts that are none", () => {
    const session = (loadAddon() as Addon).openSession(options)
    try {
      const rank = session.rank(0)
      for (const place of [-1, 2, 256, 2 ** 31 - 1])
        expect(() => rank.alloc(0, place, 0, [1], true)).toThrow(RangeError)
      for (const dtype of [-1, 7, 256]) expect(() => rank.alloc(0, 0, dtype, [1], true)).toThrow(RangeError)
      expect(() => rank.freeBytes(9)).toThrow(RangeError)
      expect(() => session.rank(1)).toThrow(RangeError)
      expect(() => rank.ended(9)).toThrow(RangeError)
      expect(() => rank.take(3, new Float32Array(1))).toThrow(RangeError)
      const none = [undefined, undefined, undefined, undefined, undefined] as const
      expect(() => rank.submit(0, 6, ...none)).toThrow(TypeError)
      expect(() => rank.submit(0, -1, ...none)).toThrow(TypeError)
      expect(() => rank.submit(0, 1, ...none)).toThrow(TypeError)
      expect(() => rank.submit(0, 0, ...none)).toThrow(RangeError)
    } finally {
      session.close()
    }
  })

  it("survives buffers that are taken away", async () => {
    await withSession({ ranks: 1 }, async (_, rank) => {
      const a = tensorOn(rank!, [4])
      const values = new Float32Array(4)
      structuredClone(values, { transfer: [values.buffer] })
      expect(() => rank!.write(a, values)).toThrow(RangeError)
      const edges = new Int32Array(5)
      rank!.takeEdgesFrom(edges)
      structuredClone(edges, { transfer: [edges.buffer] })
      const copy = launch("copy", kernels.copy, 0, [a], [a])
      expect(rank!.submit(copy, 0)).toBe(0)
      expect(() => rank!.submit(copy, 1)).toThrow(TypeError)
    })
  })
})
