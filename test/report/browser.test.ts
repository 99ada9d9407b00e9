import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { renderReport } from "../../sim/report/page.ts"
import type { StudyReport } from "../../sim/report/study-report.ts"
import { domOf, findChromium, screenshot, type View } from "./chromium.ts"
import { algorithmAxis, bandwidthAxis, latencyAxis, recordTimelines, study } from "./studies.ts"

const chromium = findChromium()
const isRequired = process.env["TANDEM_REQUIRE_BROWSER"] === "1"

describe("a report in a browser", () => {
  const folder = mkdtempSync(join(tmpdir(), "tandem-report-"))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  let whole: StudyReport
  beforeAll(async () => {
    whole = study([algorithmAxis(), bandwidthAxis], { timelines: await recordTimelines() })
  })

  const wide: View = { width: 1240, height: 3200 }

  /** What the page's script wrote on <body> about what was drawn. */
  const drawn = (html: string, view: View) => {
    const file = join(folder, "report.html")
    writeFileSync(file, html)
    const body = /<body[^>]*>/u.exec(domOf(chromium!, file, view))![0]
    const number = (name: string): number => Number(new RegExp(`data-${name}="(\\d+)"`, "u").exec(body)?.[1])
    return {
      figures: number("figures"),
      marks: number("marks"),
      empty: number("empty"),
      errors: number("errors"),
      /** Pixels that the page is wider than its window. */
      wide: number("wide")
    }
  }

  /** Skipped with the reason where there is no browser, unless one is required. */
  const inBrowser = (name: string, test: () => void): void => {
    it(name, (context) => {
      if (chromium === undefined && !isRequired) {
        context.skip("no chromium, chromium-browser or google-chrome on PATH, and TANDEM_CHROMIUM is not set")
      }
      expect(chromium, "TANDEM_REQUIRE_BROWSER=1, but no browser was found").toBeDefined()
      test()
    })
  }

  inBrowser("draws every chart", () => {
    const { marks, ...rest } = drawn(renderReport(whole), wide)
    // Two line charts, the bars, seven timelines.
    expect(rest).toEqual({ figures: 10, empty: 0, errors: 0, wide: 0 })
    // In each line chart seven lines and seven times twelve points.
    expect(marks).toBeGreaterThan(2 * 7 * 13)
  })

  inBrowser("draws small multiples, and bars where there is no numeric axis", () => {
    const panels = renderReport(study([algorithmAxis(["ddp", "dreamddp"]), bandwidthAxis, latencyAxis]))
    expect(drawn(panels, wide)).toMatchObject({ figures: 6, empty: 0, errors: 0 })
    const bars = drawn(renderReport(study([algorithmAxis()])), wide)
    expect(bars).toMatchObject({ figures: 1, empty: 0, errors: 0 })
  })

  inBrowser("fits a narrow window", () => {
    expect(drawn(renderReport(whole), { width: 500, height: 2000 })).toMatchObject({
      empty: 0,
      errors: 0,
      wide: 0
    })
  })

  inBrowser("notices a chart that did not draw, and a script that failed", () => {
    // The check itself must be able to fail.
    const html = renderReport(whole)
    const hidden = html.replace("</style>", ".lines{display:none}</style>")
    expect(drawn(hidden, wide)).toMatchObject({ figures: 10, empty: 2 })
    const broken = html.replace(/<script type="application\/json" data-points>\{/u, "$&!")
    expect(drawn(broken, wide).errors).toBeGreaterThan(0)
  })

  inBrowser("can be photographed, in light and in dark", () => {
    const file = join(folder, "report.html")
    writeFileSync(file, renderReport(whole))
    const photographs = [false, true].map((dark) => {
      const png = join(folder, dark ? "dark.png" : "light.png")
      screenshot(chromium!, file, { width: 1240, height: 1000, dark }, png)
      return readFileSync(png)
    })
    for (const photograph of photographs) {
      expect(photograph.subarray(1, 4).toString("latin1")).toBe("PNG")
      // An empty page of this size is about 5 kB.
      expect(photograph.length).toBeGreaterThan(40_000)
    }
    expect(photographs[0]!.equals(photographs[1]!)).toBe(false)
  })
})
