// Scenario files: read, overridden from the command line, checked and decoded, with errors that say where and what would
// do. Files that a scenario names are not opened here.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import { existsSync } from "node:fs"
import { basename, dirname, isAbsolute, relative } from "node:path"
import { InputError } from "../core/input-error.ts"
import { messageOf } from "../core/message-of.ts"
import { defaultTask, familyOf, isTask, schemaOf, tasks, type Scenario, type Task } from "./families.ts"
import { Study } from "./study.ts"
import { expand, problemsOf, type FieldPath, type Problem } from "./file/check.ts"
import { inputErrors, InputErrors, relocated } from "./file/input-errors.ts"
import { getField, parseOverride, pathText, resolveField, segmentsOf, setField } from "./file/override.ts"
import { isRecord, shapeOf, type Shape } from "./file/shape.ts"
import { readSource, type Source } from "./file/source.ts"

/** The task that the data is of: what it says, if it is one, else the usual one. */
export const taskOf = (raw: unknown): Task => {
  const task = isRecord(raw) ? raw["task"] : undefined
  return typeof task === "string" && isTask(task) ? task : defaultTask
}

const shapes = new Map<Task, Shape>()
const studyShape = shapeOf(Study)

/** The shape of a scenario or study file of the data's task. */
export const shapeFor = (raw: unknown): Shape => {
  const task = taskOf(raw)
  const known = shapes.get(task)
  if (known !== undefined) return known
  const scenario = shapeOf(schemaOf(task))
  if (scenario.kind !== "fields") throw new RangeError(`scenarios of ${task} have no fields`)
  const fields = new Map(scenario.fields)
  fields.set("task", { shape: taskShape, required: task !== defaultTask })
  fields.set("study", { shape: studyShape, required: false })
  const shape: Shape = { kind: "fields", fields }
  shapes.set(task, shape)
  return shape
}

/** A task that is none of them is said so with all of them, not with the usual one. */
const taskShape: Shape = shapeOf(Schema.Literals(tasks))

/** Fields that a schema-blind reader can rely on: an object at the top. */
export type RawScenario = Readonly<Record<string, unknown>>

/** `path=value`, as `--set` takes it; or the same by an option of its own, as it was given: "--seed 7". */
export type Override = string | { readonly text: string; readonly option: string }

/** An override whose field has been found. */
export interface ResolvedOverride {
  /** `path=value`. */
  readonly text: string
  /** As given: "--set ranks=4". */
  readonly option: string
  readonly path: FieldPath
  readonly value: unknown
}

/** A file as data, abbreviations written out; not yet checked. */
export interface OpenedScenario {
  readonly source: Source
  readonly raw: RawScenario
}

export const openScenario = (file: string): Effect.Effect<OpenedScenario, InputErrors> =>
  Effect.flatMap(readSource(file), (source) => {
    const raw = expand(shapeFor(source.value), source.value)
    return isRecord(raw)
      ? Effect.succeed({ source, raw })
      : Effect.fail(
          inputErrors(
            new InputError({
              file,
              field: "",
              value: raw === null || raw === undefined ? "an empty file" : "a file without fields",
              accepted:
                "a scenario with the fields name, model, world and algorithm, or with a task and its fields"
            })
          )
        )
  })

/** Finds the field each `path=value` means. `alsoPresent`: fields that the file sets elsewhere, as a study's axes do. */
export const resolveOverrides = (
  { source, raw }: OpenedScenario,
  overrides: ReadonlyArray<Override>,
  alsoPresent: ReadonlyArray<FieldPath> = []
): Effect.Effect<ReadonlyArray<ResolvedOverride>, InputErrors> =>
  Effect.suspend(() => {
    const errors: Array<InputError> = []
    const resolved: Array<ResolvedOverride> = []
    let current: unknown = raw
    for (const override of overrides) {
      const { text, option: file } =
        typeof override === "string" ? { text: override, option: `--set ${override}` } : override
      const parsed = parseOverride(text)
      if (typeof parsed === "string") {
        errors.push(new InputError({ file, field: "", accepted: parsed }))
        continue
      }
      const found =
        axisMeant(current, parsed.path) ??
        resolveField(shapeFor(current), withoutAxes(current), parsed.path, alsoPresent)
      if ("path" in found) {
        const { path } = found
        current = written(setField(current, path, parsed.value))
        resolved.push({
          text,
          option: file,
          path,
          value: withLocalFiles(source.file, taskOf(current), path, parsed.value)
        })
      } else errors.push(unresolved(file, parsed.path, found))
    }
    const [first, ...rest] = errors
    return first === undefined
      ? Effect.succeed(resolved)
      : Effect.fail(new InputErrors({ errors: [first, ...rest] }))
  })

/**
 * A scenario's files are relative to its folder, but on the command line a person names them from where they are: such a
 * name is rewritten when there is a file there.
 */
const withLocalFiles = (file: string, task: Task, path: FieldPath, value: unknown): unknown =>
  familyOf({ task }).fileFields.reduce((changed, field) => {
    if (!pathText(field).startsWith(pathText(path))) return changed
    const inner = field.slice(path.length)
    const named = getField(changed, inner)
    if (typeof named !== "string" || isAbsolute(named) || !existsSync(named)) return changed
    return setField(changed, inner, relative(dirname(file), named))
  }, value)

/** The data with abbreviations written out. */
const written = (raw: unknown): unknown => expand(shapeFor(raw), raw)

const axesPath = ["study", "axes"]

/** Of "study.axes.wan.bandwidth" the axis of that field, as the file spells it, or one that it has not; undefined of other paths. */
const axisMeant = (raw: unknown, text: string): ReturnType<typeof resolveField> | undefined => {
  const prefix = `${pathText(axesPath)}.`
  if (!text.startsWith(prefix)) return undefined
  const fieldOf = (name: string, among: ReadonlyArray<FieldPath> = []) =>
    resolveField(shapeFor(raw), withoutAxes(raw), name, among)
  const axes = getField(raw, axesPath)
  const written = Object.keys(isRecord(axes) ? axes : {}).flatMap((key) => {
    const field = fieldOf(key)
    return "path" in field ? [{ key, path: field.path }] : []
  })
  const swept = written.map(({ path }) => path)
  const axis = fieldOf(text.slice(prefix.length), swept)
  if (!("path" in axis)) return axis
  const named = pathText(axis.path)
  return { path: [...axesPath, written.find(({ path }) => pathText(path) === named)?.key ?? named] }
}

/** The names of a study's axes look like fields, and are none. */
export const withoutAxes = (raw: unknown): unknown =>
  isRecord(raw) && isRecord(raw["study"]) ? { ...raw, study: { ...raw["study"], axes: {} } } : raw

/** The error for a path that means several fields, or none. */
export const unresolved = (
  file: string,
  field: string,
  found:
    | { readonly candidates: ReadonlyArray<string> }
    | { readonly similar: ReadonlyArray<string>; readonly fields?: ReadonlyArray<string> }
): InputError => {
  if ("candidates" in found) {
    return new InputError({
      file,
      field,
      value: "an ambiguous field",
      accepted: `one of ${found.candidates.join(", ")}`
    })
  }
  const near = found.similar
  return new InputError({
    file,
    field,
    value: "an unknown field",
    accepted:
      found.fields !== undefined
        ? `one of ${found.fields.join(", ")}`
        : near.length === 0
          ? "the path of a scenario field, such as world.links.inter.bandwidth"
          : `the path of a scenario field; did you mean ${near.join(" or ")}?`
  })
}

/** The data with the overrides in it; named for the model that it was given from outside, if it was. */
export const withOverrides = (
  raw: RawScenario,
  overrides: ReadonlyArray<Omit<ResolvedOverride, "option">>
): RawScenario => {
  let current: unknown = raw
  for (const { path, value } of overrides) current = written(setField(current, path, value))
  if (!isRecord(current)) return raw
  const swapped = overrides.find(({ text, path }) => text !== "" && pathText(path) === "model.profile")
  const isNamed = overrides.some(({ path }) => pathText(path) === "name")
  return swapped === undefined || isNamed
    ? current
    : { ...current, name: `${String(current["name"])}, but with ${basename(String(swapped.value))}` }
}

/** Where a field of the data came from: the file's line, or the option that set it. */
export type Origin = (path: FieldPath, atKey: boolean) => string

export const originOf =
  (source: Source, overrides: ReadonlyArray<ResolvedOverride>): Origin =>
  (path, atKey) => {
    const name = pathText(path)
    const setter = overrides.findLast(
      ({ path: set }) => name === pathText(set) || name.startsWith(`${pathText(set)}.`)
    )
    return setter === undefined ? source.where(path, atKey) : setter.option
  }

const asInputError = ({ path, atKey, value, accepted }: Problem, origin: Origin): InputError =>
  new InputError({
    file: origin(path, atKey),
    field: pathText(path),
    ...(value === undefined ? {} : { value }),
    accepted
  })

const decode = (task: Task, scenario: unknown): Exit.Exit<Scenario, Schema.SchemaError> =>
  Schema.decodeUnknownExit(schemaOf(task), { onExcessProperty: "error" })(scenario)

/** Checks and decodes; a `study` section may be there, is checked and not part of the result. */
export const decodeScenario = (raw: RawScenario, origin: Origin): Effect.Effect<Scenario, InputErrors> =>
  Effect.suspend(() => {
    const [first, ...rest] = problemsOf(shapeFor(raw), raw).map((problem) => asInputError(problem, origin))
    if (first !== undefined) return Effect.fail(new InputErrors({ errors: [first, ...rest] }))
    const { study: _, ...scenario } = raw
    const exit = decode(taskOf(raw), scenario)
    if (Exit.isSuccess(exit)) return Effect.succeed(exit.value)
    // The shape accepted what the schema does not: its own words are the best there are.
    const failure = Cause.squash(exit.cause)
    const accepted = messageOf(failure)
    return Effect.fail(inputErrors(new InputError({ file: origin([], false), field: "", accepted })))
  })

interface LoadedScenario {
  readonly scenario: Scenario
  /** Gives an error that a run found in a field the field's place: line and column, or the option that set it. */
  readonly locate: (error: InputError) => InputError
}

/** A scenario from a file, with `--set` overrides in order. */
export const loadScenario = (
  file: string,
  overrides: ReadonlyArray<string> = []
): Effect.Effect<Scenario, InputErrors> =>
  Effect.map(loadLocatedScenario(file, overrides), ({ scenario }) => scenario)

/** As `loadScenario`, with what places errors that only running it finds. */
export const loadLocatedScenario = (
  file: string,
  overrides: ReadonlyArray<Override> = []
): Effect.Effect<LoadedScenario, InputErrors> =>
  Effect.gen(function* () {
    const opened = yield* openScenario(file)
    const { source, raw } = opened
    const resolved = yield* resolveOverrides(opened, overrides)
    yield* refuseStudyFields(resolved)
    const origin = originOf(source, resolved)
    const scenario = yield* decodeScenario(withOverrides(raw, resolved), origin).pipe(
      Effect.mapError((failure) => withAxisHints(failure, raw))
    )
    return {
      scenario,
      locate: (error) =>
        error.file === file && error.field !== ""
          ? relocated(error, origin(segmentsOf(error.field), false))
          : error
    }
  })

/** One scenario is made of none of its study: an option that changes the study would have no effect. */
const refuseStudyFields = (overrides: ReadonlyArray<ResolvedOverride>): Effect.Effect<void, InputErrors> => {
  const [first, ...rest] = overrides.flatMap(({ option, path, value }) => {
    if (path[0] !== "study") return []
    const [, section, axis] = path
    const one: unknown = Array.isArray(value) ? value[0] : value
    const instead =
      section === "axes" && typeof axis === "string" && path.length === 3
        ? ` (--set ${axis}=${asValue(one)})`
        : ""
    const accepted = `a field of the one scenario that is run${instead}: only sim study reads a study section`
    return [new InputError({ file: option, field: pathText(path), accepted })]
  })
  return first === undefined ? Effect.void : Effect.fail(new InputErrors({ errors: [first, ...rest] }))
}

/** As `--set` would take it. */
const asValue = (value: unknown): string =>
  typeof value === "object" ? JSON.stringify(value) : String(value)

/** A field that only the study's axes give must be chosen to run a single scenario. */
const withAxisHints = (failure: InputErrors, { study }: RawScenario): InputErrors => {
  const axes = isRecord(study) && isRecord(study["axes"]) ? Object.entries(study["axes"]) : []
  const [first, ...rest] = failure.errors.map((error) => {
    const axis = axes.find(([path]) => error.field === path || error.field.startsWith(`${path}.`))
    const values = axis?.[1]
    if (error.value !== undefined || axis === undefined || !Array.isArray(values)) return error
    return new InputError({
      file: error.file,
      field: error.field,
      accepted: `${error.accepted}; it is an axis of this file's study: choose with --set ${axis[0]}=${asValue(values[0])}`
    })
  })
  return first === undefined ? failure : new InputErrors({ errors: [first, ...rest] })
}
