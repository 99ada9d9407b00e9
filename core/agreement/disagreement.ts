// Where two runs of one program part ways, in a form that a person and a script can read.

/** The first place at which something differs. */
export interface Disagreement {
  readonly kind: "decisions" | "values" | "order"
  readonly rank?: number
  /** Position in that rank's program order, where an op is concerned. */
  readonly op?: number
  /** One sentence: what it is, and what each machine has. */
  readonly message: string
}
