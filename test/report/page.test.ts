import * as fc from "fast-check"
import { beforeAll, describe, expect, it } from "vitest"
import { dataParallel } from "../../scenarios/families/data-parallel/family.ts"
import { clientScript } from "../../sim/report/client.ts"
import { renderReport } from "../../sim/report/page.ts"
import type { ReportTimeline, StudyReport } from "../../sim/report/study-report.ts"
import {
  algorithmAxis,
  bandwidthAxis,
  bandwidths,
  gigabit,
  latencyAxis,
  recordTimelines,
  rowOf,
  shapes,
  study
} from "./studies.ts"

const answerIn = (html: string): string => /<p class="answer">([^<]*)</u.exec(html)![1]!

/** The page without its style sheet and script: what comes from the study. Found by pattern, so that a failure is short. */
const inPage = (html: string, pattern: RegExp): ReadonlyArray<string> =>
  [
    ...html
      .replace(/<style>.*?<\/style>/su, "")
      .replace(clientScript, "")
      .matchAll(pattern)
  ].map(([match]) => match)

const count = (html: string, text: string): number => html.split(text).length - 1

describe("renderReport", () => {
  let timelines: ReadonlyArray<ReportTimeline> = []
  beforeAll(async () => {
    timelines = await recordTimelines()
  })

  it("answers who is fastest, by how much, and what the baseline would need", () => {
    // By hand: DDP on 1 Gbit/s 0.0323 + 871e6/125e6 + 14*14*0.001 = 7.1963 s, DreamDDP 0.0323 + 82e6/125e6 + 0.098 =
    // 0.7863 s: 9.15 times. DDP's own latency, 0.196 s, leaves 0.558 s for 871e6 bytes: 12.5 Gbit/s; on straight lines
    // in log-log between the samples at 10 (0.9251 s) and 20 Gbit/s (0.5767 s): 12.7.
    const two = study([algorithmAxis(["ddp", "dreamddp"]), bandwidthAxis])
    expect(answerIn(renderReport(two))).toBe(
      "On 1 Gbit/s DreamDDP trains 9.2\u00d7 faster than DDP; DDP needs 13 Gbit/s to match it."
    )
    const all = study([algorithmAxis(), bandwidthAxis])
    expect(answerIn(renderReport(all))).toBe(
      "On 1 Gbit/s Streaming DiLoCo trains 170\u00d7 faster than DDP; DDP does not match it on any bandwidth studied, up to 400 Gbit/s."
    )
    const elsewhere = { ...two, focus: 100 * gigabit }
    expect(answerIn(renderReport(elsewhere))).toMatch(/^On 100 Gbit\/s DreamDDP trains/u)
  })

  it("marks where algorithms change places", () => {
    // S-SGD and Local SGD: (871e6 - 87.1e6) / B = 14 * 6.5 * 0.001, so B = 8.61e9 B/s = 69 Gbit/s; straight lines between
    // the samples at 50 and 100 put it at 70.
    const html = renderReport(study([algorithmAxis(["s-sgd", "local-sgd"]), bandwidthAxis]))
    expect(html).toMatch(
      /<li><span>at (69|70|71) Gbit\/s<\/span> <b[^>]*>S-SGD<\/b> overtakes <b[^>]*>Local SGD<\/b>/u
    )
    // One ring in each of the two charts.
    expect(count(html, 'class="ring"')).toBe(2)
  })

  it("needs nothing from anywhere and fits in half a megabyte", () => {
    const html = renderReport(study([algorithmAxis(), bandwidthAxis], { timelines }))
    expect(count(html, 'data-figure="lines"')).toBe(2)
    expect(count(html, 'data-figure="bars"')).toBe(1)
    expect(count(html, 'data-figure="timeline"')).toBe(7)
    expect(count(html, "<tr>")).toBe(7 * 12 + 1)
    expect(inPage(html, /(?:src|href)="(?!#)|https?:/gu)).toEqual([])
    expect([...html.matchAll(/@import|url\(/gu)]).toEqual([])
    expect(html).toContain("default-src 'none'")
    expect(html.length).toBeLessThan(500_000)
    expect(renderReport(study([algorithmAxis(), bandwidthAxis], { timelines }))).toBe(html)
  })

  it("gives every value of a second axis charts of its own, on the same scale", () => {
    const html = renderReport(study([algorithmAxis(["ddp", "dreamddp"]), bandwidthAxis, latencyAxis]))
    expect(count(html, 'data-figure="lines"')).toBe(4)
    expect(html).toContain("<h3>latency 1 ms</h3>")
    expect(html).toContain("<h3>latency 20 ms</h3>")
    expect(answerIn(html)).toMatch(/^On 1 Gbit\/s \(latency 1 ms\) /u)
  })

  it("draws the values of a second axis as lines where there is one algorithm", () => {
    const html = renderReport(study([bandwidthAxis, latencyAxis]))
    expect(count(html, 'data-figure="lines"')).toBe(2)
    expect(html).toContain('data-key="0.02"')
    expect(html).toContain("latency 20 ms</text>")
  })

  it("has bars where there is no numeric axis", () => {
    const html = renderReport(study([algorithmAxis()]))
    expect(count(html, 'data-figure="lines"')).toBe(0)
    expect(count(html, 'data-figure="bars"')).toBe(1)
    expect(count(html, 'class="bar"')).toBe(7)
    expect(answerIn(html)).toBe("Streaming DiLoCo trains 170\u00d7 faster than DDP.")
  })

  it("says of one algorithm what it reaches", () => {
    const html = renderReport(study([bandwidthAxis]))
    expect(answerIn(html)).toMatch(/^On 1 Gbit\/s DDP takes 7\.2 s a step and computes 0\.45 % of it\.$/u)
    const streaming = study([algorithmAxis(["streaming-diloco"]), bandwidthAxis])
    // Half: 1.09e6 / B = 0.0331, 0.26 Gbit/s; between the samples 0.2 (43.2 %) and 0.5 Gbit/s (65.5 %): 0.28.
    expect(answerIn(renderReport(streaming))).toContain("; 50 % needs 280 Mbit/s, 90 % needs ")
  })

  it("has a place for unlimited bandwidth and zero latency", () => {
    const unlimited = { ...bandwidthAxis, values: [gigabit, 10 * gigabit, Infinity] }
    const html = renderReport(study([algorithmAxis(["ddp", "dreamddp"]), unlimited]))
    expect(html).toContain(">unlimited</text>")
    expect(inPage(html, /NaN|undefined|(?<!data-v=")Infinity/gu)).toEqual([])
    const zero = { ...latencyAxis, values: [0, 0.001, 0.1] }
    const overLatency = renderReport(study([algorithmAxis(["ddp", "dreamddp"]), zero]))
    expect(inPage(overLatency, /NaN|undefined|(?<!data-v=")Infinity/gu)).toEqual([])
    expect(overLatency).toContain("<h2>Over latency</h2>")
  })

  it("says when points are missing, and survives having none", () => {
    const whole = study([algorithmAxis(["ddp", "dreamddp"]), bandwidthAxis])
    expect(renderReport({ ...whole, rows: whole.rows.slice(0, 15) })).toContain(
      "15 of 24: the study is not complete"
    )
    const none = renderReport({ ...whole, rows: [] })
    expect(answerIn(none)).toBe("No point of the study has finished.")
  })

  it("says plainly what was not measured and what was warned of", () => {
    const html = renderReport(
      study([algorithmAxis(["ddp", "dreamddp"]), bandwidthAxis], {
        row: {
          estimates: [
            { kernel: "lerp", source: "roofline", detail: "NVIDIA H200: peak rates, so a lower bound" }
          ],
          warnings: ["jitter has no effect"]
        }
      })
    )
    expect(html).toContain("1 kind of cost was not measured; 1 warning")
    expect(html).toContain(
      "<b>lerp</b> roofline: NVIDIA H200: peak rates, so a lower bound <span>(all points)"
    )
    expect(html).toContain("jitter has no effect")
    expect(html).toContain("Fluid: ")
    expect(html).toContain("Ring collectives")
    const measured = renderReport(study([algorithmAxis(["ddp"]), bandwidthAxis]))
    expect(measured).toContain("None: every kernel")
    expect(measured).not.toContain('class="notice"')
  })

  it("compares in the middle of a bandwidth axis that does not span 1 Gbit/s", () => {
    const fast = { ...bandwidthAxis, values: [25, 50, 100, 200, 400].map((rate) => rate * gigabit) }
    const html = renderReport(study([algorithmAxis(["ddp", "diloco"]), fast]))
    expect(answerIn(html)).toMatch(/^On 100 Gbit\/s DiLoCo trains 6\.7\u00d7 faster than DDP/u)
  })

  it("never names an algorithm the best that knows the future", () => {
    const base = study([algorithmAxis(["ddp", "dreamddp", "streaming-diloco"])])
    const report = { ...base, family: { ...dataParallel, hindsight: ["streaming-diloco"] } }
    expect(answerIn(renderReport(base))).toMatch(/^Streaming DiLoCo trains/u)
    expect(answerIn(renderReport(report))).toMatch(/^DreamDDP trains/u)
  })

  it("shows what a search found instead of step times", () => {
    const targets = {
      path: "find.target",
      label: "target utilisation",
      unit: "share",
      values: [0.5, 0.9, 0.99]
    } as const
    const needed = (algorithm: string, target: number): number => {
      const { computeSeconds, bytes } = shapes[algorithm]!
      return bytes / (computeSeconds / target - computeSeconds)
    }
    const base = study([algorithmAxis(["ddp", "dreamddp"]), targets])
    const report: StudyReport = {
      ...base,
      search: { label: "bandwidth", unit: "bytesPerSecond", metric: "compute utilisation" },
      rows: base.rows.map((row) => {
        const target = Number(row.at["find.target"])
        const found = row.algorithm === "ddp" && target === 0.99 ? undefined : needed(row.algorithm, target)
        return { ...row, found }
      })
    }
    const html = renderReport(report)
    // 82e6 / (0.0323/0.9 - 0.0323) = 22.8e9 B/s = 183 Gbit/s; DDP 1.94 Tbit/s.
    expect(answerIn(html)).toBe("For 90 % compute utilisation DreamDDP needs 180 Gbit/s, DDP 1.9 Tbit/s.")
    expect(count(html, 'data-figure="lines"')).toBe(1)
    expect(html).toContain("none tried")
    expect(inPage(html, /NaN|undefined/gu)).toEqual([])
  })

  it("keeps any text from becoming markup", () => {
    const nasty = fc.string({
      unit: fc.constantFrom(
        "<",
        ">",
        "&",
        '"',
        "'",
        "/",
        "script",
        "</script>",
        "<!--",
        "]]>",
        "\u2028",
        "\0",
        "a",
        " "
      )
    })
    const clean = renderReport(textStudy("text", timelines))
    const tags = (html: string): ReadonlyArray<string> => html.match(/<[a-z/!][a-z0-9]*/giu) ?? []
    fc.assert(
      fc.property(nasty, (text) => {
        const html = renderReport(textStudy(`x${text}`, timelines))
        expect(tags(html)).toEqual(tags(clean))
        expect(html).not.toContain("\0")
        for (const [, json] of html.matchAll(/<script type="application\/json"[^>]*>(.*?)<\/script>/gu))
          JSON.parse(json!)
      }),
      { numRuns: 60 }
    )
  })

  it("carries a script that parses", () => {
    // oxlint-disable-next-line no-new-func -- parsed, not run
    expect(() => new Function(clientScript)).not.toThrow()
    expect(clientScript).not.toContain("</script")
  })
})

/** A small study with the same text everywhere a user's text goes. */
const textStudy = (text: string, timelines: ReadonlyArray<ReportTimeline>): StudyReport => {
  const ddp = timelines.find(({ algorithm }) => algorithm === "ddp")!
  return {
    title: text,
    description: text,
    scenarioText: text,
    command: text,
    version: text,
    family: dataParallel,
    axes: [
      { path: "algorithm", label: text, unit: "text", values: ["ddp", text] },
      { ...bandwidthAxis, label: text, values: bandwidths.slice(0, 3) }
    ],
    rows: ["ddp", text].flatMap((name, i) =>
      bandwidths.slice(0, 3).map((bandwidth, j) =>
        rowOf(
          "ddp",
          1 + i + j,
          { algorithm: name, [bandwidthAxis.path]: bandwidth },
          {
            scenario: text,
            digest: text,
            warnings: [text],
            estimates: [{ kernel: text, source: "free", detail: text }]
          }
        )
      )
    ),
    timelines: [
      {
        ...ddp,
        label: text,
        algorithm: text,
        timeline: { ...ddp.timeline, labels: ddp.timeline.labels.map(() => text) }
      }
    ]
  }
}
