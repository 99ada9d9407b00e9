// Small studies for tests, computed here.
import { writeFileSync } from "node:fs"
import * as Effect from "effect/Effect"
import { stringify } from "yaml"
import { loadStudy } from "../../sim/study/definition.ts"
import { headerOf, inOrder, type StudyResult, type StudyRow } from "../../sim/study/result.ts"
import { runPoints } from "../../sim/study/run-study.ts"

/** Writes a scenario with this study section to `file`, and computes it in this thread. */
export const studyOf = async (file: string, study: unknown): Promise<StudyResult> => {
  writeFileSync(
    file,
    stringify({
      name: "computed",
      model: { layers: 2, parameters: 1e6, stepSeconds: "10ms" },
      world: { ranks: 4, links: { inter: { bandwidth: "1Gbit/s" } } },
      algorithm: "ddp",
      steps: 2,
      study
    })
  )
  const definition = Effect.runSync(loadStudy(file))
  const finished = new Map<number, ReadonlyArray<StudyRow>>()
  await Effect.runPromise(runPoints(definition, finished, { jobs: 1 }))
  return { header: headerOf(definition), rows: inOrder(finished) }
}
