// The FIFO queues of one rank. A lane is a CUDA stream on a GPU and a worker thread on the CPU backend.

/**
 * `compute`: kernels. `inter`: collectives between nodes or sites. `intra`: collectives inside a node.
 * `h2d`, `d2h`: copies between host and device memory.
 */
export const laneNames = ["compute", "inter", "intra", "h2d", "d2h"] as const
export type LaneName = (typeof laneNames)[number]

/** Lanes as small integers, for arrays. */
export const Lane = { compute: 0, inter: 1, intra: 2, h2d: 3, d2h: 4 } as const
export type Lane = (typeof Lane)[LaneName]

export const laneCount = laneNames.length
