// Between having met and being connected: rank 0 and each other process keep the connection over which they met, and say every
// second that they are there. Whoever hangs up, falls silent or says that it cannot go on is lost, and rank 0 tells all. Once a
// process is connected with all others, their own connections say who is lost. Knows nothing of these.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Line, Lines } from "./lines.ts"

/** A process that had come to the rendezvous is gone, or cannot connect. */
class Gone extends Schema.TaggedError<Gone>()("Gone", {
  rank: Schema.Number,
  reason: Schema.String
}) {}

/** What peers say of each other is theirs: as little is believed of it as is needed. */
const reasonCharactersMax = 1000
const beatMillis = 1000
/** Silent for so long is lost, as once they are connected (`lostAfterSeconds`). */
const silenceMillis = 6000
/** This process itself was stopped for so long: what it did not hear meanwhile says nothing of others. */
const absentMillis = 2000

export class UntilConnected {
  readonly #rank: number
  /** By rank: of rank 0 those to all others, of others the one to rank 0. */
  readonly #peers: ReadonlyMap<number, Lines>
  readonly #heardAt = new Map<number, number>()
  readonly #connected = new Set<number>()
  readonly #timer: NodeJS.Timeout
  #gone: Gone | undefined
  #over = false
  #beatAt = performance.now()
  #onGone: ((gone: Gone) => void) | undefined

  constructor(rank: number, peers: ReadonlyMap<number, Lines>) {
    this.#rank = rank
    this.#peers = peers
    for (const [peer, lines] of peers) {
      this.#heardAt.set(peer, this.#beatAt)
      lines.socket.on("close", () => this.#lose(peer, "has ended before all were connected"))
      lines.each((line) => this.#heard(peer, line))
    }
    // Whoever connects lives on for that.
    this.#timer = setInterval(() => this.#beat(), beatMillis).unref()
    this.#stopIfDone()
  }

  /** Fails when one of them is gone. */
  get watch(): Effect.Effect<never, Gone> {
    return Effect.callback<never, Gone>((resume) => {
      const tell = (gone: Gone): void => resume(Effect.fail(gone))
      if (this.#gone !== undefined) tell(this.#gone)
      this.#onGone = tell
      return Effect.sync(() => (this.#onGone = undefined))
    })
  }

  /** This process is connected with all others. */
  connected(): void {
    this.#connected.add(this.#rank)
    if (this.#rank !== 0) for (const lines of this.#peers.values()) lines.part({ connected: true })
    this.#stopIfDone()
  }

  /** Ends it for all: this process cannot go on. Nothing where another is gone, which all know. */
  close(reason?: string): void {
    if (this.#over) return
    this.#over = true
    clearInterval(this.#timer)
    const own = { gone: this.#rank, reason: reason ?? "has ended before all were connected" }
    for (const [peer, lines] of this.#peers)
      lines.part(this.#connected.has(peer) || this.#gone !== undefined ? undefined : own)
  }

  #heard(peer: number, line: Line): void {
    this.#heardAt.set(peer, performance.now())
    const { connected, gone, reason } = line
    if (connected === true) {
      this.#connected.add(peer)
      this.#stopIfDone()
    }
    if (typeof gone !== "number" || typeof reason !== "string") return
    // Others than rank 0 speak for themselves alone.
    this.#lose(peer === 0 ? gone : peer, reason.slice(0, reasonCharactersMax))
  }

  #beat(): void {
    const now = performance.now()
    if (now - this.#beatAt > absentMillis) for (const peer of this.#peers.keys()) this.#heardAt.set(peer, now)
    this.#beatAt = now
    for (const [peer, lines] of this.#peers) {
      if (this.#connected.has(peer)) continue
      const silent = now - this.#heardAt.get(peer)!
      if (silent > silenceMillis) this.#lose(peer, `has sent nothing for ${(silent / 1000).toFixed(1)} s`)
      lines.say({ here: true })
    }
  }

  #lose(peer: number, why: string): void {
    if (this.#over || this.#gone !== undefined || this.#connected.has(peer)) return
    // Of this process, where it is connected, its own connections tell.
    if (this.#rank !== 0 && this.#connected.has(this.#rank)) return
    this.#gone = new Gone({ rank: peer, reason: why.startsWith("rank ") ? why : `rank ${peer} ${why}` })
    if (this.#rank === 0)
      for (const [other, lines] of this.#peers)
        if (other !== peer && !this.#connected.has(other))
          lines.say({ gone: peer, reason: this.#gone.reason })
    this.#onGone?.(this.#gone)
  }

  #stopIfDone(): void {
    const awaited = this.#rank === 0 ? [0, ...this.#peers.keys()] : [this.#rank]
    if (awaited.every((rank) => this.#connected.has(rank))) clearInterval(this.#timer)
  }
}
