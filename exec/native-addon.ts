// Finds and loads the native addon, and declares its surface exactly as C++ exports it: integers and typed arrays in,
// integers out. Knows nothing of what the calls are for; exec/native.ts makes them pleasant.
import { existsSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join, sep } from "node:path"
import { fileURLToPath } from "node:url"
import type { TensorData } from "../core/machine/tensor.ts"
import { messageOf } from "../core/message-of.ts"

/** One backend of this build. */
interface BackendInfo {
  readonly name: string
  readonly title: string
  /** Whether it can be opened here; if not, `missing` says why. */
  readonly available: boolean
  readonly devices: ReadonlyArray<string>
  /** What it has opened, with versions, and what it does without. */
  readonly uses: ReadonlyArray<string>
  /** What is missing and how to get it; empty when nothing is. */
  readonly missing: ReadonlyArray<string>
  /** Its kernels, by the catalogue's names. */
  readonly kernels: ReadonlyArray<string>
}

export interface AddonInfo {
  readonly backends: ReadonlyArray<BackendInfo>
  /** Matrix products: "own", or "openblas" and the file it was loaded from. */
  readonly blas: string
  /** Widest vector instructions that this processor and this build share: "avx512f", "avx2", "baseline". */
  readonly simd: string
  readonly compiler: string
}

/** UCX as it was found, or why not and how to get it. */
export type AddonUcx = { readonly version: string; readonly path: string } | { readonly missing: string }

/** What went wrong first; rank, op and peer are -1 where they are no one's. */
export interface AddonFault {
  readonly kind: "value" | "collective" | "memory" | "thread" | "device" | "peer" | "aborted" | "closed"
  readonly rank: number
  readonly op: number
  readonly peer: number
  readonly message: string
}

interface AddonPart {
  readonly kernel: string
  readonly attributes: Readonly<Record<string, number | string | boolean>>
  readonly inputs: ReadonlyArray<number>
  readonly outputs: ReadonlyArray<number>
}

/** An operation as it is prepared; operands are the ids that `alloc` was given. */
export interface AddonOp {
  readonly kernel: string
  readonly lane: number
  readonly attributes: Readonly<Record<string, number | string | boolean>>
  /** Number attributes that a submission may give anew, in order. */
  readonly scalars: ReadonlyArray<string>
  readonly reads: ReadonlyArray<number>
  readonly writes: ReadonlyArray<number>
  /** Of a composite kernel, its parts; operands are places among reads, then writes, then inner values. */
  readonly parts: ReadonlyArray<AddonPart>
  readonly inner: ReadonlyArray<{ readonly dtype: number; readonly shape: ReadonlyArray<number> }>
  /** Collectives: the communicator and its members, in order; undefined elsewhere. */
  readonly group: string | undefined
  readonly members: ReadonlyArray<number> | undefined
  /** Shortest time that the op may take, seconds. */
  readonly seconds: number
  /** Links that a collective's bytes cross: link, bytes, link, bytes, ... */
  readonly loads: ReadonlyArray<number>
  readonly latencySeconds: number
}

export interface AddonRank {
  alloc(id: number, place: number, dtype: number, shape: ReadonlyArray<number>, zeros: boolean): boolean
  view(id: number, arena: number, offsetBytes: number, dtype: number, shape: ReadonlyArray<number>): void
  free(id: number): void
  capacityBytes(place: number): number
  freeBytes(place: number): number
  workspaceBytes(): number
  upload(id: number, data: TensorData): void
  draw(id: number, drawn: Pick<AddonOp, "kernel" | "attributes">): void
  settled(): boolean
  read(id: number, data: TensorData): void
  download(id: number): number
  downloadFor(id: number, lane: number, ...edges: ReadonlyArray<number>): number
  arrived(download: number): boolean
  take(download: number, data: TensorData): void
  prepare(op: AddonOp): number
  release(op: number): void
  /** Edges beyond the count are not looked at; scalars are none, or those of the op. */
  submit(
    op: number,
    edgeCount: number,
    edge0: number | undefined,
    edge1: number | undefined,
    edge2: number | undefined,
    edge3: number | undefined,
    edge4: number | undefined,
    ...scalars: ReadonlyArray<number>
  ): number
  endStep(): void
  ended(lane: number): number
  submitted(lane: number): number
  watch(lane: number, op: number): boolean
  writerOf(id: number): number
  takeTimes(): Float64Array
}

/** Stretches of ops that came again and were launched as a whole: CUDA graphs. */
export interface Replays {
  /** "on", or "off: " and why. */
  readonly state: string
  /** Stretches that were made into one launch, such launches, and ops launched so. */
  readonly captured: number
  readonly launched: number
  readonly ops: number
}

export interface AddonSession {
  rank(rank: number): AddonRank
  fault(): AddonFault | undefined
  /** Ends everything with a fault of that message, unless there is one already. */
  abort(message: string): void
  /** Undefined where the backend has no such thing. */
  replays(): Replays | undefined
  nowNanoseconds(): number
  /** Whether the process stays alive for the sake of `onProgress`. */
  hold(alive: boolean): void
  open(): boolean
  close(): void
}

interface AddonMeshFault {
  readonly kind: "lost" | "told" | "mismatch" | "protocol"
  readonly rank: number
  readonly message: string
}

interface AddonMeshOptions {
  readonly rank: number
  readonly size: number
  readonly streams: number
  readonly host: string
  readonly heartbeatSeconds: number
  readonly lostAfterSeconds: number
  readonly transport: "auto" | "tcp" | "ucx"
}

/** What carries messages, and why that. */
export interface AddonTransport {
  readonly name: string
  readonly because: string
}

export interface AddonMesh {
  /** For `AddonSessionOptions.mesh`. */
  readonly handle: unknown
  readonly port: number
  connect(
    addresses: ReadonlyArray<{ readonly host: string; readonly port: number }>,
    key: string,
    timeoutSeconds: number
  ): Promise<void>
  note(peer: number, bytes: Uint8Array): void
  /** Peer -1: the mesh has failed. No bytes: the peer has said goodbye, after all that it said before. */
  onNote(handler: (peer: number, bytes: Uint8Array | undefined) => void): void
  /** Whether the process stays alive for the sake of notes. */
  hold(alive: boolean): void
  fault(): AddonMeshFault | undefined
  fail(message: string): void
  /** As `fail`, for a peer has ended. */
  lose(peer: number): void
  /** Undefined before it is connected, and where there is nobody else. */
  transport(): AddonTransport | undefined
  nowNanoseconds(): number
  close(): void
}

interface AddonSessionOptions {
  readonly backend: string
  readonly settings: Readonly<Record<string, number>>
  readonly ranks: number
  /** Infinity leaves it to the device. */
  readonly deviceBytes: number
  readonly hostBytes: number
  /** Bytes per second and latency of copies to and from the device; Infinity and 0 where they go as fast as they can. */
  readonly h2d: readonly [bytesPerSecond: number, latencySeconds: number]
  readonly d2h: readonly [bytesPerSecond: number, latencySeconds: number]
  readonly linkBytesPerSecond: ReadonlyArray<number>
  readonly timed: boolean
  readonly onProgress: () => void
  /** The session is of one rank, and reaches the others over this; undefined where all are here. */
  readonly mesh?: unknown
  /** Of several devices of this host, that of the first rank. */
  readonly firstDevice?: number
}

export interface Addon {
  /** The library for GPUs is taken only where it was built from sources of that digest. */
  expectCudaSources(digest: string): void
  /** From now on this process is continued, if it is stopped, when the one that started it ends. Nothing where the system is not Linux. */
  continueWithoutParent(): void
  info(): AddonInfo
  /** Looks for UCX when it is first called. */
  ucx(): AddonUcx
  /** "own", "openblas" or a path; returns what is in force, and throws when the library cannot be loaded. */
  useBlas(name: string): string
  openSession(options: AddonSessionOptions): AddonSession
  /** Listens for the other processes of a job. */
  openMesh(options: AddonMeshOptions): AddonMesh
}

/** Why there is no addon, and what to do about it. */
export interface NoAddon {
  readonly missing: string
  /** There is one, of other sources: who tests these is not to pass it over. */
  readonly stale?: true
}

/** Where native/ is; from the sources and from dist/ alike. */
const nativeFolder = (): string => {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, "package.json")) && dirname(folder) !== folder) folder = dirname(folder)
  return join(folder, "native")
}

/** native/sources.cjs. */
interface Sources {
  addonDigest(native: string): string
  cudaDigest(native: string): string
}

/** What builds it anew: of a package that is installed in a project from there, whose scripts are others. */
const rebuildIn = (native: string): string => {
  const folder = dirname(native)
  const from = folder.split(sep).includes("node_modules") ? ` --prefix ${folder}` : ""
  return `run "npm run build:native${from}"`
}

/**
 * The addon that was built in a folder `native`, or why it is not to be had. One that was built from other sources than those that
 * lie there is none: its calls may be others, and its kernels may compute other numbers.
 */
export const addonIn = (native: string): Addon | NoAddon => {
  const release = join(native, "build", "Release")
  const path = join(release, "tandem.node")
  if (!existsSync(path)) {
    return {
      missing:
        `the native addon is not built (${path} is not there). ` +
        `Building needs a C++17 compiler (g++ or clang++; on Debian "apt-get install g++"); then ${rebuildIn(native)}`
    }
  }
  const require = createRequire(import.meta.url)
  try {
    const addon = require(path) as Addon & { readonly sources?: string }
    // an addon may have been brought without its sources: then there is nothing to hold it to
    const known = join(native, "sources.cjs")
    if (!existsSync(known) || !existsSync(join(native, "addon.cc"))) return addon
    const sources = require(known) as Sources
    if (addon.sources !== sources.addonDigest(native)) {
      return {
        stale: true,
        missing:
          `the native addon (${path}) was built from other sources than those of ${native}, ` +
          `before they were changed or pulled: ${rebuildIn(native)}`
      }
    }
    if (existsSync(join(release, "libtandem_cuda.so"))) addon.expectCudaSources(sources.cudaDigest(native))
    return addon
  } catch (error) {
    return {
      missing: `the native addon does not load: ${messageOf(error)}. Build it again: ${rebuildIn(native)}`
    }
  }
}

let loaded: Addon | NoAddon | undefined

/** Loads the addon once. */
export const loadAddon = (): Addon | NoAddon => (loaded ??= addonIn(nativeFolder()))
