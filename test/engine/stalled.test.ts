// Flows that nothing will move any more: which they are, and which links keep each from moving.
import { describe, expect, it } from "vitest"
import { Engine, type Activity } from "../../sim/engine/engine.ts"

const link = (name: string, bytesPerSecond: number) => ({ name, bytesPerSecond, latencySeconds: 0 })
const engineOn = (network: "fluid" | "alpha-beta", ...links: Array<ReturnType<typeof link>>) =>
  new Engine({ network, links })

const flowOver = (engine: Engine, links: ReadonlyArray<number>, bytes: number): Activity => {
  const flow = engine.flow(engine.route(links), bytes)
  engine.release(flow)
  return flow
}

describe("flows that no longer move", () => {
  it("are told each with the links that are down, and those that move are not", () => {
    for (const network of ["fluid", "alpha-beta"] as const) {
      const engine = engineOn(network, link("a", 0), link("b", 0), link("c", 1))
      const flows = [[0], [0, 2], [1], [2], [2, 1], []].map((links) => [
        flowOver(engine, links, 4),
        links.filter((one) => one < 2).map((one) => "ab"[one]!)
      ])
      engine.at(1, 0)
      engine.step()
      const told = engine.waiting().map(({ activity, links }) => [activity, links])
      const down = flows.filter(([, links]) => (links as ReadonlyArray<string>).length > 0)
      // One link serves one flow at a time there: who stands behind another waits for the link, too.
      const behind = [
        [flows[1]![0], ["a"]],
        [flows[3]![0], ["c"]],
        [flows[4]![0], ["c", "b"]]
      ]
      expect(told, network).toEqual(
        network === "fluid" ? down : [flows[0], behind[0], flows[2], behind[1], behind[2]]
      )
    }
  })

  it("are told however many there are on one link", () => {
    const engine = engineOn("fluid", link("down", 0))
    // Smaller and smaller: each becomes the root of the heap that holds the others.
    const count = 20_000
    for (let i = 0; i < count; i++) flowOver(engine, [0], count - i)
    expect(engine.step()).toBe(false)
    expect(engine.waiting()).toHaveLength(count)
  })
})
