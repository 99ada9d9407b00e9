// What the files of a recorded run are called (about.ts says what they were), for whoever only names them.
import * as path from "node:path"

const names = { about: "run.json", ops: "ops.arrow", timeline: "timeline.arrow", journal: "journal.arrow" }

export const recordNames: ReadonlyArray<string> = Object.values(names)

/** In a folder. */
export const filesIn = (folder: string): typeof names => ({
  about: path.join(folder, names.about),
  ops: path.join(folder, names.ops),
  timeline: path.join(folder, names.timeline),
  journal: path.join(folder, names.journal)
})

/** The files that a run in this folder consists of; none where there is no folder. */
export const recordFiles = (folder: string | undefined): ReadonlyArray<string> =>
  folder === undefined ? [] : Object.values(filesIn(folder))
