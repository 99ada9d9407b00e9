// Events of which a file gives the begin and the end apart (ph B and E), made one again: on a thread they are nested, so an end is that of
// the last begin. torch.profiler writes none; tools that write traces in its manner do. Knows nothing of what events mean.
import { EventScanner, Field } from "./event-scanner.ts"

interface Begun {
  readonly index: number
  readonly at: number
  /** Its category is one that an import reads. */
  readonly isRead: boolean
  /** As they are written; "" where the event has none. */
  readonly fields: ReadonlyArray<string>
}

interface Problem {
  readonly field: string
  readonly value: string
  readonly accepted: string
}

interface Thread {
  readonly open: Array<Begun>
  latest: number
  /** Something that an import reads has begun on it. */
  isRead: boolean
  endsAlone: number
  /** Why its begins and ends do not belong together; nothing is paired from then on. */
  problem?: Problem
}

const kept = [Field.cat, Field.name, Field.pid, Field.tid, Field.ts] as const
const keptNames = ["cat", "name", "pid", "tid", "ts"] as const

/** Feed it events of both kinds in the order of the file. What other programs wrote beside is nobody's concern. */
export class BegunApart {
  readonly #threads = new Map<string, Thread>()
  readonly #scanner = new EventScanner()
  /** Events that are whole, of those that are read. */
  pairs = 0

  /** Of threads with events that are read. */
  get #read(): ReadonlyArray<Thread> {
    return [...this.#threads.values()].filter(({ isRead }) => isRead)
  }

  get problem(): Problem | undefined {
    return this.#read.find(({ problem }) => problem !== undefined)?.problem
  }

  /** Begins of what does not end in the file. */
  get beginsAlone(): number {
    return this.#read.reduce((sum, { open }) => sum + open.filter(({ isRead }) => isRead).length, 0)
  }

  /** Ends of what did not begin in the file. */
  get endsAlone(): number {
    return this.#read.reduce((sum, thread) => sum + thread.endsAlone, 0)
  }

  /** `at`: the time of the event. `isRead`: whether its category is read. */
  begin(index: number, fields: EventScanner, at: number, isRead: boolean): void {
    const thread = this.#threadOf(index, fields, at)
    if (isRead) thread.isRead = true
    if (thread.problem !== undefined) return
    const written = [...kept.map((field) => fields.source(field)), argsIn(fields)]
    thread.open.push({ index, at, isRead, fields: written })
  }

  /** The event that ends here, as one; undefined where it is none that is read. */
  end(index: number, fields: EventScanner, at: number): EventScanner | undefined {
    const thread = this.#threadOf(index, fields, at)
    if (thread.problem !== undefined) return undefined
    const begun = thread.open.pop()
    if (begun === undefined) {
      thread.endsAlone++
      return undefined
    }
    const name = fields.source(Field.name)
    if (name !== "" && name !== begun.fields[1]) {
      thread.problem = {
        field: `traceEvents[${index}]`,
        value: `the end of ${name}, where ${begun.fields[1] || "what has no name"} (traceEvents[${begun.index}]) was the last to begin`,
        accepted:
          "begins and ends (ph B and E) that are nested on their thread (pid and tid), or whole events (ph X)"
      }
      return undefined
    }
    if (!begun.isRead) return undefined
    this.pairs++
    return this.#whole(begun, at, argsIn(fields))
  }

  /** With a problem where the file is not in the order of its times, which is all that tells what an end is of. */
  #threadOf(index: number, fields: EventScanner, at: number): Thread {
    const key = `${fields.source(Field.pid)} ${fields.source(Field.tid)}`
    let thread = this.#threads.get(key)
    if (thread === undefined) {
      this.#threads.set(key, (thread = { open: [], latest: -Infinity, isRead: false, endsAlone: 0 }))
    }
    if (at >= thread.latest) thread.latest = at
    else {
      thread.problem ??= {
        field: `traceEvents[${index}].ts`,
        value: Number.isNaN(at)
          ? fields.source(Field.ts) || "missing"
          : `${fields.source(Field.ts)}, before that of an earlier begin or end (ph B and E) of its thread`,
        accepted: "begins and ends in the order of their times, or whole events (ph X)"
      }
    }
    return thread
  }

  #whole(begun: Begun, end: number, argsAtEnd: string): EventScanner {
    const members = keptNames.flatMap((name, i) =>
      begun.fields[i] === "" ? [] : [`"${name}":${begun.fields[i]}`]
    )
    const args = [begun.fields[kept.length]!, argsAtEnd].filter((text) => text !== "").join(",")
    const text = `{"ph":"X",${[...members, `"dur":${end - begun.at}`].join(",")},"args":{${args}}}`
    this.#scanner.bytes = new TextEncoder().encode(text)
    this.#scanner.length = this.#scanner.bytes.length
    this.#scanner.event(0)
    return this.#scanner
  }
}

/** What is between the braces of an event's arguments. */
const argsIn = (fields: EventScanner): string =>
  fields.isObject(Field.args) ? fields.source(Field.args).slice(1, -1).trim() : ""
