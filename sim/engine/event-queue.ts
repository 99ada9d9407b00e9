// A priority queue of events: a 4-ary min-heap in typed arrays, ordered by (time, sequence), so that simultaneous
// events leave in the order of their sequence numbers whatever the history of the heap.
// Knows nothing of what an event means: an event is an integer.

const INITIAL_CAPACITY = 64

/** Min-heap of (timeSeconds, sequence, event). Amortised O(log4 n) push and pop; allocates only when it doubles. */
export class EventQueue {
  size = 0
  #times = new Float64Array(INITIAL_CAPACITY)
  #sequences = new Float64Array(INITIAL_CAPACITY)
  #events = new Int32Array(INITIAL_CAPACITY)
  /** The root has been taken and not yet closed: the next push goes straight to the root (pop + push = one sift). */
  #hole = false

  /** Time of the earliest event in seconds; Infinity when the queue is empty. */
  nextSeconds(): number {
    if (this.#hole) this.#close()
    return this.size === 0 ? Infinity : this.#times[0]!
  }

  /** The earliest event, once `nextSeconds` was asked for; meaningless when the queue is empty. */
  get first(): number {
    return this.#events[0]!
  }

  /** Adds an event. Sequence numbers must be distinct among simultaneous events for the order to be total. */
  push(timeSeconds: number, sequence: number, event: number): void {
    if (this.#hole) {
      this.#hole = false
      this.#siftDown(timeSeconds, sequence, event)
      return
    }
    if (this.size === this.#times.length) this.#grow()
    this.#siftUp(this.size++, timeSeconds, sequence, event)
  }

  /** Removes the earliest event and returns it. The queue must not be empty. */
  pop(): number {
    if (this.#hole) this.#close()
    this.#hole = true
    return this.#events[0]!
  }

  /** Moves a queued event to another time: O(n), for rare changes of the world. False when it is not queued. */
  move(event: number, timeSeconds: number): boolean {
    if (this.#hole) this.#close()
    for (let i = 0; i < this.size; i++) {
      if (this.#events[i] !== event) continue
      const sequence = this.#sequences[i]!
      const last = --this.size
      if (i < last) {
        // Fill the gap with the last entry: up if it is earlier than its new parent, otherwise down from here.
        const t = this.#times[last]!
        const s = this.#sequences[last]!
        const e = this.#events[last]!
        this.#siftUp(i, t, s, e)
        if (this.#events[i] === e) this.#siftDown(t, s, e, i)
      }
      this.#siftUp(this.size++, timeSeconds, sequence, event)
      return true
    }
    return false
  }

  /** All times become less by so many seconds, at least 0: O(n). Keeps the order: what was earlier is not later. */
  advance(seconds: number): void {
    if (this.#hole) this.#close()
    const times = this.#times
    for (let i = 0; i < this.size; i++) times[i]! -= seconds
  }

  /** Calls `visit` with every event in the queue, in no special order. */
  forEach(visit: (event: number) => void): void {
    if (this.#hole) this.#close()
    for (let i = 0; i < this.size; i++) visit(this.#events[i]!)
  }

  #close(): void {
    this.#hole = false
    const last = --this.size
    if (last > 0) this.#siftDown(this.#times[last]!, this.#sequences[last]!, this.#events[last]!)
  }

  #siftUp(start: number, time: number, sequence: number, event: number): void {
    const times = this.#times
    const sequences = this.#sequences
    const events = this.#events
    let i = start
    while (i > 0) {
      const parent = (i - 1) >> 2
      const pt = times[parent]!
      if (pt < time || (pt === time && sequences[parent]! <= sequence)) break
      times[i] = pt
      sequences[i] = sequences[parent]!
      events[i] = events[parent]!
      i = parent
    }
    times[i] = time
    sequences[i] = sequence
    events[i] = event
  }

  #siftDown(time: number, sequence: number, event: number, start = 0): void {
    const times = this.#times
    const sequences = this.#sequences
    const events = this.#events
    const size = this.size
    let i = start
    for (;;) {
      let child = 4 * i + 1
      if (child >= size) break
      let best = child
      let bestTime = times[child]!
      const end = child + 4 < size ? child + 4 : size
      for (child++; child < end; child++) {
        const t = times[child]!
        if (t < bestTime || (t === bestTime && sequences[child]! < sequences[best]!)) {
          best = child
          bestTime = t
        }
      }
      if (time < bestTime || (time === bestTime && sequence <= sequences[best]!)) break
      times[i] = bestTime
      sequences[i] = sequences[best]!
      events[i] = events[best]!
      i = best
    }
    times[i] = time
    sequences[i] = sequence
    events[i] = event
  }

  #grow(): void {
    const length = this.#times.length * 2
    const times = new Float64Array(length)
    times.set(this.#times)
    this.#times = times
    const sequences = new Float64Array(length)
    sequences.set(this.#sequences)
    this.#sequences = sequences
    const events = new Int32Array(length)
    events.set(this.#events)
    this.#events = events
  }
}
