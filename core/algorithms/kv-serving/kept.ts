// How many tokens of a prompt stay, for settings that say so in tokens or as a share.
import { shareOf } from "../../kernels/kv-cache.ts"

/** One of the two, or neither. */
export interface SizeSettings {
  readonly keep?: number | undefined
  readonly budget?: number | undefined
}

export const defaultKeep = 0.1

export const keptOf = ({ keep = defaultKeep, budget }: SizeSettings, time: number): number =>
  Math.min(time, budget ?? shareOf(keep, time))
