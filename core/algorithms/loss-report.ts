// What a program that learns tells while it runs.

export interface LossReport {
  /** Training loss of a rank, `step` steps taken. */
  readonly loss: (rank: number, step: number, loss: number) => void
  /** Loss on held-out data, with the rank's own parameters. */
  readonly heldOutLoss: (rank: number, step: number, loss: number) => void
}
