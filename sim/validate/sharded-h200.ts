// Steps and peaks of memory of PyTorch DDP and FSDP2 on two H200s, measured by bench/measured/fsdp_record.py. What is claimed was set
// before anything was recorded.
import { stepTable } from "./step-table.ts"

const tolerance = 0.05

/** The section, of a table and what to call it; `missed`: in words, where it is known not to meet its bounds. */
export const shardedH200 = (name: string, table: string, missed?: string) =>
  stepTable({
    name,
    ...(missed === undefined ? {} : { missed }),
    title: "PyTorch DDP and FSDP2 on two H200s over NVLink and sockets, measured: steps and memory",
    table,
    peaksWithin: tolerance,
    claims: [
      { of: "nvlink", claim: "steps over NVLink", within: tolerance },
      { of: "waited", claim: "steps over NVLink whose host waits for each", within: tolerance },
      { of: "shaped", claim: "steps over shaped links of 3 to 25 Gbit/s", within: tolerance },
      { of: "unshaped", claim: "steps over sockets that are not shaped", within: tolerance }
    ],
    notes: [
      "Bounds were set before anything was recorded. A step gives nothing to its own prediction: costs are those of the local step of its own model, with two processes at once, and of collectives alone; the host's hooks and calls, and what collectives over NVLink slow kernels by, come from traces of the other model; what they slow them by over sockets, from all-reduces beside a product and a copy."
    ]
  })

/** Of the recording in bench/measured/fsdp-h200x2.json. */
export const shardedH200x2 = shardedH200(
  "sharded-h200x2",
  "sharded-h200x2.measured.json",
  "bounds set before are not met"
)
