// Whole layer calls served by caches written down from their papers and pages, on plain arrays: who is found, who leaves and what is
// fetched ahead. Independent of the policies, pools and prefetchers that it is held against; counts what they count.
import type { Demand, ExpertId } from "../../core/algorithms/expert-offload/demand.ts"

type May = (id: ExpertId) => boolean

/** Who lies in the slots of one pool, and who leaves; `load` numbers loads. */
export interface NaiveCache {
  hit(id: ExpertId): void
  /** Undefined where none may leave. */
  victim(incoming: ExpertId, may: May, ahead: boolean): ExpertId | undefined
  insert(id: ExpertId, ahead: boolean): void
  remove(id: ExpertId): void
}

const drop = (list: Array<ExpertId>, id: ExpertId): boolean => {
  const at = list.indexOf(id)
  if (at >= 0) list.splice(at, 1)
  return at >= 0
}

/** Least recent first; `pick` chooses among those that may leave. */
const byRecency = (
  pick: (mayLeave: ReadonlyArray<ExpertId>, ahead: boolean) => ExpertId | undefined
): NaiveCache => {
  const order: Array<ExpertId> = []
  return {
    hit: (id) => {
      drop(order, id)
      order.push(id)
    },
    victim: (_, may, ahead) => pick(order.filter(may), ahead),
    insert: (id) => void order.push(id),
    remove: (id) => void drop(order, id)
  }
}

export const lru = (): NaiveCache => byRecency(([first]) => first)

/** On demand the least recently used, ahead of use the most recently used (ExpertFlow's released code). */
const lruOrNewest = (): NaiveCache => byRecency((ids, ahead) => (ahead ? ids.at(-1) : ids[0]))

/** The largest value leaves; of equals the least recently used. */
const largest = (value: (id: ExpertId) => number): NaiveCache =>
  byRecency((ids) => ids.find((id) => ids.every((other) => value(other) <= value(id))))

/** Counts of all time; of equals the least recently used. */
export const lfu = (): NaiveCache => {
  const uses = new Map<ExpertId, number>()
  const count = (id: ExpertId) => uses.set(id, (uses.get(id) ?? 0) + 1)
  const fewest = largest((id) => -(uses.get(id) ?? 0))
  return {
    ...fewest,
    hit: (id) => {
      count(id)
      fewest.hit(id)
    },
    insert: (id, ahead) => {
      if (!ahead) count(id)
      fewest.insert(id, ahead)
    }
  }
}

/** SIEVE's queue, newest first; the hand is an object. */
export const sieve = (): NaiveCache => {
  const queue: Array<ExpertId> = []
  const visited = new Set<ExpertId>()
  let hand: ExpertId | undefined
  const before = (id: ExpertId): ExpertId | undefined => queue[queue.indexOf(id) - 1]
  return {
    hit: (id) => void visited.add(id),
    victim: (_, may) => {
      if (!queue.some(may)) return undefined
      let object = hand ?? queue.at(-1)!
      while (!may(object) || visited.has(object)) {
        if (may(object)) visited.delete(object)
        object = before(object) ?? queue.at(-1)!
      }
      return (hand = object)
    },
    insert: (id) => void queue.unshift(id),
    remove: (id) => {
      if (hand === id) hand = before(id)
      drop(queue, id)
      visited.delete(id)
    }
  }
}

/** What strategies fetch ahead after a call: told who is resident, and how to ask for one. */
type Ahead = (
  call: { readonly step: number; readonly layer: number; readonly needed: ReadonlyArray<ExpertId> },
  resident: May,
  fetch: (id: ExpertId, keep: May) => boolean
) => void

interface NaiveStrategy {
  /** A cache for each pool. */
  readonly caches: ReadonlyArray<NaiveCache>
  readonly slots: number
  /** A step begins. */
  readonly begin?: (step: number, resident: May, fetch: (id: ExpertId, keep: May) => boolean) => void
  /** A call's needs are known. */
  readonly called?: (layer: number) => void
  readonly after?: Ahead
}

/**
 * Residents that a call needs are found first and computed first, the oldest copy first; the others are loaded as early as slots are free
 * of what the call has still to compute. What was fetched for a layer stays until that layer's call.
 */
export const serveNaively = ({ shape, calls }: Demand, strategy: NaiveStrategy) => {
  const { caches, slots } = strategy
  const poolOf = (id: ExpertId) => (caches.length === 1 ? 0 : Math.floor(id / shape.experts))
  const loadedAt = new Map<ExpertId, number>()
  const held = caches.map(() => 0)
  const [pending, awaited, unused] = [new Set<ExpertId>(), new Set<ExpertId>(), new Set<ExpertId>()]
  const count = { needs: 0, hits: 0, loads: 0, prefetches: 0, uselessPrefetches: 0 }
  const resident: May = (id) => loadedAt.has(id)
  const bring = (id: ExpertId, may: May, ahead: boolean): boolean => {
    const pool = poolOf(id)
    if (held[pool] === slots) {
      const leaves = caches[pool]!.victim(id, may, ahead)
      if (leaves === undefined) return false
      caches[pool]!.remove(leaves)
      loadedAt.delete(leaves)
      awaited.delete(leaves)
      if (unused.delete(leaves)) count.uselessPrefetches++
    } else held[pool]!++
    loadedAt.set(id, count.loads++)
    caches[pool]!.insert(id, ahead)
    if (ahead) {
      count.prefetches++
      awaited.add(id)
      unused.add(id)
    }
    return true
  }
  const fetch = (id: ExpertId, keep: May): boolean =>
    bring(id, (other) => !pending.has(other) && !awaited.has(other) && !keep(other), true)
  let step: number | undefined
  for (const call of calls) {
    if (call.step !== step) strategy.begin?.(call.step, resident, fetch)
    step = call.step
    strategy.called?.(call.layer)
    count.needs += call.needed.length
    for (const id of call.needed) pending.add(id)
    const found = call.needed.filter(resident)
    const missing = call.needed.filter((id) => !resident(id))
    count.hits += found.length
    for (const id of found) {
      caches[poolOf(id)]!.hit(id)
      unused.delete(id)
    }
    for (const id of awaited) if (Math.floor(id / shape.experts) === call.layer) awaited.delete(id)
    const compute = found.toSorted((a, b) => loadedAt.get(a)! - loadedAt.get(b)!)
    do {
      while (missing.length > 0 && bring(missing[0]!, (id) => !pending.has(id), false))
        compute.push(missing.shift()!)
      pending.delete(compute.shift()!)
    } while (compute.length + missing.length > 0)
    strategy.after?.(call, resident, fetch)
  }
  count.uselessPrefetches += unused.size
  return count
}

/** LRU, and what each of the next `reach` calls needed when it last came, the nearest first. */
export const previousToken = (
  { layers }: Demand["shape"],
  reach: number,
  window: number
): Pick<NaiveStrategy, "after"> => {
  const last = new Map<number, ReadonlyArray<ExpertId>>()
  return {
    after: ({ layer, needed }, resident, fetch) => {
      last.set(layer, needed)
      const nearer = new Set<ExpertId>()
      let left = window
      for (let ahead = 1; ahead <= reach; ahead++) {
        const expected = last.get((layer + ahead) % layers) ?? []
        for (const id of expected) nearer.add(id)
        for (const id of expected)
          if (left > 0 && !resident(id) && fetch(id, (other) => nearer.has(other))) left--
      }
    }
  }
}

/**
 * ExpertFlow's whole steps: a cache across layers that expects what each layer needed last, or a quota of each layer that knows what is
 * needed, highest expert first.
 */
export const expertFlow = (
  { shape: { layers, experts }, calls }: Demand,
  slots: number,
  window: number,
  quota: boolean
): NaiveStrategy => {
  const last = new Map<number, ReadonlyArray<ExpertId>>()
  let [present, expected] = [-1, new Map<number, ReadonlyArray<ExpertId>>()]
  /** Calls until it may be used: one that is not expected comes in the next step. */
  const distance = (id: ExpertId): number => {
    const layer = Math.floor(id / experts)
    const wanted = layer > present && expected.get(layer)?.includes(id) === true
    return layer - present + (wanted ? 0 : layers)
  }
  const fill = (from: number, resident: May, fetch: (id: ExpertId, keep: May) => boolean): void => {
    let left = window
    for (let layer = from; layer < layers; layer++) {
      const ids = expected.get(layer) ?? []
      for (const id of quota ? ids.toReversed() : ids) {
        if (left === 0) return
        if (resident(id)) continue
        const own = distance(id)
        if (fetch(id, (other) => (quota ? ids.includes(other) : distance(other) <= own))) left--
        else if (!quota) return
      }
    }
  }
  return {
    caches: quota ? Array.from({ length: layers }, lruOrNewest) : [largest(distance)],
    slots,
    begin: (step, resident, fetch) => {
      present = -1
      const known = calls.filter((call) => call.step === step)
      expected = quota ? new Map(known.map(({ layer, needed }) => [layer, needed])) : new Map(last)
      fill(0, resident, fetch)
    },
    called: (layer) => void (present = layer),
    after: ({ layer, needed }, resident, fetch) => {
      last.set(layer, needed)
      fill(layer + 1, resident, fetch)
    }
  }
}
