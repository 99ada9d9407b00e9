// Steps and peaks of memory of PyTorch DDP and FSDP2 on two H200s, measured by bench/measured/fsdp_record.py. What is claimed was set
// before anything was recorded.
import { stepTable } from "./step-table.ts"

const tolerance = 0.05

const overNvlink = [
  { of: "nvlink", claim: "steps over NVLink", within: tolerance },
  { of: "waited", claim: "steps over NVLink whose host waits for each", within: tolerance }
]

/** `rates`: of those that were recorded. */
const overSockets = (rates: string) => [
  { of: "shaped", claim: `steps over shaped links of ${rates} Gbit/s`, within: tolerance },
  { of: "unshaped", claim: "steps over sockets that are not shaped", within: tolerance }
]

const titleOver = (links: string): string =>
  `PyTorch DDP and FSDP2 on two H200s over ${links}, measured: steps and memory`

/** Of the recording in bench/measured/fsdp-h200x2.json. */
export const shardedH200x2 = stepTable({
  name: "sharded-h200x2",
  missed: "bounds set before are not met",
  title: titleOver("NVLink and sockets"),
  table: "sharded-h200x2.measured.json",
  peaksWithin: tolerance,
  claims: [...overNvlink, ...overSockets("3 to 25")],
  notes: [
    "Bounds were set before anything was recorded. A step gives nothing to its own prediction: costs are those of the local step of its own model, with two processes at once, and of collectives alone; the host's hooks and calls, and what collectives over NVLink slow kernels by, come from traces of the other model; what they slow them by over sockets, from all-reduces beside a product and a copy."
  ]
})

/** What a recording has beside steps over NVLink. */
interface Recorded {
  /** Steps over sockets. */
  readonly sockets: boolean
  /** A few steps of each kind in turn. */
  readonly turns: boolean
  /** By what FSDP2 adds to the other model's host: until three recordings were known by tensors too, in turns at its launches' pace. */
  readonly carried: "by calls" | "by tensors"
}

/**
 * Of a recording that `bench/measured/fsdp-import.ts` reads, which says what each step is predicted from; `missed`: in words, where it
 * is known not to meet its bounds.
 */
export const shardedH200Recorded = (
  name: string,
  table: string,
  { sockets, turns, carried }: Recorded,
  missed?: string
) =>
  stepTable({
    name,
    ...(missed === undefined ? {} : { missed }),
    title: titleOver(sockets ? "NVLink and sockets" : "NVLink"),
    table,
    peaksWithin: tolerance,
    claims: [
      ...overNvlink,
      ...(sockets
        ? [
            ...overSockets("5 to 25"),
            {
              of: "measured link",
              claim: "steps over shaped links, from collectives measured on them",
              within: tolerance
            }
          ]
        : [])
    ],
    notes: [
      "Bounds, and what each step is predicted from, were set before anything was recorded. A step gives nothing to its own prediction: costs are those of its own model's local steps, by both processes at once, of few tokens for what its host spends (the longer of each pair of the two ranks'), and of collectives alone; what DDP and FSDP2 add to a host comes from the other model's steps of few tokens under them; what collectives slow kernels by, from all-reduces beside a product and a copy.",
      ...(turns
        ? [
            `Hosts' steps are medians of rounds, in each of which a few were taken of every kind, and so are the steps that are held to them: those that the host does not wait for.${
              carried === "by tensors"
                ? " What DDP and FSDP2 add to the other model's host counts as many times as long as this model's launches take beside the other's."
                : ""
            }`
          ]
        : []),
      ...(carried === "by calls"
        ? ["What FSDP2 adds to the other model's host counts by calls of collectives."]
        : [])
    ]
  })

/** Of the recording in bench/measured/fsdp-h200x2-cubic.json. */
export const shardedH200x2Cubic = shardedH200Recorded(
  "sharded-h200x2-cubic",
  "sharded-h200x2-cubic.measured.json",
  { sockets: true, turns: false, carried: "by tensors" },
  "bounds set before are not met"
)

/** Of the recording in bench/measured/fsdp-h200x2-turns.json. */
export const shardedH200x2Turns = shardedH200Recorded(
  "sharded-h200x2-turns",
  "sharded-h200x2-turns.measured.json",
  { sockets: false, turns: true, carried: "by tensors" },
  "bounds set before are not met"
)

/** Of the recording in bench/measured/fsdp-h200x2-untraced.json. */
export const shardedH200x2Untraced = shardedH200Recorded(
  "sharded-h200x2-untraced",
  "sharded-h200x2-untraced.measured.json",
  { sockets: false, turns: true, carried: "by tensors" },
  "bounds set before are not met"
)
