// What bench/cluster/what-if.ts asks of both machines: scenarios that load, in worlds whose links are those that namespaces have.
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import {
  algorithmsOf,
  laidOut,
  layoutOf,
  layoutSettings,
  nvlink,
  pointNamed
} from "../../bench/cluster/what-if-choices.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"

const file = path.resolve("scenarios/measured/what-if-gpt2.yaml")
const gpu = { backend: "cuda", period: 20, wire: "bfloat16" }

const linksOf = async (set: ReadonlyArray<string>) => {
  const scenario = await Effect.runPromise(
    loadScenario(file, ["device=NVIDIA H200", "steps=1", "world.links.inter.bandwidth=1Gbit/s", ...set])
  )
  const { result } = await Effect.runPromise(runScenario(scenario, file, { loader: new Loader() }))
  const { links, steps, details } = result as unknown as {
    readonly links: ReadonlyArray<{ readonly name: string; readonly tier: string; readonly bytes: number }>
    readonly steps: number
    readonly details: unknown
  }
  return { links, steps, details }
}

describe("what is asked of what-if runs", () => {
  it("is a host for each rank, or sites of as many", () => {
    expect(layoutOf(4, undefined, false)).toEqual({ ranks: 4, hosts: 4, perHost: 1, sharded: false })
    expect(layoutOf(8, 2, false)).toEqual({ ranks: 8, hosts: 2, perHost: 4, sharded: true })
    expect(layoutOf(4, 2, true)).toMatchObject({ perHost: 2, sharded: false })
    for (const sites of [1, 3]) expect(() => layoutOf(4, sites, false)).toThrow(/--sites .*a divisor of 4/u)
  })

  it("is a bandwidth with what becomes of the first host's", () => {
    expect(pointNamed("25Gbit/s")).toMatchObject({ bytesPerSecond: 25e9 / 8, host0: "as the others" })
    expect(pointNamed("drop:1Gbit/s")).toMatchObject({ bytesPerSecond: 125e6, host0: "drop" })
    expect(pointNamed(nvlink).bytesPerSecond).toBe(450e9)
    expect(pointNamed("asymmetric:200Mbit/s@15ms")).toMatchObject({
      bytesPerSecond: 25e6,
      latencySeconds: 0.015,
      host0: "asymmetric"
    })
    expect(pointNamed("1Gbit/s").latencySeconds).toBe(0)
    expect(() => pointNamed("slow:1Gbit/s")).toThrow(/asymmetric:/u)
  })

  it("lies on the wire as it is sent: narrow values go from everybody to everybody", () => {
    const [two, four, sites] = [
      layoutOf(2, undefined, false),
      layoutOf(4, undefined, false),
      layoutOf(4, 2, false)
    ]
    const direct = ["collectives.algorithm=direct"]
    // NCCL adds 16-bit values itself; parts are float32, and are rounded to be sent.
    expect([two, four, sites].map((layout) => laidOut("ddp", gpu, layout))).toEqual([[], [], direct])
    const exact = { ...gpu, exactSums: true }
    expect([two, four, sites].map((layout) => laidOut("ddp", exact, layout))).toEqual([[], direct, direct])
    expect(laidOut("ddp", { ...gpu, wire: "float8" }, four)).toEqual(direct)
    expect(laidOut("local-sgd", gpu, four)).toEqual([])
    expect(laidOut("streaming-diloco", gpu, two)).toEqual(direct)
    expect(laidOut("ddp", { ...gpu, wire: "float32" }, four)).toEqual([])
    expect(laidOut("streaming-diloco", { ...gpu, backend: "cpu" }, four)).toEqual([])
  })

  it("is a world in which a site's ranks share one link, whose bytes are those of their parts", async () => {
    const layout = layoutOf(4, 2, false)
    const algorithms = algorithmsOf(gpu, layout.sharded)
    const bytesOf = async (name: string) => {
      const set = [...layoutSettings(layout), `algorithm=${algorithms[name]}`, ...laidOut(name, gpu, layout)]
      const { links } = await linksOf(set)
      const bytes = (tier: string) =>
        links.filter((link) => link.tier === tier).reduce((sum, link) => sum + link.bytes, 0)
      return { intra: bytes("intra"), inter: bytes("inter") }
    }
    for (const name of Object.keys(algorithms)) {
      const { intra, inter } = await bytesOf(name)
      expect(intra).toBeGreaterThan(0)
      expect(inter).toBeGreaterThan(0)
    }
    // 124M parameters in bfloat16, each of which a rank of either site sends once a step: in the first, which is warm-up, too.
    const { inter } = await bytesOf("ddp")
    const steps = inter / (2 * 2 * 2 * 124.4e6)
    expect(steps).toBeGreaterThan(1)
    expect(Math.abs(steps - Math.round(steps))).toBeLessThan(0.02)
  })
})
