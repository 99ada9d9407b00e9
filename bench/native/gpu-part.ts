// What a part of bench/native/gpu.ts is, and the commands that parts are made of. Knows nothing of which parts there are.

/** One command of a part. */
export interface Step {
  readonly name: string
  readonly command: ReadonlyArray<string>
  readonly env?: Readonly<Record<string, string>>
  /** Programs, Python modules and cuDNN without which it cannot run. */
  readonly needs?: ReadonlyArray<string>
  /** What of a JSON result is told in one line; of other results that is the last line. */
  readonly tell?: (json: Readonly<Record<string, unknown>>) => string
  /** Whether what a command printed says that all is well, where its exit code does not. */
  readonly judge?: (text: string) => { readonly ok: boolean; readonly said: string }
  /** A file that holds the JSON result, where it is not what the command prints. */
  readonly result?: string
}

export interface Part {
  readonly name: string
  /** Where its figures are cited. */
  readonly cited: string
  /** For all its steps together, on a GPU; the processor of a small machine gets four times as long. */
  readonly limitSeconds: number
  /** GPUs that it needs. */
  readonly gpus?: number
  /** Without one it is not for a processor. */
  readonly onCpu: boolean
  readonly steps: ReadonlyArray<Step>
}

export interface PartChoices {
  readonly backend: string
  /** The folder of outcomes. */
  readonly out: string
}

const percent = (value: unknown): string => `${(100 * Number(value)).toFixed(1)} %`

export const bench = (script: string, ...more: ReadonlyArray<string>): ReadonlyArray<string> => [
  "node",
  `bench/native/${script}.ts`,
  ...more
]
const exec = (...more: ReadonlyArray<string>): ReadonlyArray<string> => ["node", "exec/cli.ts", ...more]
export const python = (script: string, ...more: ReadonlyArray<string>): ReadonlyArray<string> => [
  "python3",
  `bench/native/${script}.py`,
  ...more
]

const agreement = ({ decisions, values, order, timeError }: Readonly<Record<string, unknown>>): string =>
  `decisions ${decisions ? "agree" : "DIFFER"}, values ${values ? "agree" : "DIFFER"}, order ${order ? "legal" : "ILLEGAL"}, time ${percent(timeError)}`

/** Test files on the backend. */
export const tests = (
  { backend, out }: PartChoices,
  name: string,
  ...folders: ReadonlyArray<string>
): Step => ({
  name,
  command: [
    "node",
    "node_modules/vitest/vitest.mjs",
    "run",
    ...folders,
    "--reporter=default",
    "--reporter=json",
    `--outputFile=${out}/${name}.vitest.json`
  ],
  env: { TANDEM_BACKEND: backend, TANDEM_REQUIRE_NATIVE: "1", NO_COLOR: "1" },
  result: `${out}/${name}.vitest.json`,
  tell: ({ numPassedTests, numFailedTests, numPendingTests }) =>
    `${numPassedTests} passed, ${numFailedTests} failed, ${numPendingTests} skipped`
})

export const agreementOf = (backend: string, scenario: string, ...more: ReadonlyArray<string>): Step => ({
  name: [scenario, ...more.filter((one) => !one.startsWith("--"))].join(" "),
  command: exec("agree", `scenarios/agree/${scenario}.yaml`, "--backend", backend, "--json", ...more),
  tell: agreement
})

/** The same with each rank on a host of its own, all on one GPU. */
export const agreementApart = (
  backend: string,
  scenario: string,
  ranks: number,
  ...set: ReadonlyArray<string>
): Step => ({
  name: [scenario, `${ranks} hosts`, ...set].join(" "),
  command: [
    "node",
    "bench/cluster/agree.ts",
    `scenarios/agree/${scenario}.yaml`,
    "--ranks",
    String(ranks),
    "--backend",
    backend,
    "--json",
    ...(backend === "cuda" ? ["--mps"] : []),
    ...set.flatMap((one) => ["--set", one])
  ],
  needs: ["ip", ...(backend === "cuda" ? ["nvidia-cuda-mps-control"] : [])],
  tell: agreement
})

export const part = (
  name: string,
  limitSeconds: number,
  steps: ReadonlyArray<Step>,
  more: Partial<Part> = {}
): Part => ({
  name,
  limitSeconds,
  steps,
  cited: "docs/performance.md",
  onCpu: true,
  ...more
})
