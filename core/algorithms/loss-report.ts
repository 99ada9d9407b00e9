// What a program that learns tells while it runs.

export interface LossReport {
  /** Training loss of a rank, `step` steps taken. */
  readonly loss: (rank: number, step: number, loss: number) => void
  /** Loss on held-out data, with the rank's own parameters. */
  readonly heldOutLoss: (rank: number, step: number, loss: number) => void
  /** Of a scaled loss, after the last step: its scale, and how many steps were skipped because gradients overflowed. */
  readonly lossScale?: (rank: number, scale: number, skippedSteps: number) => void
}
