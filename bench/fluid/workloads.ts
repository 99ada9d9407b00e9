// Three synthetic training workloads as activities and flows, exactly as bench/fluid/simgrid_fluid.cpp builds them for
// SimGrid, in the same order, so that the two can be compared activity by activity:
//   ps    N workers push each layer's gradient through one shared link, a server aggregates, they pull it back
//   ring  layer-wise ring all-reduce, one communication stream per worker; every hop crosses one of two shared links
//   a2a   per layer: compute, all-to-all, compute, all-to-all
// All numbers derive from integers.

import { Engine, type Activity, type Route } from "../../sim/engine/engine.ts"

export const workloads = ["ps", "ring", "a2a"] as const
export type Workload = (typeof workloads)[number]

interface Size {
  readonly workers: number
  readonly layers: number
  readonly iterations: number
  /** Latency of each shared link. */
  readonly latencySeconds: number
}

/** Called for every activity, in order of creation, before it can start. `name` builds its name on demand. */
export type OnActivity = (activity: Activity, kind: "exec" | "comm", name: () => string) => void

const SPEED = 1e12 // FLOP/s of a worker
const SHARED = 1.25e9 // bytes/s of a shared link
const nic = (i: number) => 1.25e8 * (10 + ((i * 3) % 7))
const forwardFlops = (i: number, l: number) => 1e9 * (100 + ((i * 7 + l * 13) % 17))
const layerBytes = (l: number) => 4000000 + 500000 * ((l * 5) % 11)
const tokenBytes = (i: number, j: number, l: number) => 40000 + 4000 * ((i * 31 + j * 17 + l * 7) % 13)

/** An engine with the whole workload in it, ready to run from time 0. */
export function build(workload: Workload, size: Size, onActivity?: OnActivity): Engine {
  const { workers: n, latencySeconds } = size
  const links: Array<{ name: string; bytesPerSecond: number; latencySeconds: number }> = []
  for (let i = 0; i < n; i++) links.push({ name: `up${i}`, bytesPerSecond: nic(i), latencySeconds: 0 })
  for (let i = 0; i < n; i++) links.push({ name: `dn${i}`, bytesPerSecond: nic(i), latencySeconds: 0 })
  links.push({ name: "bbu", bytesPerSecond: SHARED, latencySeconds })
  links.push({ name: "bbd", bytesPerSecond: SHARED, latencySeconds })
  const engine = new Engine({ network: "fluid", links })
  const builder = new Builder(engine, onActivity)
  if (workload === "ps") parameterServer(builder, size)
  else if (workload === "ring") ring(builder, size)
  else allToAll(builder, size)
  return engine
}

/** Creates activities, names their predecessors and starts them, one after the other. */
class Builder {
  readonly engine: Engine
  readonly #onActivity: OnActivity | undefined

  constructor(engine: Engine, onActivity: OnActivity | undefined) {
    this.engine = engine
    this.#onActivity = onActivity
  }

  exec(flops: number, name: () => string): Activity {
    const activity = this.engine.work(flops / SPEED)
    this.#onActivity?.(activity, "exec", name)
    return activity
  }

  comm(route: Route, bytes: number, name: () => string): Activity {
    const activity = this.engine.flow(route, bytes)
    this.#onActivity?.(activity, "comm", name)
    return activity
  }
}

const NONE = -1

function parameterServer(b: Builder, { workers: n, layers, iterations }: Size): void {
  const { engine } = b
  const push: Array<Route> = []
  const pull: Array<Route> = []
  for (let i = 0; i < n; i++) {
    push.push(engine.route([i, 2 * n]))
    pull.push(engine.route([2 * n + 1, n + i]))
  }
  const previous = new Float64Array(n).fill(NONE)
  const pulled = new Float64Array(n * layers)
  for (let it = 0; it < iterations; it++) {
    for (let l = 0; l < layers; l++)
      for (let i = 0; i < n; i++) {
        const f = b.exec(forwardFlops(i, l), () => `F i${i} it${it} l${l}`)
        if (previous[i] !== NONE) engine.after(f, previous[i]!)
        if (it > 0) engine.after(f, pulled[i * layers + l]!)
        engine.release(f)
        previous[i] = f
      }
    for (let l = layers - 1; l >= 0; l--) {
      const aggregate = b.exec(1e6, () => `A it${it} l${l}`)
      for (let i = 0; i < n; i++) {
        const backward = b.exec(2 * forwardFlops(i, l), () => `B i${i} it${it} l${l}`)
        engine.after(backward, previous[i]!)
        engine.release(backward)
        previous[i] = backward
        const p = b.comm(push[i]!, layerBytes(l), () => `PUSH i${i} it${it} l${l}`)
        engine.after(p, backward)
        engine.release(p)
        engine.after(aggregate, p)
      }
      for (let i = 0; i < n; i++) {
        const q = b.comm(pull[i]!, layerBytes(l), () => `PULL i${i} it${it} l${l}`)
        engine.after(q, aggregate)
        engine.release(q)
        pulled[i * layers + l] = q
      }
      engine.release(aggregate)
    }
  }
}

function ring(b: Builder, { workers: n, layers, iterations }: Size): void {
  const { engine } = b
  const hop: Array<Route> = []
  for (let i = 0; i < n; i++) hop.push(engine.route([i, 2 * n + (i % 2), n + ((i + 1) % n)]))
  const previous = new Float64Array(n).fill(NONE)
  let last = new Float64Array(n).fill(NONE)
  let current = new Float64Array(n)
  const done = new Float64Array(n * layers)
  for (let it = 0; it < iterations; it++) {
    for (let l = 0; l < layers; l++)
      for (let i = 0; i < n; i++) {
        const f = b.exec(forwardFlops(i, l), () => `F i${i} it${it} l${l}`)
        if (previous[i] !== NONE) engine.after(f, previous[i]!)
        if (it > 0) engine.after(f, done[i * layers + l]!)
        engine.release(f)
        previous[i] = f
      }
    for (let l = layers - 1; l >= 0; l--) {
      for (let i = 0; i < n; i++) {
        const backward = b.exec(2 * forwardFlops(i, l), () => `B i${i} it${it} l${l}`)
        engine.after(backward, previous[i]!)
        engine.release(backward)
        previous[i] = backward
      }
      const bytes = Math.floor(layerBytes(l) / n)
      for (let s = 0; s < 2 * (n - 1); s++) {
        for (let i = 0; i < n; i++) {
          const c = b.comm(hop[i]!, bytes, () => `R i${i} it${it} l${l} s${s}`)
          if (s === 0) engine.after(c, previous[i]!)
          if (last[i] !== NONE) {
            engine.after(c, last[i]!)
            engine.after(c, last[(i + n - 1) % n]!)
          }
          engine.release(c)
          current[i] = c
        }
        const swap = last
        last = current
        current = swap
      }
      for (let i = 0; i < n; i++) done[i * layers + l] = last[(i + n - 1) % n]!
    }
  }
}

function allToAll(b: Builder, { workers: n, layers, iterations }: Size): void {
  const { engine } = b
  const routes: Array<Route> = []
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) routes.push(i === j ? NONE : engine.route([i, n + j]))
  const previous = new Float64Array(n).fill(NONE)
  const computes = new Float64Array(n)
  const incoming = new Float64Array(n * n).fill(NONE) // to j from i: [j * n + i]
  for (let it = 0; it < iterations; it++)
    for (let l = 0; l < layers; l++)
      for (let phase = 0; phase < 2; phase++) {
        for (let i = 0; i < n; i++) {
          const x = b.exec(forwardFlops(i, l + phase) / 100, () => `X i${i} l${it * layers + l} ph${phase}`)
          if (previous[i] !== NONE) engine.after(x, previous[i]!)
          previous[i] = x
          for (let j = 0; j < n; j++) {
            const before = incoming[i * n + j]!
            if (before !== NONE) engine.after(x, before)
          }
          engine.release(x)
          computes[i] = x
        }
        for (let i = 0; i < n; i++)
          for (let j = 0; j < n; j++) {
            if (i === j) continue
            const bytes = phase === 0 ? tokenBytes(i, j, l) : tokenBytes(j, i, l)
            const c = b.comm(routes[i * n + j]!, bytes, () => `T i${i} j${j} l${it * layers + l} ph${phase}`)
            engine.after(c, computes[i]!)
            engine.release(c)
            incoming[j * n + i] = c
          }
      }
}
