// Parts of bench/native/gpu.ts for several GPUs of one host: links that are slower, predicted and run; FSMoE; collectives by size; host
// time by ranks.
import { agreementOf, bench, part, tests, type Part, type PartChoices, type Step } from "./gpu-part.ts"

/** What a run of bench/cluster/what-if.ts is of, beside the backend. */
interface WhatIf {
  readonly name: string
  readonly gpus: number
  readonly limitSeconds: number
  readonly asked: ReadonlyArray<string>
  readonly needs?: ReadonlyArray<string>
  /** Before it. */
  readonly first?: ReadonlyArray<Step>
}

const whatIf = (
  { backend, out }: PartChoices,
  { name, gpus, limitSeconds, asked, needs = [], first = [] }: WhatIf
): Part => {
  // It ends by itself, so that what it measured is told.
  const budget = ["--budget-seconds", String(limitSeconds - 30 * (1 + first.length))]
  const files = ["--out", `${out}/${name}-rows.json`, "--profiles", `${out}/${name}-profiles`]
  return part(
    name,
    limitSeconds,
    [
      ...first,
      {
        name: asked.join(" "),
        command: ["node", "bench/cluster/what-if.ts", "--backend", backend, ...asked, ...files, ...budget],
        needs: ["ip", ...needs]
      }
    ],
    { cited: "docs/validation.md", gpus, onCpu: false }
  )
}

const llama = ["--scenario", "scenarios/measured/what-if-llama.yaml"]

/** PyTorch's own steps beside ours. */
const torch = ["--torch"]

/** Four ranks on two GPUs. */
const shared = ["--ranks", "4", "--mps"]

/**
 * DDP's 16-bit gradients of four ranks by NCCL's sums, as it chooses to add them and around a ring; and why those that are exchanged, so
 * that sums are exact, do not have the whole link: as they are, and with what may be the reason taken away, one thing at a time.
 */
const sharedDdp = ({ backend }: PartChoices): ReadonlyArray<Step> => {
  const exact = ["--exact-sums"]
  const ways: ReadonlyArray<readonly [string, Readonly<Record<string, string>>, ReadonlyArray<string>]> = [
    ["as it is", {}, []],
    ["around a ring", { NCCL_ALGO: "Ring" }, []],
    ["exact sums", {}, exact],
    ["exact sums without graphs", { TANDEM_CUDA_GRAPHS: "0" }, exact],
    ["exact sums, one connection", { NCCL_NSOCKS_PERTHREAD: "1", NCCL_SOCKET_NTHREADS: "1" }, exact],
    ["exact sums, one channel a peer", { NCCL_NCHANNELS_PER_NET_PEER: "1" }, exact],
    ["exact sums, chunks of 1 MiB", { NCCL_P2P_NET_CHUNKSIZE: "1048576", NCCL_BUFFSIZE: "8388608" }, exact],
    ["exact sums, chunks of 32 KiB", { NCCL_P2P_NET_CHUNKSIZE: "32768" }, exact],
    ["exact sums, packed messages", { TANDEM_CUDA_PIECES: "0" }, exact]
  ]
  const what = ["--points", "5Gbit/s", "--algorithms", "ddp"]
  const command = ["node", "bench/cluster/what-if.ts", "--backend", backend, ...shared, ...what]
  return ways.map(([name, env, more]) => ({
    name,
    env,
    command: [...command, ...more],
    needs: ["ip", "nvidia-cuda-mps-control"]
  }))
}

/** Links that are slower, predicted and run: more ranks, larger models, models in parts, GPUs that are shared. */
export const whatIfs = (choices: PartChoices): ReadonlyArray<Part> => [
  whatIf(choices, { name: "what-if", gpus: 2, limitSeconds: 420, asked: [] }),
  whatIf(choices, {
    name: "sites",
    gpus: 4,
    limitSeconds: 540,
    asked: ["--ranks", "4", "--sites", "2", "--points", "nvlink,25Gbit/s,5Gbit/s,1Gbit/s", ...torch],
    first: [
      agreementOf(choices.backend, "sharded", "--processes", "4"),
      agreementOf(
        choices.backend,
        "sharded",
        "--processes",
        "4",
        ...["training.precision=bfloat16", "algorithm=ddp", "steps=1"].flatMap((one) => ["--set", one])
      )
    ]
  }),
  whatIf(choices, {
    name: "what-if-4",
    gpus: 4,
    limitSeconds: 440,
    asked: ["--ranks", "4", "--points", "nvlink,5Gbit/s,1Gbit/s", ...torch]
  }),
  whatIf(choices, {
    name: "what-if-llama-4",
    gpus: 4,
    limitSeconds: 400,
    asked: [...llama, "--ranks", "4", "--points", "nvlink,25Gbit/s"]
  }),
  whatIf(choices, {
    name: "what-if-llama",
    gpus: 2,
    limitSeconds: 400,
    asked: [...llama, "--points", "nvlink,25Gbit/s,5Gbit/s"]
  }),
  whatIf(choices, {
    name: "what-if-one",
    gpus: 1,
    limitSeconds: 240,
    asked: ["--ranks", "2", "--mps", "--points", "25Gbit/s,5Gbit/s,1Gbit/s", ...torch],
    needs: ["nvidia-cuda-mps-control"]
  }),
  whatIf(choices, {
    name: "what-if-llama-one",
    gpus: 1,
    limitSeconds: 240,
    asked: [...llama, "--ranks", "2", "--mps", "--points", "25Gbit/s", ...torch],
    needs: ["nvidia-cuda-mps-control"]
  }),
  whatIf(choices, {
    name: "what-if-shared",
    gpus: 2,
    limitSeconds: 240,
    asked: [...shared, "--points", "25Gbit/s,5Gbit/s"],
    needs: ["nvidia-cuda-mps-control"]
  }),
  whatIf(choices, {
    name: "sites-shared",
    gpus: 2,
    limitSeconds: 240,
    asked: [...shared, "--sites", "2", "--points", "25Gbit/s,5Gbit/s,1Gbit/s"],
    needs: ["nvidia-cuda-mps-control"]
  }),
  part("shared-ddp", 330, sharedDdp(choices), { cited: "docs/validation.md", gpus: 2, onCpu: false }),
  whatIf(choices, {
    name: "sites-8",
    gpus: 8,
    limitSeconds: 530,
    asked: ["--ranks", "8", "--sites", "2", "--points", "nvlink,25Gbit/s,5Gbit/s,1Gbit/s", ...torch]
  })
]

/** bench/cluster/moe.ts with `more` of its options. */
const moe = (
  { backend, out }: PartChoices,
  name: string,
  seconds: number,
  more: ReadonlyArray<string>
): Pick<Step, "name" | "command"> => {
  const file = ["--out", `${out}/${name.replaceAll(" ", "-")}.json`]
  const on = ["--backend", backend, ...file, "--budget-seconds", String(seconds)]
  return { name, command: ["node", "bench/cluster/moe.ts", ...on, ...more] }
}

/** FSMoE with four ranks, two of a GPU: whose processes have it in turn, or at once by CUDA MPS. */
export const fsmoeShared = (choices: PartChoices, how: "in turn" | "at once"): Step => ({
  ...moe(choices, `fsmoe ${how}`, 150, how === "at once" ? ["--mps"] : []),
  needs: how === "at once" ? ["cuda", "nvidia-cuda-mps-control"] : []
})

/**
 * FSMoE with a GPU for each of four ranks: as it is, and with what decides how soon NCCL's kernels get multiprocessors beside products
 * taken back or changed, one thing at a time.
 */
const fsmoeAlone = (choices: PartChoices): ReadonlyArray<Step> => {
  const ways: ReadonlyArray<readonly [string, Readonly<Record<string, string>>]> = [
    ["as it is", {}],
    ["one priority", { TANDEM_CUDA_PRIORITY: "0" }],
    ["packed messages", { TANDEM_CUDA_PIECES: "0" }],
    ["32 queues", { CUDA_DEVICE_MAX_CONNECTIONS: "32" }],
    ["NCCL without clusters", { NCCL_CGA_CLUSTER_SIZE: "0" }],
    ["NCCL with 8 blocks", { NCCL_MAX_CTAS: "8" }]
  ]
  const fewer = ["--variants", "no pipelining; fsmoe, degree 4; fsmoe, degree 8"]
  return ways.map(([name, env], index) => ({
    ...moe(choices, `fsmoe ${name}`, 90, index === 0 ? [] : fewer),
    name,
    env,
    needs: ["ip"]
  }))
}

/** What several GPUs of one host do: collectives by size, and whether a rank's host time stays. */
export const several = (choices: PartChoices): ReadonlyArray<Part> => {
  const { backend, out } = choices
  const cuda = backend === "cuda"
  const ofRanks = (ranks: string): Step => ({
    name: `collectives of ${ranks} ranks`,
    command: [
      "node",
      "bench/cluster/collectives.ts",
      "--backend",
      backend,
      "--ranks",
      ranks,
      "--out",
      `${out}/nccl-${ranks.replaceAll(",", "-")}`,
      ...(cuda ? [] : ["--sizes", "4KiB,256KiB", "--repeats", "5"])
    ]
  })
  const hostTime = (ranks: string): Step => ({
    name: `host time of a step, ${ranks} ranks`,
    command: bench("job-step", "--backend", backend, "--ranks", ranks, "--pairs", cuda ? "3" : "1")
  })
  const betweenProcesses = tests(choices, "between-processes", "test/job/collectives.test.ts")
  return [
    part("moe-four", 480, [betweenProcesses, ...fsmoeAlone(choices)], {
      cited: "docs/validation.md",
      gpus: 4,
      onCpu: false
    }),
    part("collectives", 150, [ofRanks(cuda ? "2,4" : "2,3")], { cited: "docs/costs.md", gpus: 4 }),
    part("collectives-8", 200, [ofRanks("2,4,8")], { cited: "docs/costs.md", gpus: 8, onCpu: false }),
    part("ranks", 150, [hostTime(cuda ? "1,2,4" : "1,2")], { gpus: 4 }),
    part("ranks-8", 200, [hostTime("1,2,4,8")], { gpus: 8, onCpu: false })
  ]
}
