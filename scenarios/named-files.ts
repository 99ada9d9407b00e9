// Files that a scenario names, by its family's fields: what is read for it beside the scenario itself.
import { readdirSync, statSync } from "node:fs"
import { basename, join } from "node:path"
import { familyOf, type Scenario } from "./families.ts"
import type { FieldPath } from "./file/check.ts"
import { pathText, textsAt } from "./file/override.ts"
import { locate } from "./load.ts"
import { starred } from "./starred.ts"

/** A file that a scenario names, or one of several by stars, or of a folder. */
interface NamedFile {
  readonly field: FieldPath
  /** As people know it: "model.profile: gpt2.arrow". */
  readonly title: string
  readonly file: string
}

/** Names of files as a scenario has them: with stars, or of folders, where several are meant. */
export const namesOfFiles = (scenario: Scenario): ReadonlyArray<string> =>
  familyOf(scenario).fileFields.flatMap((field) => textsAt(scenario, field))

export const filesNamedIn = (scenario: Scenario, file: string): ReadonlyArray<NamedFile> =>
  familyOf(scenario).fileFields.flatMap((field) =>
    textsAt(scenario, field).flatMap((named) => {
      const whole = locate(file, named)
      const title = `${pathText(field)}: ${named}`
      return filesBehind(whole).map((one) => ({
        field,
        title: one === whole ? title : `${title} (${basename(one)})`,
        file: one
      }))
    })
  )

/** The scenario's file and those that it names. */
export const filesOf = (scenario: Scenario, file: string): ReadonlyArray<string> => [
  file,
  ...filesNamedIn(scenario, file).map((named) => named.file)
]

/** The file of scenarios and those that they name, each once: many name the same. */
export const filesOfAll = (scenarios: Iterable<Scenario>, file: string): ReadonlyArray<string> => {
  const names = new Set<string>()
  for (const scenario of scenarios) for (const name of namesOfFiles(scenario)) names.add(name)
  return [...new Set([file, ...[...names].flatMap((name) => filesBehind(locate(file, name)))])]
}

/** All that a name stands for: the files that stars match, those of a folder, or the file itself. */
export const filesBehind = (whole: string): ReadonlyArray<string> => {
  try {
    const isFolder = statSync(whole, { throwIfNoEntry: false })?.isDirectory() === true
    return isFolder
      ? readdirSync(whole)
          .toSorted()
          .map((name) => join(whole, name))
      : starred(whole)
  } catch {
    return [whole] // Whoever reads it says what is wrong with it.
  }
}
