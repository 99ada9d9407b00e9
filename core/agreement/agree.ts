// Holds a real run to a simulated one of the same program: the same decisions, the same values, a legal order, and how far
// the simulated time is off. Knows neither machine: both are executions.
import { makespanOf, type Execution } from "../laws/execution.ts"
import { checkLaws } from "../laws/laws.ts"
import type { Chosen } from "./chosen.ts"
import { compareJournals, compareOpLogs } from "./decisions.ts"
import type { Disagreement } from "./disagreement.ts"
import type { Turned } from "./turned.ts"
import type { Updated } from "./updated.ts"
import { compareFinal, compareReads, defaultTolerance, type Tolerance, type ValuesOf } from "./values.ts"

export interface AgreementRun {
  readonly execution: Execution
  /** Absent for a run without values: then values are not compared. */
  readonly valuesOf?: ValuesOf | undefined
}

/**
 * How far a simulated and a real run of one scenario are the same, point by point, and whether they agree.
 */
export interface Agreement {
  readonly decisions: boolean
  /** Undefined when one of the runs has no values. */
  readonly values: boolean | undefined
  /** Tensors compared at the end, over all ranks. */
  readonly comparedTensors: number
  /**
   * Elements that came over narrow wires, and how many of them the two machines rounded to different sides. Undefined where the
   * simulated run did not go on with the real one's.
   */
  readonly narrowWires: Pick<Turned, "elements" | "turned"> | undefined
  /**
   * Elements that updates of parameters wrote, and how many of them the simulated run's own gradients would have moved elsewhere.
   * Undefined where the simulated run did not go on with the real one's.
   */
  readonly updates: Pick<Updated, "elements" | "turned"> | undefined
  /**
   * Choices by scores, and how many of them took others of a tie in the real run. Undefined where the simulated run did not go on with
   * the real one's.
   */
  readonly ties: Pick<Chosen, "choices" | "turned"> | undefined
  /** The real run obeys every law that its records allow to judge. */
  readonly order: boolean
  /** Simulated makespan over real makespan, less 1: above 0, the simulation is slower than the machine. */
  readonly timeError: number
  /** Decisions before values before order: what comes first explains what follows. */
  readonly firstDisagreement: Disagreement | undefined
}

/**
 * Compares a real run with the simulated one. Both must have op logs and timelines; journals make it far sharper. `turned`, `updated`,
 * `chosen`: what was found where the simulated run went on with what came over narrow wires in the real one, with its updates, and with
 * its choices.
 */
export const agree = (
  simulated: AgreementRun,
  executed: AgreementRun,
  tolerance: Tolerance = defaultTolerance,
  turned?: Turned,
  updated?: Updated,
  chosen?: Chosen
): Agreement => {
  const [ours, theirs] = [simulated.execution.journals ?? [], executed.execution.journals ?? []]
  const decisions =
    compareOpLogs(simulated.execution.opLogs, executed.execution.opLogs) ??
    (ours.length > 0 && theirs.length > 0 ? compareJournals(ours, theirs) : undefined)

  let values: Disagreement | undefined
  let comparedTensors = 0
  const carried = simulated.valuesOf !== undefined && executed.valuesOf !== undefined
  if (carried) {
    values =
      turned?.disagreement ??
      updated?.disagreement ??
      chosen?.disagreement ??
      compareReads(ours, theirs, tolerance)
    // Runs that took different decisions have different tensors: nothing to compare.
    if (decisions === undefined) {
      const final = compareFinal(ours, simulated.valuesOf, executed.valuesOf, tolerance)
      comparedTensors = final.compared
      values ??= final.disagreement
    }
  }

  const violation = checkLaws(executed.execution)
  const order: Disagreement | undefined = violation && {
    kind: "order",
    ...(violation.rank === undefined ? {} : { rank: violation.rank }),
    ...(violation.ops === undefined ? {} : { op: violation.ops.at(-1)! }),
    message: `law ${violation.law}: ${violation.message}`
  }
  return {
    decisions: decisions === undefined,
    values: carried ? values === undefined && decisions === undefined : undefined,
    comparedTensors,
    narrowWires: turned && { elements: turned.elements, turned: turned.turned },
    updates: updated && { elements: updated.elements, turned: updated.turned },
    ties: chosen && { choices: chosen.choices, turned: chosen.turned },
    order: order === undefined,
    timeError: makespanOf(simulated.execution) / makespanOf(executed.execution) - 1,
    firstDisagreement: decisions ?? values ?? order
  }
}

/** Do the two runs agree in everything but time? */
export const agrees = ({ firstDisagreement }: Agreement): boolean => firstDisagreement === undefined
