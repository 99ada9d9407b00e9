// Collectives that were measured over links of one rate, asked of other links.
import { describe, expect, it } from "vitest"
import { CollectiveTable } from "../../core/cost/collective-table.ts"
import { makeWorld, type Links } from "../../core/world.ts"
import { limitedTableWarnings } from "../../scenarios/resolve.ts"

const link = (bytesPerSecond: number) => ({ bytesPerSecond, latencySeconds: 0 })
const gigabit = 1e9 / 8
const world = (nodes: ReadonlyArray<number>, inter: number, more: Partial<Links> = {}, sites = 1) =>
  makeWorld(
    Array.from({ length: sites }, (_, site) => ({ name: `s${site}`, nodes })),
    { intra: link(Infinity), inter: link(inter), wan: undefined, ...more }
  )
const table = (rate: string) =>
  new CollectiveTable([{ op: "all_reduce", ranks: 2, sizeBytes: 1e6, medianSeconds: 1e-3, link: rate }], rate)

describe("a table of links that were a limit", () => {
  it("is warned of over faster links, and over those alone", () => {
    for (const [gbits, warned] of [
      [1, false],
      [10, false],
      [40, true],
      [Infinity, true]
    ] as const) {
      const warnings = limitedTableWarnings(table("10gbit"), undefined, world([1, 1], gbits * gigabit))
      expect(warnings).toHaveLength(warned ? 1 : 0)
      if (warned) expect(warnings[0]).toMatch(/^collectives\.measured was measured over 10gbit alone/u)
    }
  })

  it("is of the slowest links that this world's collectives cross", () => {
    const slow = link(gigabit)
    // One node: what is between nodes is not crossed.
    expect(limitedTableWarnings(table("10gbit"), undefined, world([2], gigabit))).toHaveLength(1)
    expect(limitedTableWarnings(table("10gbit"), undefined, world([2], Infinity, { intra: slow }))).toEqual(
      []
    )
    expect(
      limitedTableWarnings(table("10gbit"), undefined, world([1, 1], Infinity, { wan: slow }, 2))
    ).toEqual([])
    expect(
      limitedTableWarnings(table("10gbit"), undefined, world([1, 1], Infinity, { wan: slow }, 1))
    ).toHaveLength(1)
  })

  it("is of what it was measured for, where another is of what stays inside nodes", () => {
    const [slow, ten] = [link(gigabit), table("10gbit")]
    const warned = (ours: typeof ten | undefined, inside: typeof ten, inter: number, intra: typeof slow) =>
      limitedTableWarnings(ours, inside, world([2, 2], inter, { intra }))
    expect(warned(ten, ten, gigabit, slow)).toEqual([])
    expect(warned(ten, ten, Infinity, slow)).toEqual([
      expect.stringMatching(/^collectives\.measured was measured over 10gbit alone/u)
    ])
    expect(warned(ten, ten, gigabit, link(Infinity))).toEqual([
      expect.stringMatching(/^collectives\.inside was measured over 10gbit alone/u)
    ])
    expect(warned(undefined, ten, Infinity, slow)).toEqual([])
  })

  it("is not one whose kind of links is no rate", () => {
    for (const kind of ["unshaped", "nvlink"])
      expect(limitedTableWarnings(table(kind), undefined, world([1, 1], Infinity))).toEqual([])
    expect(limitedTableWarnings(undefined, undefined, world([1, 1], Infinity))).toEqual([])
  })
})
