// Caches of single references written straight from their papers' pseudo-code, on plain arrays (newest first unless said
// otherwise): independent of the policies they are held against. Each returns the number of misses.

const without = (list: Array<number>, id: number): boolean => {
  const at = list.indexOf(id)
  if (at < 0) return false
  list.splice(at, 1)
  return true
}

export const naiveLru = (references: ReadonlyArray<number>, slots: number): number => {
  const list: Array<number> = []
  let misses = 0
  for (const id of references) {
    if (!without(list, id)) {
      misses++
      if (list.length === slots) list.pop()
    }
    list.unshift(id)
  }
  return misses
}

/** Counts of all time; the least recently used among the least counted. */
export const naiveLfu = (references: ReadonlyArray<number>, slots: number): number => {
  const list: Array<number> = []
  const counts = new Map<number, number>()
  let misses = 0
  for (const id of references) {
    if (!without(list, id)) {
      misses++
      if (list.length === slots) {
        const fewest = Math.min(...list.map((other) => counts.get(other)!))
        without(
          list,
          list.findLast((other) => counts.get(other) === fewest)!
        )
      }
    }
    counts.set(id, (counts.get(id) ?? 0) + 1)
    list.unshift(id)
  }
  return misses
}

/** Figure 4 of Megiddo and Modha (2003), case by case. */
export const naiveArc = (references: ReadonlyArray<number>, c: number): number => {
  const [t1, t2, b1, b2] = [[], [], [], []] as [Array<number>, Array<number>, Array<number>, Array<number>]
  let p = 0
  let misses = 0
  const replace = (id: number) => {
    if (t1.length > 0 && (t1.length > p || (b2.includes(id) && t1.length === p))) b1.unshift(t1.pop()!)
    else b2.unshift(t2.pop()!)
  }
  for (const id of references) {
    if (without(t1, id) || without(t2, id)) {
      t2.unshift(id)
      continue
    }
    misses++
    if (b1.includes(id)) {
      p = Math.min(c, p + Math.max(1, b2.length / b1.length))
      replace(id)
      without(b1, id)
      t2.unshift(id)
    } else if (b2.includes(id)) {
      p = Math.max(0, p - Math.max(1, b1.length / b2.length))
      replace(id)
      without(b2, id)
      t2.unshift(id)
    } else {
      const all = t1.length + t2.length + b1.length + b2.length
      if (t1.length + b1.length === c) {
        if (t1.length < c) {
          b1.pop()
          replace(id)
        } else t1.pop()
      } else if (all >= c) {
        if (all === 2 * c) b2.pop()
        replace(id)
      }
      t1.unshift(id)
    }
  }
  return misses
}

/** Algorithm 1 of Yang et al. (2023): small queue of a tenth, promotion of what was used more than once, ghosts. */
export const naiveS3Fifo = (references: ReadonlyArray<number>, slots: number): number => {
  const smallSlots = Math.max(1, Math.floor(slots / 10))
  const mainSlots = slots - smallSlots
  const [small, main, ghosts] = [[], [], []] as [Array<number>, Array<number>, Array<number>]
  const uses = new Map<number, number>()
  let misses = 0
  const evictMain = () => {
    for (;;) {
      const id = main.pop()!
      const count = uses.get(id)!
      if (count === 0) return
      uses.set(id, count - 1)
      main.unshift(id)
    }
  }
  const evictSmall = (): boolean => {
    while (small.length > 0) {
      const id = small.pop()!
      if (uses.get(id)! > 1) {
        uses.set(id, 0)
        main.unshift(id)
        if (main.length > mainSlots) {
          evictMain()
          return true
        }
      } else {
        ghosts.unshift(id)
        if (ghosts.length > mainSlots) ghosts.pop()
        return true
      }
    }
    return false
  }
  for (const id of references) {
    if (small.includes(id) || main.includes(id)) {
      uses.set(id, Math.min(3, uses.get(id)! + 1))
      continue
    }
    misses++
    if (small.length + main.length === slots) {
      if (small.length >= smallSlots || main.length === 0) {
        if (!evictSmall()) evictMain()
      } else evictMain()
    }
    uses.set(id, 0)
    if (without(ghosts, id)) main.unshift(id)
    else small.unshift(id)
  }
  return misses
}

/** Algorithm 1 of Zhang et al. (2024); the hand is an object, -1 for none: then it starts at the tail. */
export const naiveSieve = (references: ReadonlyArray<number>, slots: number): number => {
  const list: Array<number> = []
  const visited = new Map<number, boolean>()
  let hand = -1
  let misses = 0
  for (const id of references) {
    if (list.includes(id)) {
      visited.set(id, true)
      continue
    }
    misses++
    if (list.length === slots) {
      let object = hand === -1 ? list.at(-1)! : hand
      const previous = (of: number) => list[list.indexOf(of) - 1] ?? -1
      while (visited.get(object) === true) {
        visited.set(object, false)
        object = previous(object)
        if (object === -1) object = list.at(-1)!
      }
      hand = previous(object)
      without(list, object)
    }
    list.unshift(id)
    visited.set(id, false)
  }
  return misses
}
