// How many ops a program builds, and how often it submits one.
import type { Simulation } from "../../sim/simulate.ts"
import { execute } from "./simulated.ts"

export const distinctOps = <A>(
  options: Partial<Simulation<A>> & Pick<Simulation<A>, "world" | "program">
): { readonly ops: number; readonly submitted: number } => {
  const { execution } = execute(options)
  const submissions = (execution.journals ?? []).flatMap(({ entries }) =>
    entries.filter(({ kind }) => kind === "op")
  )
  const ops = new Set(submissions.map((entry) => entry.kind === "op" && entry.op))
  return { ops: ops.size, submitted: submissions.length }
}
