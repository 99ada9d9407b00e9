// S3-FIFO (Yang et al., SOSP 2023), with residents that may not leave passed over.
import type { ExpertId } from "../demand.ts"
import type { MayLeave, ReplacementPolicy } from "./policy.ts"

const mostUses = 3

/**
 * New experts enter a small queue of a tenth of the slots; those used more than once there move on to the main queue, the
 * others leave and are remembered in a ghost queue as long as the main one; who is remembered goes to the main queue at
 * once. The main queue gives an expert with uses another round for each of them.
 */
export class S3Fifo implements ReplacementPolicy {
  readonly #small = new Set<ExpertId>()
  readonly #main = new Set<ExpertId>()
  readonly #ghosts = new Set<ExpertId>()
  readonly #uses = new Map<ExpertId, number>()
  readonly #smallSlots: number
  readonly #mainSlots: number

  constructor(slots: number) {
    this.#smallSlots = Math.max(1, Math.floor(slots / 10))
    this.#mainSlots = slots - this.#smallSlots
  }

  hit(id: ExpertId): void {
    this.#uses.set(id, Math.min(mostUses, this.#uses.get(id)! + 1))
  }

  replace(_: ExpertId, mayLeave: MayLeave): ExpertId | "wait" {
    const preferSmall = this.#small.size >= this.#smallSlots || this.#main.size === 0
    const victim = preferSmall ? this.#fromSmall(mayLeave) : this.#fromMain(mayLeave)
    if (victim !== "wait") return victim
    return preferSmall ? this.#fromMain(mayLeave) : this.#fromSmall(mayLeave)
  }

  loaded(id: ExpertId): void {
    this.#uses.set(id, 0)
    if (this.#ghosts.delete(id)) this.#main.add(id)
    else this.#small.add(id)
  }

  evicted(id: ExpertId): void {
    this.#uses.delete(id)
    if (!this.#small.delete(id)) {
      this.#main.delete(id)
      return
    }
    this.#ghosts.add(id)
    for (const ghost of this.#ghosts) {
      if (this.#ghosts.size <= this.#mainSlots) break
      this.#ghosts.delete(ghost)
    }
  }

  #fromSmall(mayLeave: MayLeave): ExpertId | "wait" {
    for (const id of this.#small) {
      if (this.#uses.get(id)! > 1) {
        this.#small.delete(id)
        this.#main.add(id)
        this.#uses.set(id, 0)
        if (this.#main.size > this.#mainSlots) {
          const victim = this.#fromMain(mayLeave)
          if (victim !== "wait") return victim
        }
      } else if (mayLeave(id)) return id
    }
    return "wait"
  }

  #fromMain(mayLeave: MayLeave): ExpertId | "wait" {
    // A Set goes on to what is put at its end meanwhile, so this walks round until somebody without uses comes by.
    for (const id of this.#main) {
      if (!mayLeave(id)) continue
      const uses = this.#uses.get(id)!
      if (uses === 0) return id
      this.#uses.set(id, uses - 1)
      this.#main.delete(id)
      this.#main.add(id)
    }
    return "wait"
  }
}
