// The secret that the processes of a job share, and what it proves: it is never sent, and stands on no command line.
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto"
import { readFileSync, statSync } from "node:fs"
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"
import { plainly } from "../../traces/system-words.ts"
import type { Variables } from "./environment.ts"
import { readLifeline } from "./lifeline.ts"

const leastLength = 16

export const freshSecret = (): string => randomBytes(32).toString("hex")
export const freshNonce = (): string => randomBytes(16).toString("hex")

/** What whoever knows the secret says of `parts`, as hexadecimal digits. */
export const proofOf = (secret: string, role: string, ...parts: ReadonlyArray<string>): string =>
  createHmac("sha256", secret)
    .update(JSON.stringify([role, ...parts]))
    .digest("hex")

/** Takes as long whatever differs. */
export const sameProof = (a: string, b: unknown): boolean => {
  if (typeof b !== "string" || a.length !== b.length) return false
  return timingSafeEqual(Buffer.from(a), Buffer.from(b))
}

/**
 * The job's secret: of the file that TANDEM_SECRET_FILE names, of the descriptor TANDEM_SECRET_FD (which `--processes` opens
 * for its children), or TANDEM_SECRET itself.
 */
export const secretIn = (variables: Variables): Effect.Effect<string, InputError> =>
  Effect.suspend(() => {
    const file = variables["TANDEM_SECRET_FILE"]
    const descriptor = variables["TANDEM_SECRET_FD"]
    const [field, read] =
      file !== undefined
        ? (["TANDEM_SECRET_FILE", () => readPrivate(file)] as const)
        : descriptor !== undefined
          ? (["TANDEM_SECRET_FD", () => readLifeline(Number(descriptor))] as const)
          : (["TANDEM_SECRET", () => variables["TANDEM_SECRET"] ?? ""] as const)
    const refuse = (value: string | undefined, accepted: string) =>
      Effect.fail(
        new InputError({ file: "environment", field, ...(value === undefined ? {} : { value }), accepted })
      )
    try {
      const secret = read()
      if (secret.length >= leastLength) return Effect.succeed(secret)
      return refuse(
        secret === "" ? undefined : `a secret of ${secret.length} characters`,
        `at least ${leastLength} characters that all processes of the job share and nobody else knows ` +
          `(openssl rand -hex 32 > job.secret; chmod 600 job.secret; TANDEM_SECRET_FILE=job.secret)`
      )
    } catch (cause) {
      return refuse(file ?? descriptor, `a readable secret: ${plainly(cause)}`)
    }
  })

const readPrivate = (file: string): string => {
  const { mode } = statSync(file)
  if ((mode & 0o077) !== 0)
    throw new Error(`others can read it (mode ${(mode & 0o777).toString(8)}); chmod 600 ${file}`)
  return readFileSync(file, "utf8").trim()
}
