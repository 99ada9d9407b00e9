// Headless Chromium, where there is one: what a page's DOM is after its script ran, and what it looks like.
import { execFileSync } from "node:child_process"
import { accessSync, constants, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import { pathToFileURL } from "node:url"

const names = ["chromium", "chromium-browser", "google-chrome"]

/** TANDEM_CHROMIUM, or the first of the usual names on PATH. */
export const findChromium = (): string | undefined => {
  const named = process.env["TANDEM_CHROMIUM"]
  if (named !== undefined && named !== "") return named
  for (const folder of (process.env["PATH"] ?? "").split(delimiter)) {
    for (const name of names) {
      const path = join(folder, name)
      try {
        accessSync(path, constants.X_OK)
        return path
      } catch {
        continue
      }
    }
  }
  return undefined
}

export interface View {
  readonly width: number
  readonly height: number
  readonly dark?: boolean
}

const run = (chromium: string, file: string, view: View, ...args: ReadonlyArray<string>): string => {
  const profile = mkdtempSync(join(tmpdir(), "tandem-chromium-"))
  try {
    return execFileSync(
      chromium,
      [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        "--hide-scrollbars",
        `--user-data-dir=${profile}`,
        `--window-size=${view.width},${view.height}`,
        ...(view.dark === true ? ["--force-dark-mode"] : []),
        ...args,
        pathToFileURL(file).href
      ],
      { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"], timeout: 60_000, maxBuffer: 1 << 26 }
    )
  } finally {
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** The page after its script ran. */
export const domOf = (chromium: string, file: string, view: View): string =>
  run(chromium, file, view, "--dump-dom")

export const screenshot = (chromium: string, file: string, view: View, png: string): void => {
  run(chromium, file, view, `--screenshot=${png}`)
}
