// What a study is: the axes it sweeps, the points they span, each a scenario of its own, and an identity by which shards,
// journals and resumed runs recognise one another. Runs nothing.
import * as Effect from "effect/Effect"
import { mostPoints } from "../../core/bounds.ts"
import { InputError } from "../../core/input-error.ts"
import type { Scenario } from "../../scenarios/families.ts"
import * as Result from "effect/Result"
import {
  decodeScenario,
  openScenario,
  originOf,
  resolveOverrides,
  shapeFor,
  unresolved,
  withOverrides,
  withoutAxes,
  type OpenedScenario,
  type Origin,
  type RawScenario,
  type ResolvedOverride
} from "../../scenarios/scenario-file.ts"
import { expand, problemsOf, show, type FieldPath } from "../../scenarios/file/check.ts"
import { inputErrors, InputErrors } from "../../scenarios/file/input-errors.ts"
import { getField, pathText, resolveField, setField } from "../../scenarios/file/override.ts"
import { isRecord } from "../../scenarios/file/shape.ts"
import { pointsBetweenTurns } from "./event-loop.ts"
import { checkMetric, descending, searchGrid, whyNotVaried, type FindSection, type Grid } from "./grid.ts"
import { identityOf } from "./identity.ts"
import { inOtherWords, meaningOf } from "./meaning.ts"

/** A field and the values it takes, as written. */
export interface Axis {
  readonly path: string
  readonly values: ReadonlyArray<unknown>
}

/** One value of the field that a search varies. */
export interface GridPoint {
  readonly value: unknown
  readonly scenario: Scenario
}

export interface Search {
  readonly vary: string
  readonly metric: string
  readonly targets: ReadonlyArray<number>
}

export interface StudyPoint {
  readonly index: number
  /** Value of each axis as written; null where the point's other values leave the field no meaning. */
  readonly axes: Readonly<Record<string, unknown>>
  /** The same, decoded: SI numbers where they are quantities. */
  readonly values: Readonly<Record<string, unknown>>
  /** One scenario; for a study with a search, one for each grid value, ascending. */
  readonly grid: ReadonlyArray<GridPoint>
}

export interface StudyDefinition {
  readonly name: string
  /** Path of the study file: files that its scenarios name are relative to it. */
  readonly file: string
  /** Equal for equal studies: same scenario, axes, overrides and input files. */
  readonly identity: string
  readonly axes: ReadonlyArray<Axis>
  readonly search: Search | undefined
  readonly points: ReadonlyArray<StudyPoint>
  /** The scenario as it is run, overrides included, without the study section. */
  readonly scenario: RawScenario
  /** What the person should know about how the options were understood. */
  readonly notes: ReadonlyArray<string>
}

type Between = (done: number, all: number) => Effect.Effect<void>

const maximumErrors = 20

/**
 * Reads a study file and spells out its points. Every point is checked: what a study accepts, it can run. `between` is run now and
 * then meanwhile, with how many of all are done: a million takes a minute or more.
 */
export const loadStudy = (
  file: string,
  overrides: ReadonlyArray<string> = [],
  between: Between = () => Effect.void
): Effect.Effect<StudyDefinition, InputErrors> =>
  Effect.gen(function* () {
    const opened = yield* openScenario(file)
    const { source, raw } = opened
    const written =
      raw["study"] === undefined ? [] : Object.keys((yield* studySection(file, source.where, raw)).axes)
    const first = yield* withOptions(opened, overrides, raw, written)
    // Options may bring other axes: what lies below those, and where, is then another matter.
    const axisKeys = Object.keys(first.section.axes)
    const { axisPaths, resolved, changed, section, fixed, perPoint, notes } =
      JSON.stringify(axisKeys) === JSON.stringify(written)
        ? first
        : yield* withOptions(opened, overrides, first.changed, axisKeys, first.resolved)
    const axes = axisPaths.map((path, index): Axis & { readonly at: FieldPath } => {
      const override = fixed.get(pathText(path))
      const key = axisKeys[index]!
      const values = override === undefined ? (section.axes[key] ?? []) : [override.value]
      return { path: pathText(path), at: path, values: values.map((value) => expandAt(changed, path, value)) }
    })
    const origin = originOf(source, resolved)
    if (section.find !== undefined) yield* checkMetric(origin, changed, section.find.metric)
    const grid = section.find === undefined ? undefined : yield* searchGrid(origin, changed, section.find)
    yield* checkOverlaps(origin, axes, axisKeys, grid, resolved)
    const count = axes.reduce((product, { values }) => product * values.length, 1)
    if (count * (grid?.values.length ?? 1) > mostPoints) {
      return yield* inputErrors(
        new InputError({
          file: placeOfAxes(origin, resolved),
          field: "study.axes",
          value: `${count * (grid?.values.length ?? 1)} scenarios`,
          accepted: `at most ${mostPoints}`
        })
      )
    }
    const { study: _, ...scenario } = changed
    const parts: Parts = {
      origin,
      scenario,
      axes,
      axisKeys,
      grid,
      overrides: resolved,
      perPoint
    }
    const { points, same } = yield* expandPoints(parts, (done) => between(done, count))
    const search = section.find
    const named = scenario["name"]
    return {
      name: typeof named === "string" ? named : file,
      file,
      identity: identityOf(
        file,
        [
          scenario,
          axes.map(({ path, values }) => [path, values]),
          grid === undefined ? null : [pathText(grid.path), grid.values, search?.metric, search?.targets],
          perPoint.map(({ path, value }) => [pathText(path), value])
        ],
        points.flatMap((point) => point.grid.map((one) => one.scenario))
      ),
      axes: axes.map(({ path, values }) => ({ path, values: ownRows(values, path, points) })),
      search:
        search === undefined || grid === undefined
          ? undefined
          : { vary: pathText(grid.path), metric: search.metric, targets: search.targets },
      points,
      scenario,
      notes: [...notes, ...same]
    }
  })

/** What options make of the file, if these are the study's axes, as `among` spells them. */
const withOptions = (
  opened: OpenedScenario,
  overrides: ReadonlyArray<string>,
  among: RawScenario,
  keys: ReadonlyArray<string>,
  setters: ReadonlyArray<ResolvedOverride> = []
) =>
  Effect.gen(function* () {
    const { source, raw } = opened
    const axisPaths = yield* resolveAxes(originOf(source, setters), among, keys)
    const resolved = yield* resolveOverrides(opened, overrides, axisPaths)
    const { base, ...sorted } = sortOverrides(resolved, axisPaths)
    const changed = withOverrides(raw, base)
    const section = yield* studySection(source.file, originOf(source, resolved), changed)
    return { axisPaths, resolved, changed, section, ...sorted }
  })

interface Section {
  readonly axes: Readonly<Record<string, ReadonlyArray<unknown>>>
  readonly find: FindSection | undefined
}

/** The study section, checked against its schema. */
const studySection = (file: string, origin: Origin, raw: RawScenario): Effect.Effect<Section, InputErrors> =>
  Effect.suspend(() => {
    const { study } = raw
    if (study === undefined) {
      return Effect.fail(
        inputErrors(
          new InputError({
            file,
            field: "study",
            accepted:
              "a study section, such as study: {axes: {algorithm: [ddp, dreamddp]}}; for one scenario, use sim run"
          })
        )
      )
    }
    const whole = shapeFor(raw)
    const shape = whole.kind === "fields" ? whole.fields.get("study")?.shape : undefined
    const problems = shape === undefined ? [] : problemsOf(shape, study, ["study"])
    const [first, ...rest] = problems.map(
      ({ path, atKey, value, accepted }) =>
        new InputError({
          file: origin(path, atKey),
          field: pathText(path),
          ...(value === undefined ? {} : { value }),
          accepted
        })
    )
    if (first !== undefined) return Effect.fail(new InputErrors({ errors: [first, ...rest] }))
    // What the checks above have established; the axes' own values are checked point by point.
    const section = study as Section
    if (Object.keys(section.axes).length === 0 && section.find === undefined) {
      return Effect.fail(
        inputErrors(
          new InputError({
            file: origin(["study", "axes"], false),
            field: "study.axes",
            value: "{}",
            accepted: "at least one axis, such as {algorithm: [ddp, dreamddp]}, or a find section"
          })
        )
      )
    }
    return Effect.succeed(section)
  })

/** The field that each axis means. */
const resolveAxes = (
  origin: Origin,
  raw: RawScenario,
  keys: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<FieldPath>, InputErrors> =>
  Effect.suspend(() => {
    const errors: Array<InputError> = []
    const paths: Array<FieldPath> = []
    for (const key of keys) {
      const found = resolveField(shapeFor(raw), withoutAxes(raw), key)
      const where = origin(["study", "axes", key], true)
      if (!("path" in found)) errors.push(unresolved(where, key, found))
      else if (whyNotVaried(found.path) !== undefined)
        errors.push(new InputError({ file: where, field: key, accepted: whyNotVaried(found.path)! }))
      else if (paths.some((path) => pathText(path) === pathText(found.path))) {
        const accepted = "each field on one axis only"
        errors.push(new InputError({ file: where, field: key, value: pathText(found.path), accepted }))
      } else paths.push(found.path)
    }
    const [first, ...rest] = errors
    return first === undefined
      ? Effect.succeed(paths)
      : Effect.fail(new InputErrors({ errors: [first, ...rest] }))
  })

/** Which overrides change the scenario, which replace an axis, which apply below an axis, point by point. */
const sortOverrides = (overrides: ReadonlyArray<ResolvedOverride>, axes: ReadonlyArray<FieldPath>) => {
  const base: Array<ResolvedOverride> = []
  const fixed = new Map<string, ResolvedOverride>()
  const perPoint: Array<ResolvedOverride> = []
  const notes: Array<string> = []
  for (const override of overrides) {
    const path = pathText(override.path)
    if (axes.some((axis) => pathText(axis) === path)) {
      fixed.set(path, override)
      notes.push(`${override.option} replaces the axis ${path} by this one value`)
    } else if (axes.some((axis) => path.startsWith(`${pathText(axis)}.`))) {
      perPoint.push(override)
      notes.push(
        `${override.option} applies to the points whose ${pathText(override.path.slice(0, -1))} has this field`
      )
    } else base.push(override)
  }
  return { base, fixed, perPoint, notes }
}

/** A value written out as it would be at its place in the file. */
const expandAt = (raw: RawScenario, path: FieldPath, value: unknown): unknown =>
  getField(expand(shapeFor(raw), setField({}, path, value)), path)

/** Is one the other, or below it? */
const isUnder = (path: FieldPath, outer: FieldPath): boolean =>
  outer.length <= path.length && outer.every((name, i) => path[i] === name)

/** Where the axes stand as a whole: an option that says some of them, or the file. */
const placeOfAxes = (origin: Origin, overrides: ReadonlyArray<ResolvedOverride>): string => {
  const axes = ["study", "axes"]
  return overrides.findLast(({ path }) => isUnder(path, axes))?.option ?? origin(axes, false)
}

/** No field gets its value from two sides, of which one would silently have no effect. */
const checkOverlaps = (
  origin: Origin,
  axes: ReadonlyArray<Axis & { readonly at: FieldPath }>,
  keys: ReadonlyArray<string>,
  grid: Grid | undefined,
  overrides: ReadonlyArray<ResolvedOverride>
): Effect.Effect<void, InputErrors> => {
  const errors: Array<InputError> = []
  for (const inner of axes) {
    for (const [index, outer] of axes.entries()) {
      if (outer === inner || !isUnder(inner.at, outer.at)) continue
      const below = inner.at.slice(outer.at.length)
      const said = outer.values.findIndex((value) => getField(value, below) !== undefined)
      if (said < 0) continue
      const accepted = `values without ${pathText(below)}, which the axis ${inner.path} sets; or one of the two axes`
      errors.push(
        new InputError({
          file: origin(["study", "axes", keys[index]!, said], false),
          field: outer.path,
          value: show(outer.values[said]),
          accepted
        })
      )
    }
  }
  if (grid !== undefined) {
    const vary = pathText(grid.path)
    const axis = axes.find(({ at }) => isUnder(at, grid.path) || isUnder(grid.path, at))
    if (axis !== undefined) {
      const accepted = `a field that no axis sets: ${axis.path} is an axis`
      const file = origin(["study", "find", "vary"], false)
      errors.push(new InputError({ file, field: "study.find.vary", value: vary, accepted }))
    }
    for (const { option, path } of overrides) {
      if (!isUnder(path, grid.path) && !isUnder(grid.path, path)) continue
      const accepted = `a field other than ${vary}, which the study searches over; study.find.over has its values`
      errors.push(new InputError({ file: option, field: pathText(path), accepted }))
    }
  }
  const [first, ...rest] = errors
  return first === undefined ? Effect.void : Effect.fail(new InputErrors({ errors: [first, ...rest] }))
}

interface Parts {
  readonly origin: Origin
  readonly scenario: RawScenario
  readonly axes: ReadonlyArray<Axis & { readonly at: FieldPath }>
  /** As the file spells the axes, for where their values stand. */
  readonly axisKeys: ReadonlyArray<string>
  readonly grid: Grid | undefined
  readonly overrides: ReadonlyArray<ResolvedOverride>
  readonly perPoint: ReadonlyArray<ResolvedOverride>
}

/**
 * The product of the axes, the first axis slowest. Points that differ only in fields without meaning are one, and so are those whose
 * values are equal in other words: 1Gbit/s and 1000Mbit/s. `same` says of which values that is so.
 */
const expandPoints = (parts: Parts, between: (done: number) => Effect.Effect<void>) =>
  Effect.gen(function* () {
    const { axes, grid, perPoint } = parts
    const points: Array<StudyPoint> = []
    const errors = new Map<string, InputError>()
    const seen = new Set<string>()
    const meant = new Map<string, StudyPoint>()
    const same = new Set<string>()
    const applied = new Set<ResolvedOverride>()
    // Outer fields first, so that an axis below another finds the alternative the other has chosen.
    const order = axes.map((_, i) => i).toSorted((a, b) => axes[a]!.at.length - axes[b]!.at.length)
    let looked = 0
    for (const choice of choices(axes)) {
      if (looked++ % pointsBetweenTurns === 0) yield* between(looked)
      let raw: RawScenario = parts.scenario
      const written: Record<string, unknown> = {}
      for (const i of order) {
        const { at, path, values } = axes[i]!
        const value = values[choice[i]!]
        const nested = axes.some((other) => other.at.length < at.length && path.startsWith(`${other.path}.`))
        if (nested && !hasField(raw, at)) written[path] = null
        else {
          raw = withOverrides(raw, [{ text: "", path: at, value }])
          written[path] = value
        }
      }
      for (const override of perPoint) {
        if (!hasField(raw, override.path)) continue
        applied.add(override)
        raw = withOverrides(raw, [override])
      }
      const shown = Object.fromEntries(axes.map(({ path }) => [path, shorten(written[path])]))
      const key = JSON.stringify(shown)
      if (seen.has(key)) continue
      seen.add(key)
      const origin = originOfPoint(parts, choice)
      const scenarios: Array<GridPoint> = []
      for (const value of grid?.values ?? [undefined]) {
        const full = grid === undefined ? raw : withOverrides(raw, [{ text: "", path: grid.path, value }])
        const decoded = yield* Effect.result(decodeScenario(full, origin))
        if (Result.isSuccess(decoded)) scenarios.push({ value, scenario: decoded.success })
        else for (const error of decoded.failure.errors) errors.set(error.message, error)
      }
      if (grid !== undefined && errors.size === 0) {
        const error = descending(parts.origin, grid, scenarios)
        if (error !== undefined) errors.set(error.message, error)
      }
      if (errors.size >= maximumErrors) break
      const first = scenarios[0]
      if (first === undefined) continue
      const values = Object.fromEntries(
        axes.map(({ path, at }) => [
          path,
          written[path] === null ? null : decodedAt(first.scenario, at, shown[path])
        ])
      )
      const point = { index: points.length, axes: shown, values, grid: scenarios }
      const meaning = meaningOf(first.scenario, axes, written)
      const before = meant.get(meaning)
      if (before === undefined) {
        meant.set(meaning, point)
        points.push(point)
      } else for (const note of inOtherWords(before, point)) same.add(note)
    }
    for (const override of perPoint) {
      if (applied.has(override) || errors.size > 0) continue
      const field = pathText(override.path)
      const accepted = "a field that at least one point of the study has"
      const error = new InputError({
        file: override.option,
        field,
        value: "an unknown field",
        accepted
      })
      errors.set(error.message, error)
    }
    const [first, ...rest] = [...errors.values()].slice(0, maximumErrors)
    if (first !== undefined) return yield* new InputErrors({ errors: [first, ...rest] })
    return { points, same: [...same] }
  })

/** Values of an axis, each once, without those that are in no point because they are others in other words. */
const ownRows = (values: ReadonlyArray<unknown>, path: string, points: ReadonlyArray<StudyPoint>) => {
  const keyOf = (value: unknown): string => JSON.stringify(shorten(value))
  const used = new Set(points.map((point) => keyOf(point.axes[path])))
  const once = [...new Map(values.map((value) => [keyOf(value), value])).values()]
  const own = once.filter((value) => used.has(keyOf(value)))
  // A field that has no meaning in any point is in none.
  return own.length === 0 ? once : own
}

function* choices(axes: ReadonlyArray<Axis>): Generator<ReadonlyArray<number>, void, void> {
  const choice = axes.map(() => 0)
  for (;;) {
    yield choice
    let i = axes.length - 1
    while (i >= 0 && ++choice[i]! === axes[i]!.values.length) choice[i--] = 0
    if (i < 0) return
  }
}

/** Whether the field means something where it is, given the alternatives that the data chooses. */
const hasField = (raw: RawScenario, path: FieldPath): boolean => {
  const found = resolveField(shapeFor(raw), raw, pathText(path), [])
  if (!("path" in found)) return false
  const name = pathText(path)
  return !problemsOf(shapeFor(raw), setField(raw, path, getField(raw, path) ?? null)).some(
    (problem) => problem.atKey && pathText(problem.path) === name
  )
}

/** {name: ddp} as ddp: the short form a table shows. */
const shorten = (value: unknown): unknown =>
  isRecord(value) && Object.keys(value).length === 1 && typeof value["name"] === "string"
    ? value["name"]
    : value

/** The decoded value of a field, where it is a finite number (JSON has no other); as written otherwise. */
const decodedAt = (scenario: Scenario, path: FieldPath, written: unknown): unknown => {
  const value = getField(scenario, path)
  return Number.isFinite(value) ? value : written
}

/** Where a field of a point came from: an axis value's own place in the file, where it is from one. */
const originOfPoint = (
  { origin, axes, axisKeys, grid, overrides }: Parts,
  choice: ReadonlyArray<number>
): Origin => {
  const chosen = [...choice]
  return (path, atKey) => {
    const name = pathText(path)
    const isUnder = (at: string) => name === at || name.startsWith(`${at}.`)
    if (overrides.some((override) => isUnder(pathText(override.path)))) return origin(path, atKey)
    const axis = axes.findIndex((candidate) => isUnder(candidate.path))
    if (axis >= 0) {
      const inner = path.slice(axes[axis]!.at.length)
      return origin(["study", "axes", axisKeys[axis]!, chosen[axis]!, ...inner], atKey && inner.length > 0)
    }
    if (grid !== undefined && isUnder(pathText(grid.path))) return origin(["study", "find", "over"], false)
    return origin(path, atKey)
  }
}
