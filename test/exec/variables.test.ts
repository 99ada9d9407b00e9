// Every variable that something here reads is known to the list that mistyped ones are found by, and no other is in it.
import { globSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { expect, it } from "vitest"
import { checkVariables, read, readElsewhere } from "../../exec/variables.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

const sources = (...folders: ReadonlyArray<string>): ReadonlySet<string> => {
  const files = [
    // CI's too, and what configures the tests: their command lines see the same variables
    ...globSync("{.ci/run,*.ts}", { cwd: root }),
    ...folders.flatMap((folder) => globSync(`${folder}/**/*.{ts,js,cc,cu,h,cuh,sh}`, { cwd: root }))
  ]
  // As text, as a property, or as a shell has it: macros are none of these.
  const named =
    /["'](TANDEM_[A-Z_]+)["']|env\.(TANDEM_[A-Z_]+)|\{ (TANDEM_[A-Z_]+): \w|\$\{(TANDEM_[A-Z_]+)|^(?:export )?(TANDEM_[A-Z_]+)=/gmu
  return new Set(
    files
      .filter(
        (file) =>
          !file.includes("build/") && !file.endsWith("variables.ts") && !file.endsWith("variables.test.ts")
      )
      .flatMap((file) => [...readFileSync(`${root}/${file}`, "utf8").matchAll(named)])
      .map(([, ...groups]) => groups.find((group) => group !== undefined)!)
  )
}

it("every variable that is read is known, and every one that is known is read", () => {
  const known = [...Object.keys(read), ...readElsewhere]
  const found = sources("exec", "native", "test", "bench")
  expect([...found].filter((name) => !known.includes(name))).toEqual([])
  expect(known.filter((name) => !found.has(name))).toEqual([])
})

const checked = (variables: Readonly<Record<string, string>>) =>
  Effect.runSync(Effect.result(checkVariables(variables)))

it("of a name that nothing reads it is said what may have been meant", () => {
  const result = checked({ TANDEM_TRANSPRT: "tcp", TANDEM_TRANSPORT: "tcp", TANDEM_SOAK: "5", HOME: "x" })
  expect(Result.isSuccess(result) && result.success).toEqual([
    'environment: nothing reads TANDEM_TRANSPRT; did you mean "TANDEM_TRANSPORT"?'
  ])
  expect(checked({ TANDEM_CUDA_GRAPHS: "" })).toEqual(Result.succeed([]))
})

it("words that mean nothing are refused rather than taken for what is usual", () => {
  for (const [name, value, accepted] of [
    ["TANDEM_CUDA_GRAPHS", "off", "0, 1"],
    ["TANDEM_CUDA_NCCL_SUMS", "true", "0, 1"],
    ["TANDEM_TRANSPORT", "udp", "auto, tcp, ucx"]
  ] as const) {
    const result = checked({ [name]: value })
    expect(Result.isFailure(result) && result.failure.message).toBe(
      `environment: ${name}: "${value}" is not accepted; expected ${accepted}`
    )
  }
})
