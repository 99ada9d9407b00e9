// Writes a failing scenario as a file, and beside it the profile it needs: what `sim run` takes.
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { stringify } from "yaml"
import { makeFolder } from "../traces/made-folder.ts"
import { encodeProfile } from "../traces/profile-file.ts"
import { generatedProfile, type ScenarioCase } from "./scenario.ts"

const inFileName = (name: string): string => name.replaceAll(/[^\w.-]+/gu, "-")

/** Path of the scenario file written: `<folder>/<name>.yaml`, replacing an earlier one. `why` becomes its first comment. */
export const saveCounterexample = (
  folder: string,
  name: string,
  { scenario, profile }: ScenarioCase,
  why: ReadonlyArray<string> = []
): string => {
  makeFolder(folder)
  const file = join(folder, `${inFileName(name)}.yaml`)
  let saved = { ...scenario, name }
  if (profile !== undefined) {
    const beside = `${inFileName(name)}.arrow`
    writeFileSync(join(folder, beside), encodeProfile(beside, profile))
    if ("profile" in scenario.model && scenario.model.profile === generatedProfile)
      saved = { ...saved, model: { ...scenario.model, profile: beside } }
  }
  const comment = why.flatMap((text) => text.split("\n")).map((line) => `# ${line}\n`)
  writeFileSync(file, comment.join("") + stringify(saved))
  return file
}
