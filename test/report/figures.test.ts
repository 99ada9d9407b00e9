import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { Lane } from "../../core/machine/lane.ts"
import {
  formatAxisValue,
  formatPercent,
  formatRatio,
  formatTick,
  formatTime
} from "../../sim/report/format.ts"
import { assignSlots, palette } from "../../sim/report/palette.ts"
import { linearScale, logScale } from "../../sim/report/scale.ts"
import { laneBars } from "../../sim/report/timeline-figure.ts"
import { shapes } from "./studies.ts"
import { legalRun } from "./timelines.ts"

describe("scales", () => {
  it("puts powers of ten on a log scale, and in bits where bits are printed", () => {
    const scale = logScale([1.25e7, 5e10], 0, 500, { perUnit: 8 })
    expect(scale.ticks.map((tick) => formatTick(tick, "bytesPerSecond"))).toEqual([
      "100M",
      "1G",
      "10G",
      "100G"
    ])
  })

  it("keeps values in order, ticks inside and spacing even, for any values", () => {
    const values = fc.array(fc.double({ min: 1e-6, max: 1e12, noNaN: true }), { minLength: 1, maxLength: 20 })
    const ends = fc.tuple(fc.boolean(), fc.boolean())
    fc.assert(
      fc.property(values, ends, (regular, [withZero, withInfinity]) => {
        const all = [...regular, ...(withZero ? [0] : []), ...(withInfinity ? [Infinity] : [])]
        const scale = logScale(all, 10, 510)
        const places = all.toSorted((a, b) => a - b).map(scale.at)
        places.forEach((at, i) => {
          expect(at).toBeGreaterThanOrEqual(10 - 1e-6)
          expect(at).toBeLessThanOrEqual(510 + 1e-6)
          if (i > 0) expect(at).toBeGreaterThanOrEqual(places[i - 1]! - 1e-6)
        })
        expect(scale.ticks.filter((tick) => tick > 0 && tick < Infinity).length).toBeLessThanOrEqual(8)
        for (const tick of scale.ticks) {
          expect(scale.at(tick)).toBeGreaterThanOrEqual(10 - 1e-6)
          expect(scale.at(tick)).toBeLessThanOrEqual(510 + 1e-6)
        }
        expect(scale.ticks.includes(Infinity)).toBe(withInfinity)
        expect(scale.ticks.includes(0)).toBe(withZero)
      })
    )
  })

  it("steps a linear scale by 1, 2, 2.5 or 5", () => {
    expect(linearScale(0, 1, 0, 100).ticks).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1])
    expect(linearScale(2, 16, 0, 100, 6).ticks).toEqual([2.5, 5, 7.5, 10, 12.5, 15])
    expect(linearScale(0, 0, 0, 100).ticks.every(Number.isFinite)).toBe(true)
  })
})

describe("numbers", () => {
  it("are printed without digits that say nothing", () => {
    expect(formatTime(0.0323)).toBe("32.3 ms")
    expect(formatTime(7)).toBe("7 s")
    expect(formatTime(0.00005)).toBe("50 \u00b5s")
    expect(formatAxisValue(1.25e8, "bytesPerSecond")).toBe("1 Gbit/s")
    expect(formatAxisValue(Infinity, "bytesPerSecond")).toBe("unlimited")
    expect(formatAxisValue(10_000, "count")).toBe("10,000")
    expect(formatPercent(0.0931)).toBe("9.3 %")
    expect(formatPercent(0.00454)).toBe("0.45 %")
    expect(formatPercent(0.934)).toBe("93 %")
    expect(formatRatio(4.12)).toBe("4.1\u00d7")
    expect(formatRatio(154.6)).toBe("150\u00d7")
  })
})

describe("palette", () => {
  const algorithms = Object.keys(shapes)

  it("gives an algorithm the same colour in every study", () => {
    const series = (names: ReadonlyArray<string>) => names.map((name) => ({ key: name, algorithm: name }))
    const all = assignSlots(series(algorithms))
    expect(new Set(all.values()).size).toBe(algorithms.length)
    for (const name of algorithms) expect(assignSlots(series([name])).get(name)).toBe(all.get(name))
    // Two variants of one algorithm differ; the first has the algorithm's own.
    const variants = assignSlots([
      { key: "dreamddp", algorithm: "dreamddp" },
      { key: "dreamddp (period 5)", algorithm: "dreamddp" },
      { key: "ddp", algorithm: "ddp" }
    ])
    expect(new Set(variants.values()).size).toBe(3)
    expect(variants.get("dreamddp")).toBe(all.get("dreamddp"))
    expect(assignSlots(series(Array.from({ length: 40 }, (_, i) => `own ${i}`))).size).toBe(40)
  })

  // Machado, Oliveira and Fernandes 2009, table for severity 1.0, on linear RGB; distances in OKLab (Ottosson 2020),
  // where 0.02 is about a just noticeable difference. Contrast as in WCAG 2: 3 for graphics.
  const visions: Readonly<Record<string, ReadonlyArray<number>>> = {
    normal: [1, 0, 0, 0, 1, 0, 0, 0, 1],
    protanopia: [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
    deuteranopia: [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881],
    tritanopia: [1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.3039]
  }
  type Triple = readonly [number, number, number]

  const linearRgb = (hex: string): Triple => {
    const channel = (at: number): number => {
      const value = Number.parseInt(hex.slice(at, at + 2), 16) / 255
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
    }
    return [channel(1), channel(3), channel(5)]
  }
  const seenBy = (matrix: ReadonlyArray<number>, [r, g, b]: Triple): Triple => {
    const channel = (row: number): number =>
      Math.min(1, Math.max(0, matrix[row]! * r + matrix[row + 1]! * g + matrix[row + 2]! * b))
    return [channel(0), channel(3), channel(6)]
  }
  const oklab = ([r, g, b]: Triple): Triple => {
    const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b)
    const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b)
    const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b)
    return [
      0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
      1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
      0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s
    ]
  }
  const luminance = (hex: string): number => {
    const [r, g, b] = linearRgb(hex)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }

  for (const scheme of ["light", "dark"] as const) {
    it(`keeps the algorithms apart for every kind of colour vision, ${scheme}`, () => {
      const slots = assignSlots(algorithms.map((name) => ({ key: name, algorithm: name })))
      const colours = algorithms.map((name) => palette[slots.get(name)!]![scheme])
      for (const [vision, matrix] of Object.entries(visions)) {
        const seen = colours.map((colour) => oklab(seenBy(matrix, linearRgb(colour))))
        seen.forEach((a, i) =>
          seen.slice(i + 1).forEach((b, j) => {
            const distance = Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2])
            expect(distance, `${vision}: ${algorithms[i]} and ${algorithms[i + 1 + j]}`).toBeGreaterThan(0.09)
          })
        )
      }
      const paper = luminance(scheme === "light" ? "#ffffff" : "#14171b") + 0.05
      for (const { [scheme]: colour } of palette) {
        const own = luminance(colour) + 0.05
        expect(Math.max(own, paper) / Math.min(own, paper), colour).toBeGreaterThan(3)
      }
    })
  }
})

describe("laneBars", () => {
  it("covers every op, invents no time but gaps too narrow to see, and stays small", () => {
    let merged = 0
    const least = fc.constantFrom(0, 1e-5, 1e-4, 1e-3)
    fc.assert(
      fc.property(legalRun, least, ({ timeline }, least) => {
        const rows = [...timeline.lane.keys()]
          .filter((row) => timeline.rank[row] === 0 && timeline.lane[row] === Lane.compute)
          .toSorted((a, b) => timeline.startSeconds[a]! - timeline.startSeconds[b]!)
        const end = Math.max(...rows.map((row) => timeline.endSeconds[row]!))
        const [from, to] = [end * 0.1, end * 0.9]
        const bars = laneBars(timeline, rows, from, to, least)
        let covered = 0
        let busy = 0
        for (const row of rows) {
          const opFrom = Math.max(0, timeline.startSeconds[row]! - from)
          const opTo = Math.min(to, timeline.endSeconds[row]!) - from
          if (!(opTo > opFrom)) continue
          busy += opTo - opFrom
          expect(bars.some((bar) => bar.from <= opFrom && bar.to >= opTo)).toBe(true)
        }
        for (const [i, bar] of bars.entries()) {
          covered += bar.to - bar.from
          if (i > 0) expect(bar.from).toBeGreaterThanOrEqual(bars[i - 1]!.to)
        }
        const ops = bars.reduce((sum, bar) => sum + bar.ops, 0)
        if (ops > bars.length) merged++
        expect(covered).toBeLessThanOrEqual(busy + (ops - bars.length) * least + 1e-12)
        if (least > 0) expect(bars.length).toBeLessThanOrEqual(2 * Math.ceil((to - from) / least) + 2)
      })
    )
    expect(merged).toBeGreaterThan(20)
  })
})
