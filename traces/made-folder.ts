// Folders to write to: made with those above them, or why not, in words. Knows nothing of what is to be written there.
import { mkdirSync, statSync } from "node:fs"
import { dirname, resolve } from "node:path"
import { plainly } from "./system-words.ts"
import { hasCode } from "./trace-error.ts"

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true

/**
 * Makes a folder and those above it; the first that was made, or undefined. One by one: where a system answers ENOENT to everything,
 * as /proc does, Node's own `recursive` tries for ever. Throws what the system does.
 */
export const makeFolder = (folder: string): string | undefined => {
  const path = resolve(folder)
  if (isFolder(path)) return undefined
  const above = dirname(path)
  const first = above === path ? undefined : makeFolder(above)
  try {
    mkdirSync(path)
  } catch (cause) {
    // Another process may have made it meanwhile.
    if (!isFolder(path)) throw cause
  }
  return first ?? path
}

/** The folder itself where it is there, or the nearest above it that is. */
const nearest = (path: string): string => {
  const above = dirname(path)
  return above === path || statSync(path, { throwIfNoEntry: false }) !== undefined ? path : nearest(above)
}

/**
 * What keeps a folder from being made, or written to: the system's answer, and of what it is one. It may well say ENOENT of a
 * folder that nobody can make, which by itself sends people to look for one that is there.
 */
export const whyNotWritable = (folder: string, cause: unknown): string => {
  let found: string
  try {
    found = nearest(resolve(folder))
    if (!isFolder(found)) return `${found} is a file`
  } catch (unseen) {
    return plainly(unseen)
  }
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : undefined
  if (hasCode(cause, "EROFS")) return `${found} is on a file system that is mounted read-only (EROFS)`
  if (hasCode(cause, "EACCES") || hasCode(cause, "EPERM"))
    return `this user may not write to ${found} (${code})`
  if (hasCode(cause, "ENOSPC") || hasCode(cause, "EDQUOT")) return `no space is left in ${found} (${code})`
  if (hasCode(cause, "ENOENT") && found !== resolve(folder))
    return `${found} takes no folders: it is read-only, or not kept on a disk (${code})`
  return plainly(cause)
}
