// What handing a cache over to another node takes, layer by layer, and from which bandwidth on choosing what to keep costs
// more time than sending less saves. Pure: times of one request alone, as a run has them.

import { heldBack } from "../../wire/windows.ts"
import type { LinkSpec } from "../../world.ts"

/** One request's prefill, and what of it must be sent, in order. */
export interface Handoff {
  /** For each message: when it can be sent, its bytes, and what the other side does with it before the next. */
  readonly messages: ReadonlyArray<{
    /** It is there, and both sides have come to it: not before, on any link. */
    readonly readySeconds: number
    readonly sizeBytes: number
    /** The other side's host has come to it: not before. Default: it is there sooner. */
    readonly placeReadySeconds?: number
    readonly placeSeconds: number
  }>
}

/** When the last message has arrived and been put in its place. */
export const handoffSeconds = (
  { messages }: Handoff,
  { bytesPerSecond, latencySeconds, windowBytes = Infinity }: LinkSpec
): number => {
  let seconds = 0
  for (const { readySeconds, sizeBytes, placeReadySeconds = 0, placeSeconds } of messages) {
    const held = heldBack(sizeBytes, bytesPerSecond, windowBytes, 2 * latencySeconds)
    const sent = Math.max(seconds, readySeconds) + latencySeconds + sizeBytes / bytesPerSecond + held
    seconds = Math.max(sent, placeReadySeconds) + placeSeconds
  }
  return seconds
}

/** Bandwidths that are tried, bytes per second: from below any modem to beyond any link, 80 Tbit/s. */
const slowest = 1
export const fastestBytesPerSecond = 1e13

/**
 * The bandwidth of a link that is such, bytes per second, below which `compressed` is handed over sooner than `full` and above which it is not.
 * `fastestBytesPerSecond` where it is sooner at any bandwidth, 0 where at none.
 */
export const breakEvenBandwidth = (
  full: Handoff,
  compressed: Handoff,
  other: Omit<LinkSpec, "bytesPerSecond">
): number => {
  const sooner = (bytesPerSecond: number): boolean => {
    const link = { ...other, bytesPerSecond }
    return handoffSeconds(compressed, link) < handoffSeconds(full, link)
  }
  if (!sooner(slowest)) return 0
  if (sooner(fastestBytesPerSecond)) return fastestBytesPerSecond
  let [below, above] = [slowest, fastestBytesPerSecond]
  // Halving the ratio: 60 times is more than a number's digits tell apart.
  for (let round = 0; round < 60; round++) {
    const middle = Math.sqrt(below * above)
    if (sooner(middle)) below = middle
    else above = middle
  }
  return below
}
