// Lets all ranks begin together: what they submit is held back until each has built its model and waits for something. As a
// job's ranks meet at a barrier before the first step; a run's clock starts here.

export class StartGate {
  readonly #then: Array<() => void> = []
  readonly #arrived = new Set<number>()
  readonly #ranks: number
  readonly #meet: (open: () => void) => void
  #met = false
  #open = false

  /** `meet` is called once, when all of these ranks have arrived or one cannot wait: it opens the gate when others have too. */
  constructor(ranks: number, meet: (open: () => void) => void = (open) => open()) {
    this.#ranks = ranks
    this.#meet = meet
  }

  get isOpen(): boolean {
    return this.#open
  }

  /** Calls `task` when the gate opens, in the order asked; at once when it is open. */
  whenOpen(task: () => void): void {
    if (this.#open) task()
    else this.#then.push(task)
  }

  /** A rank can do no more without its ops running. The last one opens the gate. */
  arrive(rank: number): void {
    this.#arrived.add(rank)
    if (this.#arrived.size === this.#ranks) this.#comeTogether(() => this.#openNow())
  }

  /** Does not wait for the others: a rank needs something to have run before it can arrive. */
  open(): void {
    this.#openNow()
    this.#comeTogether(() => {})
  }

  #comeTogether(then: () => void): void {
    if (this.#met) return
    this.#met = true
    this.#meet(then)
  }

  #openNow(): void {
    if (this.#open) return
    this.#open = true
    for (const task of this.#then.splice(0)) task()
  }
}
