// What the system answers, in words: Node begins with a code that few know ("ENOSPC: no space left on device, write '/a'"), and
// messages go on from "file is". Knows no message.
import { messageOf } from "../core/message-of.ts"

/** Of a file, by the system's code: what stands after "file is", and before "is not accepted". */
const fileIs: Readonly<Record<string, string>> = {
  EDQUOT: "beyond the disk space that this user may take",
  EFBIG: "longer than a file may become here",
  EIO: "on a device that fails",
  ELOOP: "a link that leads back to itself",
  EMFILE: "one more than this process may have open",
  ENAMETOOLONG: "a name that is too long",
  ENFILE: "one more than the system may have open",
  ENOSPC: "on a disk with no space left",
  ENOTDIR: "inside of a file, which is no folder",
  EPIPE: "a pipe whose reader has gone",
  EROFS: "on a file system that is mounted read-only"
}

/** "no space left on device (ENOSPC)": what the system answered, its code last and without the path; of others what they say. */
export const plainly = (cause: unknown): string => {
  const message = messageOf(cause)
  const [, code, words] = /^(E[A-Z0-9]+): ([^\n]*?)(?:, [a-z]+(?: '.*)?)?$/su.exec(message) ?? []
  return code === undefined ? message : `${words} (${code})`
}

/** What the system's answer makes of a file: "on a disk with no space left (ENOSPC)"; of others what they say. */
export const fileOf = (cause: unknown): string => {
  const [, code] = /^(E[A-Z0-9]+): /u.exec(messageOf(cause)) ?? []
  if (code === undefined) return messageOf(cause)
  const known = fileIs[code]
  return known === undefined ? `refused by the system: ${plainly(cause)}` : `${known} (${code})`
}
