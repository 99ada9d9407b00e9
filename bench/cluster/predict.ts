// What the simulator says of a run before it is made, and the profile that it says it from.
import type { ChildProcess } from "node:child_process"
import * as Effect from "effect/Effect"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"
import type { Cluster } from "./namespaces.ts"
import { opTimes, type OpTimes } from "./op-by-op.ts"
import { startRanks, type RankOptions } from "./runners.ts"

export interface Predicted {
  readonly stepSeconds: number
  readonly computeSeconds: number
  readonly makespanSeconds: number
  /** Of rank 0. */
  readonly ops: ReadonlyArray<OpTimes>
}

/** Of a scenario of data-parallel training with these changes. */
export const predict = async (file: string, set: ReadonlyArray<string>): Promise<Predicted> => {
  const scenario = await Effect.runPromise(loadScenario(file, set))
  const options = { loader: new Loader(), record: true }
  const { result, timeline } = await Effect.runPromise(runScenario(scenario, file, options))
  return { ...(result as unknown as Predicted), ops: opTimes(timeline!, 0) }
}

interface Profiled extends Pick<RankOptions, "env" | "perHost" | "firstHost"> {
  readonly file: string
  readonly set: ReadonlyArray<string>
  readonly ranks: number
  readonly cluster: Cluster | undefined
  readonly backend: string
  readonly emulateDevice: boolean
  /** The file that is written. */
  readonly out: string
}

/** What `exec profile --json` tells besides what it writes. */
interface ProfileTold {
  readonly stepSeconds: number
  /**
   * How many times as long kernels take beside collectives there, and beside those of ranks that hold a model together; left out where nothing
   * tells.
   */
  readonly slowdown?: number
  readonly slowdownInside?: number
}

interface Profiling {
  readonly children: ReadonlyArray<ChildProcess>
  /** Once they have all ended well. */
  readonly told: () => ProfileTold
}

/** Ranks that write the profile of one step, and of collectives between them as they are. */
export const startProfile = ({
  file,
  set,
  ranks,
  cluster,
  backend,
  emulateDevice,
  out,
  ...ranksAre
}: Profiled): Profiling => {
  const sets = [...set, `world.ranks=${ranks}`].flatMap((one) => ["--set", one])
  const command = ["exec/cli.ts", "profile", file, ...sets, "--steps", "20", "-o", out, "--backend", backend]
  const more = ["--json", ...(emulateDevice ? ["--emulate-device"] : [])]
  const children = startRanks(ranks, cluster, [...command, ...more], "pipe", ranksAre)
  let text = ""
  for (const [rank, { stdout }] of children.entries())
    stdout!.on("data", (chunk) => {
      if (rank === 0) text += String(chunk)
    })
  return { children, told: () => JSON.parse(text) as ProfileTold }
}

/** A line about a profile. */
export const profileLine = ({
  stepSeconds,
  slowdownInside,
  slowdown = slowdownInside
}: ProfileTold): string =>
  `${(1e3 * stepSeconds).toFixed(2)} ms of compute a step${slowdown === undefined ? "" : `, ${slowdown.toFixed(3)} times as long beside collectives`}`
