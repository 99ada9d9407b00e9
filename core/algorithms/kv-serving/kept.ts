// How many tokens of a prompt stay, for settings that say so in tokens or as a share.

/** One of the two, or neither. */
export interface SizeSettings {
  readonly keep?: number | undefined
  readonly budget?: number | undefined
}

/** Slack for products such as 0.7 * 10, which fall just short of a whole number. */
export const slack = 1e-9

export const defaultKeep = 0.1

export const keptOf = ({ keep = defaultKeep, budget }: SizeSettings, time: number): number =>
  Math.min(time, budget ?? Math.max(1, Math.floor(keep * time + slack)))
