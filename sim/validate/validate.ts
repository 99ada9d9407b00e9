// sim validate: holds the simulator to published tables and to measurements, number by number. A section is one table;
// its claims are sentences about it that are checked every time. Knows how sections are run and printed, not what is in them.
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"
import { Loader } from "../../scenarios/load.ts"
import { expertCaches } from "./expert-caches.ts"
import { expertflow } from "./expertflow.ts"
import { cacheLatency } from "./cache-latency.ts"
import { cacheMemory } from "./cache-memory.ts"
import { scalingLaws, streamingDiloco } from "./published-bandwidth.ts"
import { fsdpPublished } from "./fsdp-published.ts"
import { fsmoeGrid } from "./fsmoe-grid.ts"
import { fsmoeModel } from "./fsmoe-model.ts"
import { fsmoeOps } from "./fsmoe-ops.ts"
import { measuredSteps } from "./measured-steps.ts"
import { publishedSchedule } from "./published-schedule.ts"
import {
  shardedH200x2,
  shardedH200x2Cubic,
  shardedH200x2Turns,
  shardedH200x2Untraced
} from "./sharded-h200.ts"
import { shardedSteps } from "./sharded-steps.ts"
import { zeroMemory } from "./zero-memory.ts"
import type { Checked, Section, ValidationError } from "./section.ts"

/** In the order they are printed. */
export const sections: ReadonlyArray<Section> = [
  streamingDiloco,
  scalingLaws,
  publishedSchedule,
  measuredSteps,
  shardedSteps,
  shardedH200x2,
  shardedH200x2Cubic,
  shardedH200x2Turns,
  shardedH200x2Untraced,
  zeroMemory,
  fsdpPublished,
  expertCaches,
  expertflow,
  cacheLatency,
  cacheMemory,
  fsmoeModel,
  fsmoeOps,
  fsmoeGrid
]

interface ValidateOptions {
  /** Called as simulated points finish. */
  readonly onProgress?: (done: number, total: number) => void
}

/** `sim validate --json`. */
interface ValidationJson {
  /** Every claim of every section holds. */
  readonly ok: boolean
  readonly sections: ReadonlyArray<SectionJson>
  /** Sections that take long, or whose bounds are known as not met, and were not named. */
  readonly notChecked: ReadonlyArray<string>
}

interface SectionJson extends Omit<Checked, "lines"> {
  readonly name: string
  readonly title: string
  readonly calibrated: boolean
  readonly ok: boolean
}

interface Validation {
  readonly ok: boolean
  readonly text: string
  readonly json: ValidationJson
}

/** Why a section is checked only when named; undefined of all others. */
const apart = ({ slow, missed }: Section): string | undefined => slow ?? missed

/** Checks the named sections; when none is named, all but slow ones and those whose bounds are known as not met. */
export const validate = (
  names: ReadonlyArray<string>,
  options: ValidateOptions = {}
): Effect.Effect<Validation, ValidationError> =>
  Effect.gen(function* () {
    const unknown = names.find((name) => !sections.some((section) => section.name === name))
    if (unknown !== undefined) {
      return yield* new InputError({
        file: "sim validate",
        field: "name",
        value: unknown,
        accepted: `one of ${sections.map(({ name }) => name).join(", ")}`
      })
    }
    const chosen =
      names.length === 0
        ? sections.filter((section) => apart(section) === undefined)
        : sections.filter(({ name }) => names.includes(name))
    const opened = yield* Effect.forEach(chosen, (section) =>
      Effect.map(section.open, (table) => ({ section, table }))
    )
    const total = opened.reduce((sum, { table }) => sum + table.points, 0)
    let done = 0
    options.onProgress?.(done, total)
    const loader = new Loader()
    const results = yield* Effect.forEach(opened, ({ section, table }) =>
      Effect.map(
        table.check(loader, () => options.onProgress?.(++done, total)),
        (checked) => ({ section, checked })
      )
    )
    const json = results.map(({ section, checked }): SectionJson => {
      const { source, claims, notes, values } = checked
      const { name, title } = section
      const { calibrated = false } = section
      return {
        name,
        title,
        calibrated,
        ok: claims.every(({ holds }) => holds),
        source,
        claims,
        notes,
        values
      }
    })
    const ok = json.every((section) => section.ok)
    const left = names.length === 0 ? sections.filter((section) => apart(section) !== undefined) : []
    const text = printed(results, left)
    return { ok, text, json: { ok, sections: json, notChecked: left.map(({ name }) => name) } }
  })

const printed = (
  results: ReadonlyArray<{ readonly section: Section; readonly checked: Checked }>,
  left: ReadonlyArray<Section>
): string => {
  const claims = results.flatMap(({ checked }) => checked.claims)
  const failing = claims.filter((claim) => !claim.holds).length
  const verdict = failing === 0 ? "all hold" : `${failing} ${failing === 1 ? "does not hold" : "do not hold"}`
  return [
    ...results.flatMap(({ section, checked }) => [
      `${section.name}: ${section.title}${section.calibrated === true ? " (calibrated)" : ""}`,
      ...wrapped(checked.source),
      "",
      ...checked.lines,
      ...checked.claims.map((claim) => `${claim.holds ? "holds" : "FAILS"}  ${claim.claim}: ${claim.found}`),
      ...checked.notes.flatMap((note) => ["", ...wrapped(note)]),
      "",
      ""
    ]),
    ...left.map(
      (section) => `not checked: sim validate ${section.name} (${section.title}; ${apart(section) ?? ""})`
    ),
    ...(results.some(({ section }) => section.calibrated === true)
      ? ["calibrated: bounds were set after seeing the result, or numbers fitted to the table"]
      : []),
    `${claims.length} ${claims.length === 1 ? "claim" : "claims"}: ${verdict}`,
    ""
  ].join("\n")
}

const lineWidth = 110

const wrapped = (paragraph: string): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const word of paragraph.split(" ")) {
    if (line.length + word.length + 1 > lineWidth) {
      lines.push(line)
      line = ""
    }
    line = line === "" ? `  ${word}` : `${line} ${word}`
  }
  return [...lines, line]
}
