// What every importer answers with.
import type { Profile } from "../core/profile.ts"

export interface ImportReport {
  readonly profile: Profile
  /** Device time per step that belongs to no layer, by what it was, largest first. `share` is of the busy time (0..1). */
  readonly unattributed: ReadonlyArray<{
    readonly name: string
    readonly seconds: number
    readonly share: number
  }>
  /** What the user should know of how the input was read, one sentence each. */
  readonly warnings: ReadonlyArray<string>
}
