// Knobs of how collectives of data-parallel training go.
import type { Knob } from "./shared-knobs.ts"

const nvlink = "traces/profiles/nccl-h100-nvlink.arrow"
const sockets = "traces/profiles/nccl-h200-sockets.arrow"

export const collectiveKnobs: ReadonlyArray<Knob> = [
  ["collectives.algorithm", "ring", "tree"],
  ["collectives.algorithm", "ring", "tree", "world={ranks: 1}"],
  ["collectives.handshake", "false", "true", "collectives.algorithm=direct", "world.links.inter.latency=1ms"],
  ["collectives.chunk", "1GiB", "64KiB", "world.links.inter.latency=1ms"],
  ["collectives.chunk", "4MiB", "64KiB", "world.links.inter.latency=0s"],
  ["collectives.chunk", "4MiB", "64KiB", "collectives.algorithm=direct", "world.links.inter.latency=1ms"],
  ["collectives.chunk", "4MiB", "64KiB", "collectives.algorithm=tree", "world.links.inter.latency=1ms"],
  // What a run shows to be said in vain: nothing is as large, as far, as slow, or beside anything.
  ["collectives.chunk", "1GiB", "2GiB", "world.links.inter.latency=1ms"],
  [
    "collectives.handshake",
    "false",
    "true",
    "collectives.algorithm=direct",
    "world={ranks: 2, ranksPerNode: 2, links: {inter: {latency: 1ms}}}"
  ],
  ["collectives.measured", nvlink, sockets, "world={ranks: 4, links: {inter: {bandwidth: 1Mbit/s}}}"],
  ["collectives.inside", nvlink, sockets],
  ["collectives.wait", "1ms", "3ms", "algorithm=s-sgd"],
  ["collectives.slowdown", "1.1", "1.5", "algorithm=s-sgd"],
  ["collectives.slowdown", "1.1", "1.5", "world={ranks: 4, sites: 2}"],
  ["collectives.slowdownInside", "1.1", "1.5"],
  ["world.links.inter.window", "1GiB", "2GiB", "world={ranks: 4}"],
  ["world.links.intra.window", "1GiB", "2GiB", "world.links.intra={latency: 1s}"],
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
