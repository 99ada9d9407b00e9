// What docs/performance.md and docs/validation.md cite from a GPU, part by part: the commands, and how long each may take. Knows nothing
// of how they are run (gpu.ts).
import {
  agreementApart,
  agreementOf,
  bench,
  part,
  python,
  tests,
  type Part,
  type PartChoices,
  type Step
} from "./gpu-part.ts"
import { byCudnn } from "./gpu-parts-cudnn.ts"
import { fsmoeShared, several, whatIfs } from "./gpu-parts-several.ts"

/** A training step of ours and of PyTorch's in turn: each twice, so that a machine that slows down shows. */
const stepBeside = (backend: string, batch: number, ...more: ReadonlyArray<string>): ReadonlyArray<Step> => {
  const small = ["--context", "32", "--layers", "1", "--vocabulary", "512", "--rounds", "2", "--steps", "2"]
  const ours = bench(
    "train-step",
    "--backend",
    backend,
    "--batch",
    String(backend === "cuda" ? batch : 1),
    ...(backend === "cuda" ? more : small)
  )
  const theirs = python("torch-step", "--batch", String(batch), "--vocabulary", "50257")
  const needs = ["cuda", "torch", "transformers"]
  return [
    { name: "ours", command: ours },
    { name: "torch.compile", command: theirs, needs },
    { name: "ours again", command: ours },
    { name: "torch.compile again", command: theirs, needs }
  ]
}

/** Kernels of NVIDIA's libraries, whose findings are not ours. */
const foreign = /nvjet|splitk|cublas|cutlass|nccl/iu

/** What compute-sanitizer says, and which kernels of this project it names. */
const findings = (text: string): { readonly ok: boolean; readonly said: string } => {
  const lines = text.split("\n").filter((line) => line.startsWith("========="))
  const named = lines.flatMap((line) => /\bat (?:void )?((?:\w|::)+)[<(+]/u.exec(line)?.[1] ?? [])
  const own = [...new Set(named.filter((name) => !foreign.test(name)))]
  const summary = lines.findLast((line) => line.includes("SUMMARY"))?.replace(/^=+ */u, "")
  const others = named.length > 0 && own.length === 0 ? ", all of NVIDIA's libraries" : ""
  return {
    ok: summary !== undefined && own.length === 0,
    said: `${summary ?? "no summary"}${own.length > 0 ? `: ${own.join(", ")}` : others}`
  }
}

/**
 * Every kernel of a training step, of a choice of keys and of a decoding step with offloaded experts, at sizes that end soon. For races and
 * values that nobody wrote all products are this project's: what cuBLASLt writes by bulk copies the tool takes for never written.
 */
const sanitized = (tool: string, { backend, out }: PartChoices): ReadonlyArray<Step> => {
  const check = ["compute-sanitizer", "--tool", tool]
  const on = ["--backend", backend]
  const needs = ["compute-sanitizer"]
  const small = ["--batch", "1", "--context", "192", "--layers", "1", "--vocabulary", "17000"]
  const env: Readonly<Record<string, string>> = tool === "memcheck" ? {} : { TANDEM_CUBLASLT: "none" }
  return [
    {
      name: `${tool}, a training step`,
      command: [...check, ...bench("train-step", ...on, ...small, "--rounds", "1", "--steps", "1")],
      needs,
      env,
      judge: findings
    },
    {
      name: `${tool}, choosing keys`,
      command: [...check, ...bench("select", ...on, "--tokens", "2048", "--repeats", "4")],
      needs,
      env,
      judge: findings
    },
    {
      name: `${tool}, offloaded experts`,
      command: [...check, ...offload(backend, `${out}/${tool}`, "--policies", "lru", "--tokens", "4")],
      needs,
      env,
      judge: findings
    }
  ]
}

/** What a decoded token takes. */
const decoding = (backend: string): Step => ({
  name: "host time of a token",
  command: bench("decode", "--backend", backend, "--json"),
  tell: (json) =>
    Object.entries(json as Record<string, Record<string, number | string>>)
      .map(
        ([
          what,
          { hostMicrosPerToken, allThreadsMicrosPerToken, elapsedMicrosPerToken, preparedPerToken, graphs }
        ]) =>
          `${what} ${Number(hostMicrosPerToken).toFixed(0)} us, of all threads ${Number(allThreadsMicrosPerToken).toFixed(0)}, ` +
          `elapsed ${Number(elapsedMicrosPerToken).toFixed(0)}, ${preparedPerToken} prepared` +
          (graphs === undefined ? "" : `, graphs ${graphs}`)
      )
      .join("; ")
})

/** Without and with CUDA graphs, twice in turn, so that a machine that slows down shows. */
const withAndWithout = (step: Step): ReadonlyArray<Step> =>
  ["0", "1", "0", "1"].map((wish, i) => ({
    ...step,
    name: `${step.name}, ${wish === "1" ? "graphs" : "op by op"}${i < 2 ? "" : " again"}`,
    env: { ...step.env, TANDEM_CUDA_GRAPHS: wish }
  }))

const toyExperts = ["width=128", "ffnWidth=128", "heads=4", "kvHeads=2", "vocabulary=256"]

/** Offloaded experts of toy size. */
const offload = (backend: string, out: string, ...more: ReadonlyArray<string>): ReadonlyArray<string> => [
  ...bench("offload", "--backend", backend, "--layers", "2", "--out", out),
  ...toyExperts.flatMap((size) => ["--set", `model.${size}`]),
  ...more
]

const agreeing = [
  "data-parallel",
  "moe-training",
  "expert-offload",
  "kv-serving",
  "streaming-diloco",
  "sharded"
]

/** That it computes what it should. */
const correctness = (choices: PartChoices): ReadonlyArray<Part> => {
  const { backend } = choices
  return [
    part("build", 300, [{ name: "library", command: ["node", "native/cuda/build.js"], needs: ["nvcc"] }], {
      onCpu: false
    }),
    part("contract", 240, [tests(choices, "contract", "test/contract")]),
    part("native", 300, [
      tests(
        choices,
        "native",
        "test/native/kernels.test.ts",
        "test/native/large.test.ts",
        "test/native/session.test.ts",
        "test/native/collectives.test.ts",
        "test/native/training.test.ts",
        "test/native/moe-training.test.ts",
        "test/native/update-rules.test.ts",
        "test/native/operands.test.ts",
        "test/native/lifecycle.test.ts"
      )
    ]),
    part("agree", 180, [
      ...agreeing.map((name) => agreementOf(backend, name)),
      agreementOf(backend, "expert-offload", "--set", "model.dtype=float32"),
      ...["float16", "bfloat16"].map((dtype) =>
        agreementOf(backend, "kv-serving", "--set", `model.dtype=${dtype}`)
      ),
      agreementOf(
        backend,
        "data-parallel",
        "--set",
        "training.precision=bfloat16",
        "--set",
        "training.optimizer={name: adamw, learningRate: 0.001}",
        "--set",
        "steps=1",
        "--set",
        "algorithm=s-sgd"
      )
    ])
  ]
}

/** Products of experts, and precisions: that they compute what they should, then how fast. */
const formats = (choices: PartChoices): ReadonlyArray<Part> => {
  const { backend } = choices
  const cuda = backend === "cuda"
  const on = ["--backend", backend]
  const experts = bench(
    "experts",
    ...on,
    ...(cuda ? [] : ["--rows", "96", "--width", "64", "--ffn", "128", "--repeats", "6"])
  )
  const step = (precision: string): Step => ({
    name: precision,
    command: bench(
      "train-step",
      ...on,
      "--precision",
      precision,
      ...(cuda
        ? ["--batch", "4", "--rounds", "5"]
        : [
            "--batch",
            "1",
            "--context",
            "32",
            "--layers",
            "1",
            "--vocabulary",
            "512",
            "--rounds",
            "2",
            "--steps",
            "2"
          ])
    )
  })
  const groupedTests = (name: string) =>
    tests(choices, name, "test/native/large.test.ts", "test/native/kernels.test.ts", "-t", "grouped")
  const withoutWgmma = { TANDEM_CUDA_WGMMA: "0" }
  const held = groupedTests("grouped-mma")
  const byMma: ReadonlyArray<Step> = [
    { ...held, env: { ...held.env, ...withoutWgmma } },
    { name: "mma.sync", command: experts, env: withoutWgmma }
  ]
  const sgd = ["--set", "training.optimizer=sgd"]
  // its first steps overflow and are skipped
  const overflowing = ["training.lossScale={initial: 1073741824}", "steps=20", "algorithm=s-sgd"].flatMap(
    (one) => ["--set", one]
  )
  return [
    part("grouped", 240, [
      groupedTests("grouped"),
      { name: "tensor cores", command: experts },
      ...(cuda ? byMma : []),
      { name: "ordinary cores", command: experts, env: { TANDEM_CUDA_GROUPED: "0" } }
    ]),
    part("precision", 150, [
      agreementOf(backend, "data-parallel", "--set", "training.precision=float16", ...sgd),
      agreementOf(backend, "data-parallel", "--set", "training.precision=float16", ...sgd, ...overflowing),
      agreementOf(backend, "data-parallel", "--set", "training.precision=tf32", ...sgd),
      ...["bfloat16", "float16", "tf32", "float32"].map(step)
    ]),
    part("graphs", 420, [
      {
        ...tests(
          choices,
          "graphs",
          "test/contract",
          "test/native/training.test.ts",
          "test/native/graphs.test.ts"
        ),
        env: { ...tests(choices, "graphs").env, TANDEM_CUDA_GRAPHS: "1" }
      },
      ...withAndWithout(step("bfloat16")),
      ...withAndWithout(decoding(backend))
    ])
  ]
}

/** How fast, beside others where they do the same. */
const speed = (choices: PartChoices): ReadonlyArray<Part> => {
  const { backend, out } = choices
  const cuda = backend === "cuda"
  const on = ["--backend", backend]
  return [
    part("step-4", 240, stepBeside(backend, 4)),
    part("step-32", 300, stepBeside(backend, 32, "--rounds", "5", "--steps", "5")),
    part("offload", 420, [
      {
        name: "policies",
        command: cuda
          ? bench("offload", ...on, "--layers", "4", "--out", `${out}/offload`)
          : offload(backend, `${out}/offload`, "--tokens", "16")
      },
      {
        name: "LRU loop in torch",
        command: python("torch-offload", `${out}/offload/offload.json`, ...(cuda ? [] : ["--device", "cpu"])),
        needs: ["torch"],
        tell: ({ tokensPerSecond, loads }) => `${Number(tokensPerSecond).toFixed(2)} tokens/s, ${loads} loads`
      }
    ]),
    part("loss", 300, [
      {
        name: "ours",
        command: bench(
          "loss-curve",
          ...on,
          "--out",
          `${out}/curve`,
          ...(cuda ? [] : ["--steps", "2", "--layers", "1", "--context", "32", "--batch", "1"])
        )
      },
      {
        name: "torch, bf16 autocast and float32",
        command: python("torch-loss", `${out}/curve`),
        needs: ["cuda", "torch", "transformers", "safetensors", "numpy"]
      }
    ])
  ]
}

const toyLlama = ["--model", "{layers: 2, width: 64, heads: 4, kvHeads: 2, ffnWidth: 128, vocabulary: 256}"]

/** Compressed caches: what was predicted of them, or is said of bandwidths, and what it takes. */
const compressed = ({ backend, out }: PartChoices): ReadonlyArray<Part> => {
  const cuda = backend === "cuda"
  const on = ["--backend", backend]
  return [
    part(
      "kv-decode",
      420,
      [
        {
          name: "a step by the share kept, predicted and run",
          command: bench(
            "kv-decode",
            ...on,
            "--out",
            `${out}/kv-decode`,
            ...(cuda
              ? []
              : [
                  "--prompts",
                  "48,192",
                  "--profiled",
                  "8,32,96,256",
                  "--batch",
                  "2",
                  "--tokens",
                  "16",
                  ...toyLlama,
                  // where launches take all the time, and other work the processor
                  "--bound",
                  "100"
                ])
          )
        }
      ],
      { cited: "docs/kv-serving.md" }
    ),
    part(
      "kv-break-even",
      420,
      [
        {
          name: "bandwidths at which choosing pays no more",
          command: bench(
            "kv-break-even",
            ...on,
            "--out",
            `${out}/kv-break-even`,
            ...(cuda ? [] : ["--prompts", "96,256", "--layers", "4", ...toyLlama])
          )
        }
      ],
      { cited: "docs/kv-serving.md" }
    )
  ]
}

/** Where the time goes. */
const pieces = (choices: PartChoices): ReadonlyArray<Part> => {
  const { backend, out } = choices
  const cuda = backend === "cuda"
  const on = ["--backend", backend]
  return [
    part("kernels", 60, [
      {
        name: "kernels",
        command: bench(
          "kernels",
          ...on,
          ...(cuda
            ? ["--batch", "4"]
            : ["--batch", "1", "--time", "64", "--vocabulary", "512", "--repeats", "8"])
        )
      }
    ]),
    part("select", 120, [
      {
        name: "ours",
        command: bench("select", ...on, ...(cuda ? [] : ["--tokens", "512,1024", "--repeats", "6"]))
      },
      { name: "kvpress's rule in torch", command: python("torch-select"), needs: ["cuda", "torch"] },
      {
        name: "ours again",
        command: bench("select", ...on, ...(cuda ? [] : ["--tokens", "512,1024", "--repeats", "6"]))
      }
    ]),
    part("profile", 240, [
      cuda
        ? {
            name: "a step's profile beside an import of PyTorch's",
            command: bench("profile-beside", ...on, "--out", `${out}/profile`),
            needs: ["cuda", "torch", "transformers"]
          }
        : {
            name: "a step's profile",
            command: bench(
              "profile-beside",
              ...on,
              "--traces",
              "none",
              "--steps",
              "2",
              "--set",
              "model={gpt2: {layers: 2, width: 64, heads: 4, vocabulary: 500, vocabularyMultiple: 64, context: 64, batch: 1}}",
              "--out",
              `${out}/profile`
            )
          }
    ]),
    part("decode", 120, [decoding(backend)]),
    part("initial", 90, [{ name: "initial values", command: bench("initial", ...on, "--rounds", "1") }], {
      onCpu: false
    })
  ]
}

/** How soon equal losses are reached: a GPU for each of two ranks, or one for both. */
const timeToLoss = (
  { backend, out }: PartChoices,
  {
    name,
    gpus,
    limitSeconds,
    asked
  }: Pick<Part, "name" | "limitSeconds"> & { gpus: number; asked: ReadonlyArray<string> }
): Part => {
  const cuda = backend === "cuda"
  const shared = gpus === 1 && cuda ? ["--mps", ...asked] : []
  return part(
    name,
    limitSeconds,
    [
      {
        name: "time to equal losses",
        command: [
          "node",
          "bench/cluster/time-to-loss.ts",
          "--backend",
          backend,
          "--out",
          `${out}/${name}`,
          "--budget-seconds",
          String(limitSeconds - 20),
          ...shared,
          ...(cuda ? [] : ["--variants", "ddp,local-sgd,dreamddp,streaming-diloco"])
        ],
        needs: ["ip", ...(shared.length > 0 ? ["nvidia-cuda-mps-control"] : [])],
        result: `${out}/${name}/results.json`,
        tell: ({ report }) =>
          Array.isArray(report) ? String(report.at(-1)) : "ended before it could report; see its rows"
      }
    ],
    { cited: "docs/learning.md", gpus }
  )
}

/** What takes longest, or more GPUs. */
const further = (choices: PartChoices): ReadonlyArray<Part> => {
  const { backend } = choices
  return [
    part(
      "sanitizer",
      420,
      ["memcheck", "racecheck", "initcheck"].flatMap((tool) => sanitized(tool, choices)),
      { onCpu: false }
    ),
    part("processes", 180, [
      agreementOf(backend, "data-parallel", "--processes", "2"),
      agreementOf(backend, "streaming-diloco", "--processes", "3"),
      ...[2, 3].map((ranks) => agreementApart(backend, "streaming-diloco", ranks, "algorithm.wire=float4"))
    ]),
    part("moe", 320, [fsmoeShared(choices, "in turn"), fsmoeShared(choices, "at once")], {
      cited: "docs/validation.md",
      gpus: 2
    }),
    ...several(choices),
    ...whatIfs(choices),
    timeToLoss(choices, { name: "time-to-loss", gpus: 2, limitSeconds: 280, asked: [] }),
    timeToLoss(choices, {
      name: "time-to-loss-one",
      gpus: 1,
      limitSeconds: 420,
      asked: ["--points", "25Gbit/s", "--steps", "1200", "--run-seconds", "150"]
    })
  ]
}

/** In the order in which they are run: what others need first. */
export const partsOf = (choices: PartChoices): ReadonlyArray<Part> => [
  ...correctness(choices),
  ...formats(choices),
  byCudnn(choices),
  ...speed(choices),
  ...pieces(choices),
  ...compressed(choices),
  ...further(choices)
]
