// Text to standard output and standard error, whole and at once, so that a full disk or a reader that has gone is noticed.
import { writeSync } from "node:fs"

/** Standard output cannot be written to. */
export class OutputError extends Error {
  readonly code: string

  constructor(code: string) {
    super(`cannot write to standard output (${code})`)
    this.code = code
  }
}

/**
 * Control characters as they are written in JSON, but for line ends and tabs: text from files may not move the cursor, or more, of
 * whoever reads it. C1 included, which some terminals obey. What was JSON says the same as before.
 */
const harmless = (text: string): string =>
  text.replaceAll(
    /(?![\n\t])[\p{Cc}\p{Bidi_Control}]/gu,
    (character) => `\\u${character.codePointAt(0)!.toString(16).padStart(4, "0")}`
  )

const pause = new Int32Array(new SharedArrayBuffer(4))

/** Throws `OutputError`; a reader that has closed the pipe (EPIPE) included. */
export const writeOut = (text: string): void => {
  const bytes = Buffer.from(harmless(text))
  let offset = 0
  while (offset < bytes.length) {
    try {
      offset += writeSync(1, bytes, offset)
    } catch (cause) {
      const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown"
      // A pipe that another process has made non-blocking is full: wait for its reader.
      if (code === "EAGAIN") Atomics.wait(pause, 0, 0, 1)
      else throw new OutputError(code)
    }
  }
}

/** To standard output where that takes it: for who has more to do, or another failure to tell, whatever becomes of it. */
export const offerOut = (text: string): void => {
  try {
    writeOut(text)
  } catch (cause) {
    if (!(cause instanceof OutputError)) throw cause
  }
}

/** To standard error; nothing is left to tell when that fails. */
export const writeError = (text: string): void => writeRaw(harmless(text))

/** To a terminal that is to obey: `line` replaces its last line, and is told harmlessly itself. */
export const writeLine = (line: string): void => writeRaw(`\r\u001b[K${harmless(line)}`)

const writeRaw = (text: string): void => {
  try {
    writeSync(2, text)
  } catch {
    return
  }
}
