// What of a run was launched as CUDA graphs, in words.
import type { Replays } from "../../exec/native-addon.ts"

/** "off: why", or "on: graphs made, their launches, and how many of the run's ops these launched". */
export const replayed = ({ state, captured, launched, ops }: Replays): string =>
  state === "on" ? `on: ${captured} made, ${launched} launches of ${ops} ops` : state
