// What the simulator says of a run before it is made, and the profile that it says it from.
import type { ChildProcess } from "node:child_process"
import * as Effect from "effect/Effect"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"
import type { Cluster } from "./namespaces.ts"
import { startRanks } from "./runners.ts"

export interface Foretold {
  readonly stepSeconds: number
  readonly computeSeconds: number
  readonly makespanSeconds: number
}

/** Of a scenario of data-parallel training with these changes. */
export const foretell = async (file: string, set: ReadonlyArray<string>): Promise<Foretold> => {
  const scenario = await Effect.runPromise(loadScenario(file, set))
  const { result } = await Effect.runPromise(runScenario(scenario, file, { loader: new Loader() }))
  return result as unknown as Foretold
}

interface Profiled {
  readonly file: string
  readonly set: ReadonlyArray<string>
  readonly ranks: number
  readonly cluster: Cluster | undefined
  readonly backend: string
  readonly emulateDevice: boolean
  /** The file that is written. */
  readonly out: string
}

/** Ranks that write the profile of one step, and of collectives between them as they are. */
export const startProfile = ({
  file,
  set,
  ranks,
  cluster,
  backend,
  emulateDevice,
  out
}: Profiled): ReadonlyArray<ChildProcess> => {
  const sets = [...set, `world.ranks=${ranks}`].flatMap((one) => ["--set", one])
  const command = ["exec/cli.ts", "profile", file, ...sets, "--steps", "20", "-o", out, "--backend", backend]
  return startRanks(ranks, cluster, [...command, ...(emulateDevice ? ["--emulate-device"] : [])], "inherit")
}
