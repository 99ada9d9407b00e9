// Links that the max-min solver has still to look at, lowest level first; of equal levels the link with the lower number.
// Knows integers and their levels; nothing of what either means.
import { grownInt32, grownUint8 } from "./grown.ts"

/** Binary heap of links by (level, link), each in it once at most. The levels are the caller's: none changes while its link waits. */
export class LevelQueue {
  size = 0
  /** 1 for links that wait. Read-only to others. */
  waiting = new Uint8Array(16)
  #heap = new Int32Array(16)

  /** For links up to `length` - 1. */
  grow(length: number): void {
    this.waiting = grownUint8(this.waiting, length)
    this.#heap = grownInt32(this.#heap, length)
  }

  /** The link must not wait already. */
  push(link: number, levels: Float64Array): void {
    this.waiting[link] = 1
    const heap = this.#heap
    const level = levels[link]!
    let i = this.size++
    while (i > 0) {
      const parent = (i - 1) >> 1
      const other = heap[parent]!
      const otherLevel = levels[other]!
      if (otherLevel < level || (otherLevel === level && other < link)) break
      heap[i] = other
      i = parent
    }
    heap[i] = link
  }

  /** The queue must not be empty. */
  pop(levels: Float64Array): number {
    const heap = this.#heap
    const first = heap[0]!
    this.waiting[first] = 0
    const size = --this.size
    const link = heap[size]!
    const level = levels[link]!
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= size) break
      let best = heap[child]!
      let bestLevel = levels[best]!
      if (child + 1 < size) {
        const right = heap[child + 1]!
        const rightLevel = levels[right]!
        if (rightLevel < bestLevel || (rightLevel === bestLevel && right < best)) {
          child++
          best = right
          bestLevel = rightLevel
        }
      }
      if (level < bestLevel || (level === bestLevel && link < best)) break
      heap[i] = best
      i = child
    }
    heap[i] = link
    return first
  }
}
