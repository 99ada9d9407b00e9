// Where tests and their processes keep what they write for a moment: one folder for each run, gone after it.
import { chmodSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { TestProject } from "vitest/node"

export default ({ provide }: TestProject): (() => void) => {
  const folder = mkdtempSync(join(tmpdir(), "tandem-tests-"))
  // Some tests ask as another user, who has to come there, as to the system's own.
  chmodSync(folder, 0o755)
  provide("temporary", folder)
  return () => rmSync(folder, { recursive: true, force: true })
}

declare module "vitest" {
  interface ProvidedContext {
    temporary: string
  }
}
