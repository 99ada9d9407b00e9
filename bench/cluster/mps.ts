// CUDA MPS for a bench: processes that share a GPU run on it at once, not in turn. Knows nothing of what they are.
import { spawnSync } from "node:child_process"

export interface Mps {
  /** Variables of the processes. */
  readonly env: Readonly<Record<string, string>>
  readonly stop: () => void
}

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
  return { env, stop: () => void control() }
}
