// Why the processes of a job that were started together have failed: what several say alike is told once, with the ranks that it is of
// where it is not of all. Knows nothing of how it comes from them.

/** Whoever has the same to say says it so soon after the first. Assumed: processes start within that of each other. */
const patienceMillis = 3000

export class ToldOnce {
  readonly #processes: number
  readonly #write: (text: string) => void
  readonly #heard = new Map<string, Array<number>>()
  #timer: NodeJS.Timeout | undefined

  constructor(processes: number, write: (text: string) => void) {
    this.#processes = processes
    this.#write = write
  }

  hear(rank: number, text: string): void {
    const ranks = this.#heard.get(text)
    if (ranks === undefined) this.#heard.set(text, [rank])
    else ranks.push(rank)
    if (ranks?.length === this.#processes) this.tell()
    else this.#timer ??= setTimeout(() => this.tell(), patienceMillis)
  }

  /** All that was heard and not told yet. */
  tell(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    for (const [text, ranks] of this.#heard) {
      // As whatever rank 0 prints: what has no number is of all, or its own.
      const isPlain = ranks.length === this.#processes || (ranks.length === 1 && ranks[0] === 0)
      const prefix = isPlain ? "" : `[${ranks.toSorted((a, b) => a - b).join(", ")}] `
      this.#write(text.replaceAll(/^(?=.)/gmu, prefix))
    }
    this.#heard.clear()
  }
}
