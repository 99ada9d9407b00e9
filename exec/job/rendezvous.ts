// Where the processes of a job find each other: rank 0 listens, the others come, both sides prove that they know the secret,
// and all learn where all are. Whoever is late, foreign, a second of its rank, or of another run is told so, and nobody waits
// for ever. Knows nothing of what the processes will do.
import { createConnection, createServer, type Server, type Socket } from "node:net"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { messageOf } from "../../core/message-of.ts"
import { Lines, parsed, type Line } from "./lines.ts"
import { freshNonce, proofOf, sameProof } from "./secret.ts"
import { UntilConnected } from "./until-connected.ts"

/** The processes did not come together; the message says who is missing, or what is wrong with whom. */
export class NoRendezvous extends Schema.TaggedError<NoRendezvous>()("NoRendezvous", {
  rank: Schema.Number,
  reason: Schema.String
}) {
  override get message(): string {
    return `rank ${this.rank}: ${this.reason}`
  }
}

export interface RendezvousOptions {
  readonly rank: number
  readonly size: number
  readonly master: { readonly host: string; readonly port: number }
  readonly secret: string
  /** What must be the same everywhere, by name: {version, plan}. */
  readonly alike: Readonly<Record<string, string>>
  /** Address that this process is reached at; by default that from which it reaches rank 0. */
  readonly host?: string | undefined
  /** Opens what others will connect to, on that address; its port. */
  readonly listen: (host: string) => number
  readonly timeoutSeconds: number
}

export interface Meeting {
  /** By rank. */
  readonly addresses: ReadonlyArray<{ readonly host: string; readonly port: number }>
  /** A key that the processes of this meeting share, and of no other. */
  readonly key: string
  /** Who of them is lost before all are connected. */
  readonly company: UntilConnected
  /** Turns away whoever still comes; ends with the job. */
  readonly close: () => void
}

const protocol = "tandem-rendezvous-2"
/** Whoever connects has so long to prove itself. */
const patienceMillis = 5000
const retryMillis = 100

/** Meets the other processes of the job. */
export const rendezvous = (options: RendezvousOptions): Effect.Effect<Meeting, NoRendezvous> =>
  Effect.callback<Meeting, NoRendezvous>((resume) => {
    const { rank } = options
    let ended = false
    const end = (result: Effect.Effect<Meeting, NoRendezvous>): void => {
      if (ended) return
      ended = true
      resume(result)
    }
    const fail = (reason: string): void => end(Effect.fail(new NoRendezvous({ rank, reason })))
    const stop = rank === 0 ? host(options, end, fail) : join(options, end, fail)
    return Effect.sync(() => {
      ended = true
      stop()
    })
  })

type End = (result: Effect.Effect<Meeting, NoRendezvous>) => void
type Fail = (reason: string) => void

/** What a process says of itself, in one text that its proof covers. */
interface Card {
  readonly rank: number
  readonly size: number
  readonly alike: Readonly<Record<string, string>>
  readonly host: string
  readonly port: number
}

const Card = Schema.Struct({
  rank: Schema.Number,
  size: Schema.Number,
  alike: Schema.Record(Schema.String, Schema.String),
  host: Schema.String,
  port: Schema.Number
})

const cardIn = (text: unknown): Card | undefined => {
  if (typeof text !== "string") return undefined
  const value = parsed(text)
  return Schema.is(Card)(value) ? value : undefined
}

const keyOf = (secret: string, job: string): string => proofOf(secret, "key", job)

// Rank 0

const host = (options: RendezvousOptions, end: End, fail: Fail): (() => void) => {
  const { size, secret, master } = options
  const members = new Map<number, { readonly card: Card; readonly lines: Lines }>()
  /** Ranks that had come, and hung up. */
  const gone = new Set<number>()
  const open = new Set<Socket>()
  /** Whence somebody came who knew the protocol, and went when the secret was to be proved. */
  const doubters = new Set<string>()
  let own: Card | undefined
  let begun = false
  const close = (): void => {
    clearTimeout(timer)
    server.close()
    for (const socket of open) socket.destroySoon()
  }
  const giveUp = (reason: string): void => {
    clearTimeout(timer)
    for (const { lines } of members.values()) lines.part({ refused: reason })
    server.close()
    fail(reason)
  }
  const complete = (): void => {
    if (own === undefined || members.size < size - 1) return
    begun = true
    clearTimeout(timer)
    const job = freshNonce()
    const cards = [own, ...Array.from({ length: size - 1 }, (_, i) => members.get(i + 1)!.card)]
    const addresses = cards.map((card) => ({ host: card.host, port: card.port }))
    const text = JSON.stringify({ job, addresses })
    for (const { lines } of members.values()) lines.say({ met: text, proof: proofOf(secret, "met", text) })
    // From now on only to tell who is late that they are; not a reason to live on.
    server.unref()
    const company = new UntilConnected(0, new Map([...members].map(([rank, { lines }]) => [rank, lines])))
    const leave = (): void => {
      company.close()
      close()
    }
    end(Effect.succeed({ addresses, key: keyOf(secret, job), company, close: leave }))
  }

  /** Reads who has come; a reason to refuse them, and whether nobody can go on. */
  const judge = (card: Card): { readonly refused: string; readonly all: boolean } | undefined => {
    if (begun) return { refused: `rank ${card.rank} comes too late: the job has begun`, all: false }
    if (card.size !== size) {
      return {
        refused: `rank ${card.rank} says the job has ${card.size} processes, rank 0 says ${size}`,
        all: true
      }
    }
    if (!Number.isInteger(card.rank) || card.rank < 1 || card.rank >= size) {
      return { refused: `rank ${card.rank} is not one of 1 to ${size - 1}`, all: false }
    }
    for (const name of Object.keys({ ...options.alike, ...card.alike })) {
      const [theirs, ours] = [card.alike[name], options.alike[name]]
      if (theirs === ours) continue
      return {
        refused: `${name} of rank ${card.rank} is ${theirs ?? "missing"}, that of rank 0 is ${ours ?? "missing"}`,
        all: true
      }
    }
    const first = members.get(card.rank)
    if (first === undefined) return undefined
    return { refused: `a second process says that it is rank ${card.rank}`, all: false }
  }

  const receive = (socket: Socket): void => {
    open.add(socket)
    socket.unref()
    const lines = new Lines(socket)
    // Nothing to live on for: whoever waits for the others has a timer of its own.
    const patience = setTimeout(() => socket.destroy(), patienceMillis).unref()
    let card: Card | undefined
    let doubts: string | undefined
    socket.on("close", () => {
      clearTimeout(patience)
      if (doubts !== undefined) doubters.add(doubts)
      open.delete(socket)
      // Who hangs up before all have met may come again.
      if (begun || card === undefined || members.get(card.rank)?.lines !== lines) return
      members.delete(card.rank)
      gone.add(card.rank)
    })
    lines.next((hello) => {
      const theirs = hello["nonce"]
      if (hello["protocol"] !== protocol || typeof theirs !== "string" || theirs.length > 64)
        return socket.destroy()
      const nonce = freshNonce()
      lines.say({ nonce, proof: proofOf(secret, "host", theirs, nonce) })
      doubts = socket.remoteAddress
      lines.next((answer) => {
        const text = answer["card"]
        const known =
          typeof text === "string" &&
          sameProof(proofOf(secret, "member", nonce, theirs, text), answer["proof"])
        const come = known ? cardIn(text) : undefined
        if (!known) return lines.part({ refused: "it does not know the job's secret" })
        doubts = undefined
        if (come === undefined) return lines.part({ refused: "it does not say who it is" })
        clearTimeout(patience)
        const verdict = judge(come)
        if (verdict !== undefined) {
          lines.part({ refused: verdict.refused })
          if (verdict.all) giveUp(verdict.refused)
          return
        }
        card = come
        members.set(come.rank, { card: come, lines })
        complete()
      })
    })
  }

  const server: Server = createServer(receive)
  const timer = setTimeout(() => {
    const absent = Array.from({ length: size - 1 }, (_, i) => i + 1).filter((rank) => !members.has(rank))
    const within = `to ${master.host}:${master.port} within ${options.timeoutSeconds} s`
    giveUp(`${absence(absent, gone, within)}${onlyHere(server, master.host)}${withAnother(doubters)}`)
  }, options.timeoutSeconds * 1000)
  server.on("error", (error: NodeJS.ErrnoException) => {
    clearTimeout(timer)
    const port = `${master.host}:${master.port}`
    fail(
      error.code === "EADDRINUSE"
        ? `${port} is taken: another program, or another job, listens there; choose another MASTER_PORT`
        : `cannot listen on ${port}: ${inWords(error)}; rank 0 listens on its own host, whose name or address MASTER_ADDR is to be`
    )
  })
  server.listen({ host: master.host, port: master.port }, () => {
    try {
      const address = options.host ?? master.host
      const { rank, alike } = options
      own = { rank, size, alike, host: address, port: options.listen(address) }
      complete()
    } catch (cause) {
      giveUp(messageOf(cause))
    }
  })
  return () => {
    clearTimeout(timer)
    close()
  }
}

/**
 * Many systems say in /etc/hosts that their own name is a loopback address (Debian: 127.0.1.1): who listens there hears nobody of
 * another host.
 */
const onlyHere = (server: Server, name: string): string => {
  const bound = server.address()
  const address = typeof bound === "object" ? (bound?.address ?? "") : ""
  if (address === name || name === "localhost" || !/^(?:127\.|::1$)/u.test(address)) return ""
  return `: here ${name} is ${address}, where no other host can reach it; set MASTER_ADDR to an address that all reach`
}

const withAnother = (doubters: ReadonlySet<string>): string =>
  doubters.size === 0
    ? ""
    : `; from ${[...doubters].slice(0, 8).join(", ")} somebody came who does not know this job's secret: TANDEM_SECRET may be another there`

/** Who never came is told first: whoever has gone again may have waited for them too long. */
const absence = (absent: ReadonlyArray<number>, gone: ReadonlySet<number>, within: string): string => {
  const never = absent.filter((rank) => !gone.has(rank))
  const again = absent.filter((rank) => gone.has(rank))
  if (never.length === 0) return `${ranksAre(again)} come ${within}, and hung up before all had`
  const others = again.length === 0 ? "" : `; ${ranksAre(again)} come, and hung up`
  return `${ranksAre(never)} not come ${within}${others}`
}

const ranksAre = (ranks: ReadonlyArray<number>): string =>
  ranks.length === 1 ? `rank ${ranks[0]} has` : `ranks ${ranks.join(", ")} have`

/** What a system says is in the way of an address, in words; its own where that says more. */
const inWords = ({ code = "", message }: Pick<NodeJS.ErrnoException, "code" | "message">): string =>
  new Map([
    ["ENOTFOUND", "no address is known of that name"],
    ["EAI_AGAIN", "whoever knows addresses of names does not answer"],
    ["EADDRNOTAVAIL", "this host has no such address"],
    ["EACCES", "this system does not let it (ports below 1024 are root's)"],
    ["EPERM", "this system does not let it"],
    ["EHOSTUNREACH", "no way leads there from this host"],
    ["ENETUNREACH", "no way leads there from this host"],
    ["ETIMEDOUT", "nothing there answers"],
    ["ECONNRESET", "whoever is there hangs up"]
  ]).get(code) ?? message

// The others

const nobody = "nobody listens there"
const nobodyThere = `rank 0 has not come, ${nobody}`
const stranger = "whoever listens there does not know this job's secret"
const hungUp = "rank 0 was there, and hung up before all had come"

const join = (options: RendezvousOptions, end: End, fail: Fail): (() => void) => {
  const { rank, size, alike, secret, master } = options
  const where = `${master.host}:${master.port}`
  /** What is in the way, as far as is known. */
  let problem = `nothing there answers: rank 0 has not come, or ${master.host} is not how this host reaches it (MASTER_ADDR)`
  /** Rank 0 has proved to be there, now or before. */
  let met = false
  /** It is there, and will say who has come, or who has not. */
  let isAwaited = false
  /** Its time is over, and it stays to hear from rank 0 who is missing. */
  let isLate = false
  let over = false
  let socket: Socket | undefined
  let listening: { readonly host: string; readonly port: number } | undefined
  const give = (result: () => void, keep = false): void => {
    if (over) return
    over = true
    clearTimeout(timer)
    if (!keep) socket?.destroy()
    result()
  }
  const giveUp = (): void =>
    give(() => fail(`no rendezvous at ${where} within ${options.timeoutSeconds} s: ${problem}`))
  const again = (): void => {
    if (isLate) giveUp()
    else if (!over) setTimeout(attempt, retryMillis)
  }

  const attempt = (): void => {
    if (over) return
    const connection = createConnection(master.port, master.host)
    socket = connection
    const lines = new Lines(connection)
    let isConnected = false
    connection.on("error", ({ code, message }: NodeJS.ErrnoException) => {
      if (isConnected) return
      const isNobody = code === "ECONNREFUSED"
      // It has ended, and comes again only where all begin again.
      if (isNobody && met) give(() => fail(`no rendezvous at ${where}: ${hungUp}; now ${nobody}`))
      problem = isNobody
        ? nobodyThere
        : `${inWords({ code, message })}; MASTER_ADDR is to be a name or address of rank 0's host by which all hosts reach it`
    })
    connection.on("close", () => {
      if (isAwaited) problem = hungUp
      isAwaited = false
      again()
    })
    connection.on("connect", () => {
      isConnected = true
      // Whoever has answered once and is slow to answer again is known.
      if (problem !== stranger) problem = "whoever listens there does not answer as rank 0 of a job"
      const nonce = freshNonce()
      lines.say({ protocol, nonce })
      lines.next((answer) => {
        const theirs = answer["nonce"]
        if (
          typeof theirs !== "string" ||
          !sameProof(proofOf(secret, "host", nonce, theirs), answer["proof"])
        ) {
          problem = stranger
          connection.destroy()
          return
        }
        try {
          const address = options.host ?? connection.localAddress ?? "127.0.0.1"
          if (listening?.host !== address) listening = { host: address, port: options.listen(address) }
        } catch (cause) {
          give(() => fail(messageOf(cause)))
          return
        }
        const card = JSON.stringify({ rank, size, alike, ...listening } satisfies Card)
        lines.say({ card, proof: proofOf(secret, "member", theirs, nonce, card) })
        met = isAwaited = true
        problem = "rank 0 is there, and has not said by then who is missing"
        lines.next((last) => finish(last, lines))
      })
    })
  }

  const finish = (message: Line, lines: Lines): void => {
    const { refused, met: all, proof } = message
    if (typeof refused === "string") return give(() => fail(`refused by ${where}: ${refused}`))
    const text = typeof all === "string" && sameProof(proofOf(secret, "met", all), proof) ? all : undefined
    const meeting = text === undefined ? undefined : parsed(text)
    if (meeting === undefined) {
      socket?.destroy()
      return
    }
    const { job, addresses } = meeting as { readonly job: string; readonly addresses: Meeting["addresses"] }
    const company = new UntilConnected(rank, new Map([[0, lines]]))
    const close = (): void => company.close()
    give(() => end(Effect.succeed({ addresses, key: keyOf(secret, job), company, close })), true)
  }

  let timer = setTimeout(() => {
    isLate = true
    // Rank 0, which may have begun a little later, knows who is missing.
    if (isAwaited) timer = setTimeout(giveUp, patienceMillis)
    else giveUp()
  }, options.timeoutSeconds * 1000)
  attempt()
  return () => give(() => {})
}
