// Lists of integers, one for each slot of an engine, in the order in which they were added: what follows an activity, and who watches
// it. Entries of a list that is done with are used again.
import { grownInt32 } from "./grown.ts"

const NONE = -1

export class EdgeLists {
  /** First entry of each slot's list; -1 where it is empty. */
  heads = new Int32Array(64)
  /** By entry: what was added, and the entry after it, -1 at the end. Read-only to others. */
  targets = new Int32Array(64)
  nexts = new Int32Array(64)
  #tails = new Int32Array(64)
  #count = 0
  #free = NONE

  /** For slots up to `length` - 1. */
  grow(length: number): void {
    this.heads = grownInt32(this.heads, length)
    this.#tails = grownInt32(this.#tails, length)
  }

  append(slot: number, target: number): void {
    let e = this.#free
    if (e !== NONE) this.#free = this.nexts[e]!
    else {
      if (this.#count === this.targets.length) {
        this.targets = grownInt32(this.targets, 2 * this.#count)
        this.nexts = grownInt32(this.nexts, 2 * this.#count)
      }
      e = this.#count++
    }
    this.targets[e] = target
    this.nexts[e] = NONE
    if (this.heads[slot] === NONE) this.heads[slot] = e
    else this.nexts[this.#tails[slot]!] = e
    this.#tails[slot] = e
  }

  /** Gives an entry back; the entry that came after it. */
  release(e: number): number {
    const next = this.nexts[e]!
    this.nexts[e] = this.#free
    this.#free = e
    return next
  }
}
