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

const clock = (seconds: number): string => {
  const whole = Math.ceil(seconds)
  const minutes = Math.floor(whole / 60)
  return minutes === 0 ? `${whole} s` : `${minutes}:${String(whole % 60).padStart(2, "0")} min`
}
