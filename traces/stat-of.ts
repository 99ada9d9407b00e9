// What is at a path, asked by who has another way to go on where that cannot be told.
import { statSync, type Stats } from "node:fs"

/**
 * Undefined where nothing is there, and where the system does not tell (a folder that may not be searched, a name that is too long):
 * whoever reads or writes there says why not.
 */
export const statOf = (path: string): Stats | undefined => {
  try {
    return statSync(path, { throwIfNoEntry: false })
  } catch {
    return undefined
  }
}
