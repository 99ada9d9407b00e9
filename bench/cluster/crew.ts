// Ranks that are given so long for each run, and are started again after one that failed: what that has left is not known. Knows
// nothing of what they run.
import type { Failed, Runners } from "./runners.ts"

/** What comes of it within so many seconds; what `late` says where nothing does, after `stop`. */
export const within = async <A>(seconds: number, work: Promise<A>, stop: () => void, late: A): Promise<A> => {
  let timer: NodeJS.Timeout | undefined
  const over = new Promise<A>((resolve) => {
    timer = setTimeout(
      () => {
        stop()
        resolve(late)
      },
      1000 * Math.max(0, seconds)
    )
  })
  try {
    return await Promise.race([work, over])
  } finally {
    clearTimeout(timer)
  }
}

/** Others have little to say when one has failed: what they wait for does not come. */
export const graceMillis = 10_000

/** `Asked` is what they are asked, `Answer` what they answer. */
export class Crew<Asked, Answer extends object> {
  readonly #start: () => Runners<Asked, Answer>
  #runners: Runners<Asked, Answer> | undefined

  constructor(start: () => Runners<Asked, Answer>) {
    this.#start = start
  }

  async run(asked: Asked, seconds: number): Promise<Answer | Failed> {
    const runners = (this.#runners ??= this.#start())
    const late = { error: `ended after ${seconds.toFixed(0)} s` }
    const answer = await within(seconds, runners.run(asked), () => runners.kill(), late)
    if ("error" in answer) await this.end()
    return answer
  }

  /** Ends them at once; what they ran on is free then. */
  async end(): Promise<void> {
    const runners = this.#runners
    this.#runners = undefined
    runners?.kill()
    await runners?.close()
  }
}
