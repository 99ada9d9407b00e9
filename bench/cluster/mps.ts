// CUDA MPS for a bench: processes that share a GPU run on it at once, not in turn. Knows nothing of what they are.
import { spawnSync } from "node:child_process"

export interface Mps {
  /** Variables of the processes. */
  readonly env: Readonly<Record<string, string>>
  /** Hardware queues of each process. */
  readonly queues: string
  readonly stop: () => void
}

/**
 * CUDA MPS gives a process so few hardware queues that messages of one lane wait behind products of another; with as many as a process
 * has by itself a step of FSMoE took 0.82 to 0.88 of the time.
 */
const usualQueues = "8"

/** Starts its server, whose pipes and logs go into the folder (control.log, server.log). Throws Error where it does not start. */
export const startMps = (folder: string): Mps => {
  const env = { CUDA_MPS_PIPE_DIRECTORY: folder, CUDA_MPS_LOG_DIRECTORY: folder }
  const control = (...args: ReadonlyArray<string>) =>
    spawnSync("nvidia-cuda-mps-control", args, {
      env: { ...process.env, ...env },
      encoding: "utf8",
      input: "quit\n",
      timeout: 20_000
    })
  const { status, error, stderr } = control("-d")
  if (status !== 0) throw new Error(`CUDA MPS did not start: ${error?.message ?? stderr}`)
  const queues = process.env.CUDA_DEVICE_MAX_CONNECTIONS ?? usualQueues
  return { env: { ...env, CUDA_DEVICE_MAX_CONNECTIONS: queues }, queues, stop: () => void control() }
}
