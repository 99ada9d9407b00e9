// Lists of integers, one for each slot of an engine, in the order in which they were added: what follows an activity, and who watches
// it. Most have one element, which lies with the slot; the others are chained, and their entries used again when a list is done with.
import { grownInt32 } from "./grown.ts"

const NONE = -1
/** In `firsts`: no element. None of them may be this. */
export const EMPTY = -(2 ** 31)

export class EdgeLists {
  /** First element of each slot's list. Whoever takes a slot into use sets it to EMPTY. */
  firsts = new Int32Array(64)
  /** Of a list that is not empty: entry of its second element, -1 where it has one. Read-only to others. */
  rests = new Int32Array(64)
  /** By entry: an element, and the entry after it, -1 at the end. Read-only to others. */
  targets = new Int32Array(64)
  nexts = new Int32Array(64)
  /** Of a list of several: its last entry. */
  #tails = new Int32Array(64)
  #count = 0
  #free = NONE

  /** For slots up to `length` - 1. */
  grow(length: number): void {
    this.firsts = grownInt32(this.firsts, length)
    this.rests = grownInt32(this.rests, length)
    this.#tails = grownInt32(this.#tails, length)
  }

  append(slot: number, target: number): void {
    if (this.firsts[slot] === EMPTY) {
      this.firsts[slot] = target
      this.rests[slot] = NONE
      return
    }
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
    if (this.rests[slot] === NONE) this.rests[slot] = e
    else this.nexts[this.#tails[slot]!] = e
    this.#tails[slot] = e
  }

  /** All elements of a slot's list. */
  *of(slot: number): Generator<number> {
    if (this.firsts[slot] === EMPTY) return
    yield this.firsts[slot]!
    for (let e = this.rests[slot]!; e !== NONE; e = this.nexts[e]!) yield this.targets[e]!
  }

  /** Gives an entry back; the entry that came after it. */
  release(e: number): number {
    const next = this.nexts[e]!
    this.nexts[e] = this.#free
    this.#free = e
    return next
  }
}
