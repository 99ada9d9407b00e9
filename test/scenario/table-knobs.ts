// The fields of a scenario of data-parallel training that name tables of measured collectives: of all, and of what stays inside nodes.
import type { Knob } from "./shared-knobs.ts"

export const tableKnobs: ReadonlyArray<Knob> = [
  [
    "collectives.measured",
    "traces/profiles/allreduce-ddp-gpt2-h200.arrow",
    "traces/profiles/nccl-h200-sockets.arrow",
    "world={ranks: 4}"
  ],
  [
    "collectives.inside",
    "traces/profiles/nccl-h100-nvlink.arrow",
    "traces/profiles/nccl-h200-sockets.arrow",
    "world={ranks: 2, ranksPerNode: 2}"
  ],
  [
    "collectives.inside",
    "traces/profiles/nccl-h100-nvlink.arrow",
    "traces/profiles/nccl-h200-sockets.arrow",
    "world={ranks: 2}"
  ],
  [
    "collectives.measured",
    "traces/profiles/nccl-h100-nvlink.arrow",
    "traces/profiles/nccl-h200-sockets.arrow",
    "world={ranks: 2, ranksPerNode: 2}",
    "collectives.inside=traces/profiles/nccl-h100-nvlink.arrow"
  ]
]
