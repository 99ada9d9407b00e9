// How processes of a job may be asked to meet. Imports nothing, so that a command line can tell its options without loading a job.

/**
 * What carries messages between processes: "auto" is memory that all ranks read of each other, else UCX where it has RDMA between all,
 * else TCP, and memory between ranks of one host.
 */
export const transports = ["auto", "tcp", "ucx"] as const
export type TransportWish = (typeof transports)[number]

/** How long processes of a job wait for each other where nobody says it, seconds. */
export const usualRendezvousTimeout = 60
