// Small studies for tests, computed here.
import { writeFileSync } from "node:fs"
import * as Effect from "effect/Effect"
import { stringify } from "yaml"
import { loadStudy } from "../../sim/study/definition.ts"
import { headerOf, inOrder, type StudyResult, type StudyRow } from "../../sim/study/result.ts"
import { runPoints } from "../../sim/study/run-study.ts"

/** Writes a scenario with this study section, and other fields of its own. */
export const writeStudyFile = (
  file: string,
  study: unknown,
  more: Readonly<Record<string, unknown>> = {}
): void =>
  writeFileSync(
    file,
    stringify({
      name: "small",
      model: { layers: 2, parameters: 1e6, stepSeconds: "10ms" },
      world: { ranks: 4, links: { inter: { bandwidth: "1Gbit/s" } } },
      algorithm: "ddp",
      steps: 2,
      ...more,
      study
    })
  )

/** Computed in this thread. */
export const computeStudy = async (file: string, sets: ReadonlyArray<string> = []): Promise<StudyResult> => {
  const definition = Effect.runSync(loadStudy(file, sets))
  const finished = new Map<number, ReadonlyArray<StudyRow>>()
  await Effect.runPromise(runPoints(definition, finished, { jobs: 1 }))
  return { header: headerOf(definition), rows: inOrder(finished) }
}
