// Steps and peaks of memory of PyTorch DDP and FSDP2 on two H200s, measured by bench/measured/fsdp_record.py. What is claimed was set
// before anything was recorded.
import { stepTable } from "./step-table.ts"

const tolerance = 0.05

const claims = [
  { of: "nvlink", claim: "steps over NVLink", within: tolerance },
  { of: "waited", claim: "steps over NVLink whose host waits for each", within: tolerance },
  { of: "shaped", claim: "steps over shaped links of 3 to 25 Gbit/s", within: tolerance },
  { of: "unshaped", claim: "steps over sockets that are not shaped", within: tolerance }
]

const title = "PyTorch DDP and FSDP2 on two H200s over NVLink and sockets, measured: steps and memory"

/** Of the recording in bench/measured/fsdp-h200x2.json. */
export const shardedH200x2 = stepTable({
  name: "sharded-h200x2",
  missed: "bounds set before are not met",
  title,
  table: "sharded-h200x2.measured.json",
  peaksWithin: tolerance,
  claims,
  notes: [
    "Bounds were set before anything was recorded. A step gives nothing to its own prediction: costs are those of the local step of its own model, with two processes at once, and of collectives alone; the host's hooks and calls, and what collectives over NVLink slow kernels by, come from traces of the other model; what they slow them by over sockets, from all-reduces beside a product and a copy."
  ]
})

/**
 * Of a recording that `bench/measured/fsdp-import.ts` reads, which says what each step is foretold from; `missed`: in words, where it
 * is known not to meet its bounds.
 */
export const shardedH200Cubic = (name: string, table: string, missed?: string) =>
  stepTable({
    name,
    ...(missed === undefined ? {} : { missed }),
    title,
    table,
    peaksWithin: tolerance,
    claims: [
      ...claims,
      {
        of: "measured link",
        claim: "steps over shaped links, from collectives measured on them",
        within: tolerance
      }
    ],
    notes: [
      "Bounds, and what each step is foretold from, were set before anything was recorded. A step gives nothing to its own prediction: costs are those of its own model's local steps, by both processes at once, of few tokens for what its host spends (the longer of each pair of the two ranks'), and of collectives alone; what DDP and FSDP2 add to a host comes from the other model's steps of few tokens under them; what collectives slow kernels by, from all-reduces beside a product and a copy."
    ]
  })

/** Of the recording in bench/measured/fsdp-h200x2-cubic.json. */
export const shardedH200x2Cubic = shardedH200Cubic(
  "sharded-h200x2-cubic",
  "sharded-h200x2-cubic.measured.json",
  "bounds set before are not met"
)
