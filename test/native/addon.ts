// Whether the native addon is there to be tested, and small sessions on it: what the native tests share.
import { describe, expect, it } from "vitest"
import type { Op, OpId } from "../../core/machine/op.ts"
import {
  elementsOf,
  sizeBytesOf,
  type Dtype,
  type Place,
  type Tensor,
  type TensorData
} from "../../core/machine/tensor.ts"
import { nativeInfo, NativeSession, type NativeRank, type SessionOptions } from "../../exec/native.ts"

const info = nativeInfo()
const missing = "missing" in info ? info.missing : undefined
const required =
  (process.env["TANDEM_REQUIRE_NATIVE"] ?? "") !== "" || ("missing" in info && info.stale === true)

/** The backend that the tests of kernels, sessions and collectives run on: TANDEM_BACKEND, default "cpu". */
export const backend = process.env["TANDEM_BACKEND"] ?? "cpu"

/** `describe` where the addon was built. Without it: skipped with a message; a failure with TANDEM_REQUIRE_NATIVE=1, and where there is one of other sources. */
export const describeNative = (name: string, body: () => void): void => {
  if (missing === undefined) {
    describe(name, body)
  } else if (required) {
    describe(name, () => {
      it("needs the addon", () => expect.fail(missing))
    })
  } else {
    console.warn(`skipped "${name}": ${missing}`)
    describe.skip(name, () => {
      it("needs the addon", () => {})
    })
  }
}

let nextId = 0

/** A tensor of that rank, with values where they are given. Throws when it does not fit. */
export const tensorOn = (
  rank: NativeRank,
  shape: ReadonlyArray<number>,
  dtype: Dtype = "float32",
  data?: TensorData,
  place: Place = "device"
): Tensor => {
  const elements = elementsOf(shape)
  const id = nextId++
  const tensor = {
    id,
    name: `t${id}`,
    shape,
    dtype,
    place,
    elements,
    sizeBytes: sizeBytesOf(elements, dtype)
  }
  if (!rank.alloc(tensor)) throw new Error(`${tensor.sizeBytes} B do not fit`)
  if (data !== undefined) rank.write(tensor, data)
  return tensor
}

/** Submits with these edges. */
export const submitAfter = (rank: NativeRank, op: Op, edges: ReadonlyArray<OpId> = []): OpId => {
  rank.takeEdgesFrom(Int32Array.from(edges.length === 0 ? [0] : edges))
  return rank.submit(op, edges.length)
}

/** Waits until one rank, or all, have ended everything. */
export const drained = (...ranks: ReadonlyArray<NativeRank>): Promise<unknown> =>
  Promise.all(ranks.map((rank) => new Promise<void>((resolve) => rank.whenDrained(resolve))))

/** Opens a session for `body` and closes it whatever happens. */
export const withSession = async <A>(
  options: SessionOptions,
  body: (session: NativeSession, ...ranks: ReadonlyArray<NativeRank>) => Promise<A>
): Promise<A> => {
  const session = NativeSession.open({ backend, ...options })
  try {
    return await body(session, ...session.ranks)
  } finally {
    session.close()
  }
}
