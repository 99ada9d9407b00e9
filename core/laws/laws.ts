// Every law by name, and how to hold an execution to all of them.
import { collectiveOrder, collectivesMeet, linkBytesConserved } from "./agreement.ts"
import type { Execution, Violation } from "./execution.ts"
import { memoryBounded, onlyLiveTensors } from "./memory.ts"
import {
  edgesObeyed,
  everyOpRan,
  hazardsOrdered,
  laneFifo,
  logsComplete,
  nothingBeforeItsRead
} from "./order.ts"
import { lookAheadBounded, makespanCoversCriticalPath, makespanCoversLanes, stepsNested } from "./time.ts"

/** A law gives its first violation. What it needs and the execution lacks, it does not judge. */
export type Law = (execution: Execution) => Violation | undefined

/** All laws, what others presuppose first. */
export const laws = {
  logsComplete,
  everyOpRan,
  onlyLiveTensors,
  memoryBounded,
  hazardsOrdered,
  collectiveOrder,
  laneFifo,
  edgesObeyed,
  nothingBeforeItsRead,
  collectivesMeet,
  stepsNested,
  lookAheadBounded,
  makespanCoversLanes,
  makespanCoversCriticalPath,
  linkBytesConserved
} satisfies Readonly<Record<string, Law>>

/** A law, as `laws` lists it. */
export type LawName = keyof typeof laws

/** The first violation of any law; undefined for a legal execution. */
export const checkLaws = (execution: Execution): Violation | undefined => {
  for (const law of Object.values<Law>(laws)) {
    const violation = law(execution)
    if (violation !== undefined) return violation
  }
  return undefined
}

/** For tests: throws an Error that names the law and what breaks it. */
export const assertLaws = (execution: Execution): void => {
  const violation = checkLaws(execution)
  if (violation !== undefined) throw new Error(`law ${violation.law}: ${violation.message}`)
}
