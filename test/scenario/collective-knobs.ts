// Knobs of how collectives of data-parallel training go.
import type { Knob } from "./shared-knobs.ts"

export const collectiveKnobs: ReadonlyArray<Knob> = [
  ["collectives.algorithm", "ring", "tree"],
  ["collectives.algorithm", "ring", "tree", "world={ranks: 1}"],
  ["collectives.handshake", "false", "true", "collectives.algorithm=direct", "world.links.inter.latency=1ms"],
  ["collectives.chunk", "1GiB", "64KiB", "world.links.inter.latency=1ms"],
  ["collectives.chunk", "4MiB", "64KiB", "world.links.inter.latency=0s"],
  ["collectives.chunk", "4MiB", "64KiB", "collectives.algorithm=direct", "world.links.inter.latency=1ms"],
  ["collectives.chunk", "4MiB", "64KiB", "collectives.algorithm=tree", "world.links.inter.latency=1ms"],
  ["collectives.slowdown", "1", "1.5"],
  ["collectives.slowdown", "1", "1.5", "world={ranks: 1}"],
  [
    "collectives.slowdown",
    "1.1",
    "1.5",
    "world={ranks: 2, ranksPerNode: 2}",
    "collectives.slowdownInside=1.2"
  ],
  ["collectives.slowdownInside", "1", "1.5", "world={ranks: 2, ranksPerNode: 2}"],
  ["collectives.slowdownInside", "1", "1.5", "world={ranks: 2}"],
  ["collectives.slowdownInside", "1", "1.5", "world={ranks: 1}"],
  ["collectives.wait", "0s", "3ms"],
  ["collectives.wait", "0s", "3ms", "world={ranks: 1}"],
  ["collectives.algorithm", "ring", "hierarchical", "world={ranks: 4, ranksPerNode: 4}"],
  ["collectives.algorithm", "ring", "hierarchical", "world={ranks: 4, sites: 4}"]
]
