// What a world may be made of, whoever makes it: whole ranks, and links of times and rates that are numbers.
import { describe, expect, it } from "vitest"
import { makeWorld, unlimited, type World } from "../core/world.ts"

const nodes = (counts: ReadonlyArray<number>, inter = unlimited, intra = unlimited): World =>
  makeWorld([{ name: "here", nodes: counts }], { intra, inter, wan: undefined })

describe("a world that cannot be", () => {
  const link = (bytesPerSecond: number, latencySeconds: number) => ({ bytesPerSecond, latencySeconds })
  const pair = (one: ReturnType<typeof link>) =>
    makeWorld(
      ["a", "b"].map((name) => ({ name, nodes: [1] })),
      {
        intra: unlimited,
        inter: unlimited,
        wan: { pairs: [{ from: "a", to: "b", link: one }] }
      }
    )

  it.each([NaN, -1, 0.5, Infinity, 2 ** 53])("is refused: a node of %s ranks", (ranks) => {
    expect(() => nodes([1, ranks])).toThrow(`site here: a node of ${ranks} ranks; expected a whole number`)
  })

  it.each([NaN, -1])("is refused: a link of %s bytes per second", (rate) => {
    const says = `bytesPerSecond is ${rate}; expected at least 0, or Infinity`
    expect(() => nodes([1, 1], link(rate, 0))).toThrow(`links.inter: ${says}`)
    expect(() => nodes([1, 1], unlimited, link(rate, 0))).toThrow(`links.intra: ${says}`)
    expect(() => pair(link(rate, 0))).toThrow(`links.wan, a to b: ${says}`)
  })

  it.each([NaN, -1, Infinity])("is refused: a link of a latency of %s s", (latency) => {
    expect(() => nodes([1, 1], link(1, latency))).toThrow(
      `links.inter: latencySeconds is ${latency}; expected`
    )
  })

  it("but a link that is down is one", () => {
    expect(nodes([1, 1], link(0, 1)).size).toBe(2)
  })
})
