// The typed binding of the native mesh: connections to the other processes of a job, and messages between their programs.
// Silence of a peer is noticed by the native threads, whatever this thread is doing. Knows nothing of what is said.
import { deserialize, serialize } from "node:v8"
import * as Effect from "effect/Effect"
import { messageOf } from "../../core/message-of.ts"
import { loadAddon, type AddonMesh, type AddonTransport } from "../native-addon.ts"
import type { TransportWish } from "./meeting.ts"
import { NoRendezvous, type Meeting } from "./rendezvous.ts"

interface MeshOptions {
  readonly rank: number
  readonly size: number
  /** Address to listen on and to connect from. */
  readonly host: string
  /** What carries messages; the same at all ranks. Default "tcp". */
  readonly transport?: TransportWish
  /** Data connections to each peer, over TCP. */
  readonly streams?: number
  /** A peer that sends nothing for so long is lost. */
  readonly lostAfterSeconds?: number
}

/** Why a mesh ended, and which rank is to blame. */
export interface MeshFault {
  readonly kind: "lost" | "told" | "mismatch" | "protocol"
  readonly rank: number
  readonly message: string
}

/** Data connections to each peer, where nothing else is said. */
export const defaultStreams = 2
const defaultLostAfterSeconds = 6

export class Mesh {
  readonly rank: number
  readonly size: number
  readonly #native: AddonMesh
  #closed = false

  /** Listens. Throws Error where it cannot, or the addon is missing. */
  constructor(options: MeshOptions) {
    const { rank, size, host, streams = defaultStreams, transport = "tcp" } = options
    const addon = loadAddon()
    if ("missing" in addon) throw new Error(addon.missing)
    const lostAfterSeconds = options.lostAfterSeconds ?? defaultLostAfterSeconds
    this.rank = rank
    this.size = size
    this.#native = addon.openMesh({
      rank,
      size,
      host,
      streams,
      transport,
      lostAfterSeconds,
      // Three in a row may be late, or more, before a peer is given up.
      heartbeatSeconds: Math.min(0.5, lostAfterSeconds / 4)
    })
  }

  get port(): number {
    return this.#native.port
  }

  /** What a session is given to run on. */
  get handle(): unknown {
    return this.#native.handle
  }

  /** Connects to all others. Whoever connects must know the key, which is never sent. Interrupted, it closes the mesh. */
  connect(
    addresses: Meeting["addresses"],
    key: string,
    timeoutSeconds: number
  ): Effect.Effect<void, NoRendezvous> {
    return Effect.callback<void, NoRendezvous>((resume) => {
      const fail = (cause: unknown): void =>
        resume(Effect.fail(new NoRendezvous({ rank: this.rank, reason: messageOf(cause) })))
      const connecting = (async () => this.#native.connect(addresses, key, timeoutSeconds))()
      const settled = connecting.then(() => resume(Effect.void), fail)
      return Effect.promise(() => {
        this.close()
        return settled
      })
    })
  }

  /** What carries messages, and why that; undefined where there is nobody else. */
  get transport(): AddonTransport | undefined {
    return this.#native.transport()
  }

  /**
   * Sends a value that can be cloned (numbers, texts, typed arrays, lists, records) to the program of another rank. Once the mesh is
   * closed it reaches nobody: what was begun before, such as the writing of a checkpoint, may end after.
   */
  tell(peer: number, value: unknown): void {
    if (!this.#closed) this.#native.note(peer, serialize(value))
  }

  /**
   * Calls `handler` with what others tell, one after the other, and with what they told before; `onLeft` when one has said goodbye,
   * after all that it told; `onFault` when the mesh fails. Keeps the process alive.
   */
  onTold(
    handler: (peer: number, value: unknown) => void,
    onLeft: (peer: number) => void,
    onFault: (fault: MeshFault) => void
  ): void {
    this.#native.onNote((peer, bytes) => {
      // What had come by then is handed over later.
      if (this.#closed) return
      // A mesh that was closed meanwhile has no fault to tell.
      const fault = peer >= 0 ? undefined : this.#native.fault()
      if (peer >= 0) {
        if (bytes === undefined) onLeft(peer)
        else handler(peer, deserialize(bytes))
      }
      if (fault !== undefined) onFault(fault)
    })
  }

  /** Whether the process stays alive for the sake of `onTold`. */
  hold(alive: boolean): void {
    this.#native.hold(alive)
  }

  get fault(): MeshFault | undefined {
    return this.#native.fault()
  }

  /** Ends the job for everybody: all ranks learn why. */
  fail(reason: string): void {
    this.#native.fail(reason)
  }

  /** Ends the job for everybody: that rank has ended, and something was to come from it. */
  lose(peer: number): void {
    this.#native.lose(peer)
  }

  /** Nanoseconds of a clock that all processes of a host share. */
  get nowNanoseconds(): number {
    return this.#native.nowNanoseconds()
  }

  /** Says goodbye. Nothing is told or heard afterwards; all else throws. */
  close(): void {
    this.#closed = true
    this.#native.close()
  }
}
