// What a rank of a program submits, for native/test/graphs/schedule.cc, which says what of it a lane on a GPU launches together.
import { spawnSync } from "node:child_process"
import * as Effect from "effect/Effect"
import type { Op } from "../../core/machine/op.ts"
import { interposing } from "../../core/machine/interpose.ts"
import type { Program } from "../../core/machine/machine.ts"
import type { World } from "../../core/world.ts"
import { simulate } from "../../sim/simulate.ts"
import { freeKernels } from "../simulate/simulated.ts"

/** Kernels that no graph holds (native/README.md, "CUDA graphs"). */
const alone = new Set(["barrier", "profiled", "expert_ffn.forward", "random_normal"])

/** Of rank 0: a line for each op, and one for the end of each step. */
export const scheduleOf = (world: World, program: Program<unknown>): string => {
  const numbers = new Map<Op, number>()
  const ops: Array<Op | "end"> = []
  const noted = interposing(program, (machine) =>
    machine.rank !== 0
      ? {}
      : {
          submit: (op, scalars) => {
            if (!numbers.has(op)) numbers.set(op, numbers.size + 1)
            ops.push(op)
            return machine.submit(op, scalars)
          },
          endStep: Effect.suspend(() => {
            ops.push("end")
            return machine.endStep
          })
        }
  )
  const { opLogs } = Effect.runSync(
    simulate({
      world,
      program: noted,
      costs: freeKernels,
      network: "fluid",
      collectives: { algorithm: "ring" },
      record: true
    })
  )
  const { entries } = opLogs.find(({ rank }) => rank === 0)!
  let at = 0
  return ops
    .map((op) => {
      if (op === "end") return "end\n"
      const after = entries[at++]!.after.map((before) => ` ${entries[before]!.lane}:${before}`).join("")
      const fits = op.group === undefined && !alone.has(op.kernel.name)
      return `${op.lane} ${numbers.get(op)} ${Number(fits)}${after}\n`
    })
    .join("")
}

/** Of one step of rank 0. */
interface LaunchedTogether {
  /** Ops that a graph can hold, those of them that are launched in one, and how many graphs that takes. */
  readonly ops: number
  readonly together: number
  readonly launches: number
}

/** Of each of several schedules. */
export const launchedTogether = (
  schedules: ReadonlyArray<string>
): ReadonlyArray<ReadonlyArray<LaunchedTogether>> => {
  const { status, stdout, stderr } = spawnSync("native/test/run.sh", ["graphs", "schedule"], {
    input: schedules.map((schedule) => `program\n${schedule}`).join(""),
    encoding: "utf8",
    maxBuffer: 2 ** 28
  })
  if (status !== 0) throw new Error(`native/test/run.sh graphs schedule: ${stderr}`)
  const lines = stdout.trim().split("\n")
  return schedules.map((schedule) => {
    const steps = schedule.split("\n").filter((line) => line === "end").length
    return lines.splice(0, steps).map((line) => {
      const [ops, together, launches] = line.split(" ").map(Number) as [number, number, number]
      return { ops, together, launches }
    })
  })
}
