// Mutated traces, tables, request files and routings: each is read or refused with a TraceError, whatever was done to it.
// TANDEM_FUZZ=100000 is how many; without it a few hundred, so that the way there is known to work. What was found by the
// long run is in docs/formats.md.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import { readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { Random } from "../../core/random.ts"
import {
  decodeProfile,
  encodeProfile,
  importCsv,
  importKineto,
  importNcclTests,
  importRouting,
  parseRequestTrace,
  routingSources,
  TraceError
} from "../../traces/index.ts"
import { attempt } from "../../traces/trace-error.ts"

const runs = Number(process.env["TANDEM_FUZZ"] ?? 300)
const folder = fileURLToPath(new URL("../fixtures/import/", import.meta.url))
const seeds = readdirSync(folder)
  .filter((name) => !name.endsWith(".md"))
  .toSorted()
  .map((name) => ({ name, bytes: new Uint8Array(readFileSync(folder + name)) }))

const fragments = ["{", "}", "[", "]", '"', ",", ":", "\\", "-", "e", "nan", "null", "1e999", "-1", "0", "\u0000", "\n", "\uFEFF", "é", '"dur":', '"ts":', "# ", "},{", "]}"].map((text) => new TextEncoder().encode(text)) // prettier-ignore

const mutated = (bytes: Uint8Array, random: Random): Uint8Array => {
  let now: Uint8Array = bytes
  for (let change = random.below(4); change >= 0; change--) {
    const at = random.below(now.length + 1)
    const kind = random.below(6)
    const length = 1 + random.below(kind === 5 ? 400 : 40)
    const rest = now.subarray(at + (kind === 0 || kind === 5 ? length : 0))
    const own =
      kind === 1
        ? now.subarray(at, at + length)
        : kind === 2
          ? fragments[random.below(fragments.length)]!
          : kind === 3
            ? Uint8Array.of(random.below(256))
            : new Uint8Array(0)
    now =
      kind === 4 && random.below(4) === 0 ? now.slice(0, at) : Buffer.concat([now.subarray(0, at), own, rest])
  }
  return now
}

/** Writing a profile and reading it again costs far more than the import: not each time. */
const writtenEvery = 16

const importsOf = (
  name: string,
  bytes: Uint8Array,
  run: number
): ReadonlyArray<Effect.Effect<unknown, TraceError>> => {
  const text = new TextDecoder().decode(bytes)
  if (/^\d/u.test(name)) {
    return [
      Effect.map(importKineto(bytes, { file: name }), ({ profile }) =>
        run % writtenEvery === 0 ? decodeProfile("p", encodeProfile("p", profile)) : profile
      )
    ]
  }
  if (name.startsWith("nccl")) return [importNcclTests(text, { file: name })]
  if (name.startsWith("req")) {
    return [
      attempt(name, "a trace of requests", () => parseRequestTrace(name, text)),
      importCsv(text, { file: name })
    ]
  }
  return routingSources.map((source) => importRouting(source, bytes, { file: name }))
}

describe("a mutated file", () => {
  it(`is read or refused with a TraceError, ${runs} times`, async () => {
    const random = new Random(Number(process.env["TANDEM_SEED"] ?? 1))
    const seen = { read: 0, refused: 0 }
    for (let run = 0; run < runs; run++) {
      const { name, bytes } = seeds[random.below(seeds.length)]!
      const content = mutated(bytes, random)
      for (const imported of importsOf(name, content, run)) {
        const exit = await Effect.runPromiseExit(imported)
        if (Exit.isSuccess(exit)) {
          seen.read++
          continue
        }
        const error = Cause.findError(exit.cause)
        const isRefusal = Result.isSuccess(error) && error.success instanceof TraceError
        if (!isRefusal || /\n\s+at /u.test(error.success.message)) {
          throw new Error(
            `run ${run}, ${name}: ${Cause.pretty(exit.cause)}\n${new TextDecoder().decode(content)}`
          )
        }
        seen.refused++
      }
    }
    if (process.env["TANDEM_FUZZ"] !== undefined) console.log(seen)
    expect(seen.read).toBeGreaterThan(runs / 10)
    expect(seen.refused).toBeGreaterThan(runs / 10)
  })
})
