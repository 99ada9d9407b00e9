// One JSON value a line over a socket: how processes speak that have only just met. Garbage ends the connection.

/** What is asked of a socket, in words of our own: declarations that people get name none of Node's types. */
interface Connection {
  readonly destroyed: boolean
  setNoDelay(on: boolean): unknown
  setEncoding(encoding: "utf8"): unknown
  on(event: "data", heard: (text: string) => void): unknown
  on(event: "error" | "close", ended: () => void): unknown
  write(text: string): unknown
  unref(): unknown
  end(): unknown
  destroy(): unknown
}

export type Line = Readonly<Record<string, unknown>>

const lineBytesMax = 1 << 20
/** Lines that nobody has asked for yet. */
const unreadMax = 8

export class Lines {
  readonly socket: Connection
  #text = ""
  #wanted: ((line: Line) => void) | undefined
  #each = false
  readonly #read: Array<Line> = []

  constructor(socket: Connection) {
    this.socket = socket
    socket.setNoDelay(true)
    socket.setEncoding("utf8")
    socket.on("data", (text: string) => this.#heard(text))
    socket.on("error", () => socket.destroy())
  }

  say(line: Line): void {
    if (!this.socket.destroyed) this.socket.write(`${JSON.stringify(line)}\n`)
  }

  /** Says it, or nothing more, and hangs up; whether the other end does keeps no process alive. */
  part(line?: Line): void {
    if (line !== undefined) this.say(line)
    this.socket.unref()
    this.socket.end()
  }

  /** Calls `then` with the next line. */
  next(then: (line: Line) => void): void {
    const line = this.#read.shift()
    if (line === undefined) this.#wanted = then
    else then(line)
  }

  /** Calls `then` with every line from now on. */
  each(then: (line: Line) => void): void {
    this.#each = true
    this.#wanted = then
    for (const line of this.#read.splice(0)) then(line)
  }

  #heard(text: string): void {
    this.#text += text
    for (;;) {
      const end = this.#text.indexOf("\n")
      if (end < 0) break
      const line = parsed(this.#text.slice(0, end))
      this.#text = this.#text.slice(end + 1)
      if (line === undefined) {
        this.socket.destroy()
        return
      }
      const wanted = this.#wanted
      if (!this.#each) this.#wanted = undefined
      if (wanted === undefined) this.#read.push(line)
      else wanted(line)
    }
    if (this.#text.length > lineBytesMax || this.#read.length > unreadMax) this.socket.destroy()
  }
}

/** Undefined where it is no JSON, or no record. */
export const parsed = (line: string): Line | undefined => {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === "object" && value !== null ? (value as Line) : undefined
  } catch {
    return undefined
  }
}
