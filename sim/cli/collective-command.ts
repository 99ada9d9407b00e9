// sim collective: how long collectives of these bytes take on these ranks and links, by each algorithm, beside a measured table.
// Every combination of what is listed is a row, so a question is a study too.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { CollectiveTable } from "../../core/cost/collective-table.ts"
import { InputError } from "../../core/input-error.ts"
import { timedCollectives, type CollectiveCost } from "../../core/profile.ts"
import { formatBandwidth, formatBytes, formatSeconds, parseBytes } from "../../core/units.ts"
import { collectiveAlgorithms, Network, type CollectiveAlgorithm } from "../../core/wire/network.ts"
import { asStated } from "../../core/wire/symmetry.ts"
import { requireApart } from "../../scenarios/cli/outputs.ts"
import { relocated } from "../../scenarios/file/input-errors.ts"
import { execute, json, said, toldThough } from "../../scenarios/cli/execute.ts"
import { Loader, locate } from "../../scenarios/load.ts"
import { withRings, worldWarnings } from "../../scenarios/ignored.ts"
import { WorldSettings } from "../../scenarios/sections.ts"
import { alignColumns, section } from "../../scenarios/table.ts"
import { collectiveNamed } from "../../traces/timing-columns.ts"
import { problemsOf } from "../../scenarios/file/check.ts"
import { pathText } from "../../scenarios/file/override.ts"
import { shapeOf } from "../../scenarios/file/shape.ts"
import { resolveWorld } from "../../scenarios/world.ts"
import { writeTextFile } from "../../scenarios/cli/text-file.ts"
import { csvOf } from "../csv.ts"
import { answerCollective, wayOf, type CollectiveAnswer } from "../collective-question.ts"

export interface CollectiveCommandOptions {
  readonly bytes: ReadonlyArray<string>
  readonly ranks?: ReadonlyArray<string>
  readonly ranksPerNode: WorldSettings["ranksPerNode"]
  readonly sites: number
  readonly algorithm: ReadonlyArray<string>
  readonly inter: ReadonlyArray<string>
  readonly interLatency: ReadonlyArray<string>
  readonly intra: string
  readonly intraLatency: string
  readonly wan?: string
  readonly wanLatency?: string
  readonly interWindow?: string
  readonly wanWindow?: string
  readonly chunk?: string
  readonly mtu?: number
  readonly measured?: ReadonlyArray<string>
  readonly compare?: string
  readonly csv?: string
  readonly json?: boolean
}

const here = "the command line"
/** A file in the folder where people are, as that of a scenario would be. */
const namedIn = "./command-line"

const oneOf = <A extends string>(option: string, accepted: ReadonlyArray<A>, value: string) => {
  const found = accepted.find((one) => one === value)
  return found === undefined
    ? Effect.fail(new InputError({ file: here, field: option, value, accepted: accepted.join(", ") }))
    : Effect.succeed(found)
}

/** Options by the fields of a scenario's world that they are. */
const optionOf: Readonly<Record<string, string>> = {
  ranks: "--ranks",
  ranksPerNode: "--ranks-per-node",
  sites: "--sites",
  "links.inter.bandwidth": "--inter",
  "links.inter.latency": "--inter-latency",
  "links.inter.mtu": "--mtu",
  "links.inter.window": "--inter-window",
  "links.intra.bandwidth": "--intra",
  "links.intra.latency": "--intra-latency",
  "links.wan.bandwidth": "--wan",
  "links.wan.latency": "--wan-latency",
  "links.wan.window": "--wan-window"
}

/** An error of a world, in the words of whoever gave options: these have no lists of sites. */
const asOption = (error: InputError): InputError => {
  const field = optionOf[error.field.replace("world.", "")]
  if (field === undefined) return error
  const accepted = error.accepted
    .replaceAll(/world\.(\w+)/gu, (said, name: string) => optionOf[name] ?? said)
    .replace(", or a list of sites with their ranks", "")
  return new InputError({ ...error, field, accepted })
}

const worldShape = shapeOf(WorldSettings)

const decodeWorld = (encoded: unknown) =>
  Effect.suspend(() => {
    const [problem] = problemsOf(worldShape, encoded)
    if (problem === undefined) return Schema.decodeUnknownEffect(WorldSettings)(encoded).pipe(Effect.orDie)
    const { path, value, accepted } = problem
    return Effect.fail(
      asOption(
        new InputError({
          file: here,
          field: `world.${pathText(path)}`,
          ...(value === undefined ? {} : { value }),
          accepted
        })
      )
    )
  })

const uplinkOptions = [
  ["wan", "--wan"],
  ["wanLatency", "--wan-latency"],
  ["wanWindow", "--wan-window"]
] as const

/** One site has no uplink. */
const requireSites = (options: CollectiveCommandOptions) => {
  const uplink = uplinkOptions.find(([name]) => options[name] !== undefined)
  return uplink === undefined || options.sites > 1
    ? Effect.void
    : Effect.fail(
        new InputError({
          file: here,
          field: uplink[1],
          value: options[uplink[0]]!,
          accepted: "--sites of 2 or more with it: one site has no uplink"
        })
      )
}

/** A row: the answer, and the link it was asked for. */
interface Row extends CollectiveAnswer {
  readonly inter: string
  readonly interLatency: string
  /** Bytes of the op times the ring's factor, over its time: what nccl-tests calls bus bandwidth, B/s. */
  readonly busBytesPerSecond: number
}

const busFactor = (op: CollectiveCost["op"], ranks: number): number =>
  ({
    all_reduce: (2 * (ranks - 1)) / ranks,
    all_gather: ranks - 1,
    reduce_scatter: ranks - 1,
    all_to_all: (ranks - 1) / ranks
  })[op as string] ?? 1

/** What is asked on every world: each op, of each size, by each algorithm. */
interface Asked {
  readonly ops: ReadonlyArray<CollectiveCost["op"]>
  readonly sizes: ReadonlyArray<number>
  readonly algorithms: ReadonlyArray<CollectiveAlgorithm>
  /** Of rings. */
  readonly chunk: number | undefined
}

const wholeBytes = (field: string, value: string, accepted: string): Effect.Effect<number, InputError> => {
  const parsed = parseBytes(value)
  return Result.isSuccess(parsed) && parsed.success > 0 && Number.isInteger(parsed.success)
    ? Effect.succeed(parsed.success)
    : Effect.fail(new InputError({ file: here, field, value, accepted }))
}

const askedOf = (
  ops: ReadonlyArray<string>,
  { bytes, algorithm, chunk }: CollectiveCommandOptions
): Effect.Effect<Asked, InputError> =>
  Effect.all({
    ops: Effect.forEach(ops, (op) => oneOf("op", timedCollectives, collectiveNamed(op) ?? op)),
    algorithms: Effect.forEach(algorithm, (name) =>
      oneOf("--algorithm", collectiveAlgorithms, name.toLowerCase())
    ),
    sizes: Effect.forEach(bytes, (text) =>
      wholeBytes("--bytes", text, 'whole bytes, such as "1MiB" or "4KiB,64MiB"')
    ),
    chunk:
      chunk === undefined
        ? Effect.succeed(chunk)
        : wholeBytes("--chunk", chunk, 'whole bytes, such as "4MiB"')
  })

interface Tables {
  /** What bounds collectives beside links; undefined where nothing was measured. */
  readonly table: CollectiveTable | undefined
  /** Rows that answers are set beside. */
  readonly compared: ReadonlyArray<CollectiveCost>
}

const tablesOf = (
  { measured = [], compare }: CollectiveCommandOptions,
  loader: Loader
): Effect.Effect<Tables, InputError> =>
  Effect.gen(function* () {
    const profiles = yield* Effect.forEach(measured, (named) =>
      Effect.mapError(loader.profile(namedIn, "--measured", named), (error) => relocated(error, here))
    )
    const known = profiles.flatMap(({ collectives }) => collectives)
    const table = profiles.length === 0 ? undefined : new CollectiveTable(known)
    if (compare === undefined) return { table, compared: [] }
    const refuse = (accepted: string) =>
      new InputError({ file: here, field: "--compare", value: compare, accepted })
    if (table === undefined)
      return yield* refuse("--measured with it: the profile whose rows of that link are compared")
    const compared = known.filter(({ link }) => link === compare)
    if (compared.length > 0) return { table, compared }
    const links = [...new Set(known.map(({ link }) => link))].join(", ")
    return yield* refuse(`a link that ${measured.join(", ")} has rows of: ${links}`)
  })

const windowOf = (window: string | undefined) => (window === undefined ? {} : { window })

/** The worlds that are asked about, as a scenario would say them: each number of ranks on each link between nodes. */
const worldsOf = ({
  ranks,
  ranksPerNode,
  sites,
  inter,
  interLatency,
  intra,
  intraLatency,
  mtu,
  interWindow,
  wan,
  wanLatency,
  wanWindow
}: CollectiveCommandOptions) =>
  (ranks ?? [typeof ranksPerNode === "number" ? "4" : undefined]).flatMap((number) =>
    inter.flatMap((bandwidth) =>
      interLatency.map((latency) => ({
        ...(number === undefined ? {} : { ranks: Number.isNaN(Number(number)) ? number : Number(number) }),
        ranksPerNode,
        sites,
        links: {
          intra: { bandwidth: intra, latency: intraLatency },
          inter: {
            bandwidth,
            latency,
            ...(mtu === undefined ? {} : { mtu }),
            ...windowOf(interWindow)
          },
          ...(wan === undefined && wanLatency === undefined && wanWindow === undefined
            ? {}
            : { wan: { bandwidth: wan ?? "unlimited", latency: wanLatency ?? 0, ...windowOf(wanWindow) } })
        }
      }))
    )
  )

export const collectiveCommand = (
  ops: ReadonlyArray<string>,
  options: CollectiveCommandOptions
): Promise<number> =>
  execute(
    Effect.gen(function* () {
      const loader = new Loader()
      const { measured = [] } = options
      yield* requireSites(options)
      yield* requireApart(
        [["--csv", options.csv]],
        measured.map((named) => locate(namedIn, named))
      )
      const asked = yield* askedOf(ops, options)
      const { table, compared } = yield* tablesOf(options, loader)
      const rows: Array<Row> = []
      const vain: Array<ReadonlyArray<string>> = []
      const rings = asked.ops.some((op) =>
        asked.algorithms.some((name) => ["ring", "hierarchical"].includes(wayOf(op, name)))
      )
      for (const encoded of worldsOf(options)) {
        const { bandwidth: inter, latency: interLatency } = encoded.links.inter
        const settings = yield* decodeWorld(encoded)
        const { chunk } = asked
        const collectives = { algorithm: "ring", ...(chunk === undefined ? {} : { chunk }) } as const
        vain.push([
          ...withRings(rings, collectives, worldWarnings(settings, collectives)),
          ...(rings || chunk === undefined
            ? []
            : ["--chunk has no effect: it is of rings, and nothing that is asked goes around one"])
        ])
        const world = yield* Effect.mapError(resolveWorld(settings, here, loader), asOption)
        const network = new Network(world, asStated(world))
        for (const op of asked.ops)
          for (const sizeBytes of asked.sizes)
            for (const algorithm of asked.algorithms) {
              const question = { op, sizeBytes, algorithm, chunkBytes: chunk }
              const answer = answerCollective(question, world, network, table, compared)
              const busBytes = sizeBytes * busFactor(op, world.size)
              rows.push({ ...answer, inter, interLatency, busBytesPerSecond: busBytes / answer.seconds })
            }
      }
      const warnings = warningsOf(options, vain)
      const outcome = said(
        options.json === true
          ? json({ measured, rows: rows.map(plain), warnings })
          : `${printed(rows)}${section("warnings", warnings)
              .map((line) => `${line}\n`)
              .join("")}`
      )
      if (options.csv === undefined) return outcome
      return yield* toldThough(outcome, writeTextFile(options.csv, [tableOf(rows)]))
    })
  )

/** Of what worlds have in vain, what all of them have so: an option of a list has an effect where one of its worlds goes by it. */
const warningsOf = (
  options: CollectiveCommandOptions,
  each: ReadonlyArray<ReadonlyArray<string>>
): ReadonlyArray<string> =>
  [...new Set(each.flat())]
    .filter((text) => !text.includes(" has no effect") || each.every((one) => one.includes(text)))
    .flatMap((text) => inOptions(text, options))

/** A warning of a world in the words of options: a link is two of them, of which some may not have been given. */
const inOptions = (text: string, options: CollectiveCommandOptions): ReadonlyArray<string> => {
  const named = Object.entries(optionOf).reduce(
    (said, [field, option]) => said.replaceAll(`world.${field}`, option),
    text
      .replace("ranksPerNode: 1", "--ranks-per-node 1")
      .replace("where world.links.wan is", "where --wan is")
      .replace("collectives.chunk", "--chunk")
      .replace(/^collectives: /u, "")
      .replace(/^world\.links\.(\w+):/u, "--$1, --$1-latency:")
  )
  const tier = /^world\.links\.(intra|inter) /u.exec(named)
  if (tier === null) return [named]
  const given: ReadonlyArray<readonly [string, string]> = [
    [`--${tier[1]}`, [options[tier[1] as "intra" | "inter"]].flat().join()],
    [`--${tier[1]}-latency`, [options[`${tier[1] as "intra" | "inter"}Latency`]].flat().join()]
  ]
  const unlimited = ["unlimited", "0s"]
  return given.flatMap(([option, value], index) =>
    value === unlimited[index] ? [] : [named.replace(tier[0], `${option} `)]
  )
}

/** As JSON has it: no undefined, and no rate of what takes no time. */
const plain = (row: Row) => ({
  ...row,
  busBytesPerSecond: Number.isFinite(row.busBytesPerSecond) ? row.busBytesPerSecond : undefined,
  off: offOf(row)
})

const offOf = ({ seconds, measuredSeconds }: CollectiveAnswer): number | undefined =>
  measuredSeconds === undefined ? undefined : seconds / measuredSeconds - 1

const tableOf = (rows: ReadonlyArray<Row>): string => {
  const fields = [
    "op",
    "ranks",
    "sizeBytes",
    "inter",
    "interLatency",
    "algorithm",
    "by",
    "seconds",
    "latencySeconds",
    "wireSeconds",
    "measuredSeconds"
  ] as const
  return csvOf([fields, ...rows.map((row) => fields.map((field) => row[field]))])
}

/** One line for each op, size, world and link; a column for each algorithm, the fastest marked. */
const printed = (rows: ReadonlyArray<Row>): string => {
  const algorithms = [...new Set(rows.map(({ algorithm }) => algorithm))]
  const groups = Map.groupBy(rows, (row) =>
    [row.op, row.ranks, row.sizeBytes, row.inter, row.interLatency].join(" ")
  )
  const measured = rows.some(({ measuredSeconds }) => measuredSeconds !== undefined)
  const manyLinks = new Set(rows.map((row) => `${row.inter} ${row.interLatency}`)).size > 1
  const lines = [...groups.values()].map((group) => {
    const [first] = group as [Row, ...Array<Row>]
    const best = Math.min(...group.map(({ seconds }) => seconds))
    const of = (algorithm: CollectiveAlgorithm): string => {
      const row = group.find((one) => one.algorithm === algorithm)!
      const several = new Set(group.map(({ seconds }) => seconds)).size > 1
      return `${formatSeconds(row.seconds)}${several && row.seconds === best ? " *" : several ? "  " : ""}`
    }
    const ring = group.find(({ measuredSeconds }) => measuredSeconds !== undefined)
    const off = ring === undefined ? undefined : offOf(ring)!
    return [
      first.op,
      String(first.ranks),
      formatBytes(first.sizeBytes),
      ...(manyLinks ? [`${first.inter} ${first.interLatency}`] : []),
      ...algorithms.map(of),
      first.ranks === 1
        ? "-"
        : formatBandwidth(Math.max(...group.map(({ busBytesPerSecond }) => busBytesPerSecond))),
      ...(measured
        ? [
            ring === undefined ? "" : formatSeconds(ring.measuredSeconds!),
            off === undefined ? "" : `${off >= 0 ? "+" : ""}${(100 * off).toFixed(1)} %`
          ]
        : [])
    ]
  })
  const head = [
    "op",
    "ranks",
    "bytes",
    ...(manyLinks ? ["inter"] : []),
    ...algorithms,
    "bus",
    ...(measured ? ["measured", `${algorithms[0]} off`] : [])
  ]
  const told = [
    ...new Set(rows.flatMap(({ op, estimate }) => (estimate === undefined ? [] : [`  ${op}: ${estimate}`])))
  ]
  return `${[...alignColumns([head, ...lines], (column) => column >= 1), ...(told.length > 0 ? ["", "not measured", ...told] : [])].join("\n")}\n`
}
