// Scenario files for tests: text in a folder of its own, removed when the test ends.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { onTestFinished } from "vitest"

export const temporaryFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), "tandem-test-"))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export const scenarioFile = (text: string): string => {
  const file = join(temporaryFolder(), "s.yaml")
  writeFileSync(file, text)
  return file
}

/** Runs in milliseconds: 4 equal layers on 2 ranks. */
export const small = `name: small
model: { layers: 4, parameters: 1e6, stepSeconds: 10ms }
world:
  ranks: 2
  links:
    inter: { bandwidth: 1Gbit/s }
algorithm: ddp
`
