// A line on a terminal that says how far a study is. Nothing when standard error is no terminal.
import { writeLine } from "./output.ts"

interface Progress {
  /** `note` stands behind the bar. */
  readonly update: (done: number, total: number, note?: string) => void
  readonly end: () => void
}

const leastMillis = 100
const barWidth = 24

export const terminalProgress = (what: string): Progress => {
  if (!process.stderr.isTTY) return { update: () => undefined, end: () => undefined }
  let began: { readonly at: number; readonly done: number } | undefined
  let shownAt = 0
  let shown = false
  return {
    update(done, total, note = "") {
      const now = performance.now()
      began ??= { at: now, done }
      if (now - shownAt < leastMillis && done < total) return
      shownAt = now
      shown = true
      const share = total === 0 ? 1 : done / total
      const full = Math.round(share * barWidth)
      const own = done - began.done
      const left = own === 0 ? "" : ` ${clock(((now - began.at) / own / 1000) * (total - done))} left`
      writeLine(
        `${what} ${"█".repeat(full)}${"░".repeat(barWidth - full)} ${done}/${total}${left}${note === "" ? "" : `  ${note}`}`
      )
    },
    end() {
      if (shown) writeLine("")
    }
  }
}

const patienceSeconds = 10
const longSeconds = 30

/**
 * As `terminalProgress`; where there is no terminal, one line to `tell` when ten seconds have passed and more than thirty are to come:
 * whoever waits knows for what, and how long.
 */
export const patientProgress = (
  what: string,
  tell: (line: string) => void,
  now: () => number = () => performance.now()
): Progress => {
  const bar = terminalProgress(what)
  const beganAt = now()
  let told = process.stderr.isTTY
  return {
    update(done, total, note) {
      bar.update(done, total, note)
      const seconds = (now() - beganAt) / 1000
      const left = (seconds / done) * (total - done)
      if (told || seconds < patienceSeconds || left < longSeconds) return
      told = true
      tell(`${what}: ${done} of ${total} in ${clock(seconds)}, about ${clock(left)} left`)
    },
    end: bar.end
  }
}

const clock = (seconds: number): string => {
  const whole = Math.ceil(seconds)
  const minutes = Math.floor(whole / 60)
  return minutes === 0 ? `${whole} s` : `${minutes}:${String(whole % 60).padStart(2, "0")} min`
}
