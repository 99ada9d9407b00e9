// What the algorithms are called in papers and documentation.
import type { ExpertOffloadSettings } from "../../../core/algorithms/expert-offload/settings.ts"

export const displayNames: Readonly<Record<ExpertOffloadSettings["name"], string>> = {
  "on-demand": "On demand",
  lru: "LRU",
  lfu: "LFU",
  arc: "ARC",
  "s3-fifo": "S3-FIFO",
  sieve: "SIEVE",
  "static-popular": "Static popular",
  "previous-token": "Previous token",
  "previous-layer": "Previous layer",
  "predict-next": "Predict next layer",
  "layer-ring": "Layer ring",
  "moe-infinity": "MoE-Infinity style",
  expertflow: "ExpertFlow",
  optimum: "Offline optimum"
}
