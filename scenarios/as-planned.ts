// Settings of an algorithm with which a scenario is planned as without them: a warning each. Knows no family.
import { formatBytes } from "../core/units.ts"

type Settings = Readonly<Record<string, unknown>>

interface Asked {
  /** What `own` is called in a scenario. */
  readonly section?: string
  /** What the scenario says of its algorithm, and what it would be that says nothing. */
  readonly own: Settings
  readonly usual: Settings
  /** Settings that act through what is planned, and nothing else. */
  readonly fields: ReadonlyArray<string>
  /** What is the same with other settings, as a phrase. */
  readonly what?: string
  /** What is warned of already. */
  readonly told: ReadonlyArray<string>
  /** Whether what is sent when is planned alike with other settings. */
  readonly isAlike: (settings: Settings) => boolean
  /** Of a setting that plans otherwise. */
  readonly otherwise?: (field: string) => ReadonlyArray<string>
}

const shown = (field: string, value: unknown): string =>
  typeof value === "number" && field.endsWith("Bytes") ? formatBytes(value) : String(value)

export const asPlannedWarnings = ({
  section = "algorithm",
  own,
  usual,
  fields,
  what = "the plan is",
  told,
  isAlike,
  otherwise = () => []
}: Asked): ReadonlyArray<string> =>
  fields.flatMap((field) => {
    const none = `${section}.${field} has no effect:`
    if (own[field] === undefined || own[field] === usual[field]) return []
    if (told.some((warning) => warning.startsWith(none))) return []
    return isAlike({ ...own, [field]: usual[field] })
      ? [`${none} ${what} as with ${shown(field, usual[field])}, here`]
      : otherwise(field)
  })
