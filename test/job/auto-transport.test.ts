// What carries a job's messages where its ranks are told nothing of it, "auto", and why.
import { spawn } from "node:child_process"
import { expect, it } from "vitest"
import { describeNative } from "../native/addon.ts"
import { startMembers } from "./started.ts"
import { transports } from "./transports.ts"

/** What two ranks go by, each with variables of its own, as each of them says. */
const chosen = async (...variables: readonly [NodeJS.ProcessEnv, NodeJS.ProcessEnv]) => {
  const members = await startMembers({
    script: "member.ts",
    args: ["transport"],
    size: 2,
    transport: "auto",
    start: (rank, [program, ...args], env) =>
      spawn(program!, args, { env: { ...env, ...variables[rank] }, stdio: ["ignore", "pipe", "inherit"] })
  })
  return Promise.all(members.map(({ end }) => end))
}

const both = (name: string, because: RegExp) =>
  Array.from({ length: 2 }, () => ({ name, because: expect.stringMatching(because) }))

describeNative("the transport auto", () => {
  it.each([0, 1])("is TCP where rank %i has no UCX", async (rank) => {
    const without = { TANDEM_UCX: "/nowhere/libucp.so.0" }
    const ends = await chosen(rank === 0 ? without : {}, rank === 1 ? without : {})
    // Without the library here both have none, and the first is named.
    const first = transports.includes("ucx") ? rank : 0
    expect(ends).toEqual(both("tcp", new RegExp(`^rank ${first} has none: .*libucp`, "u")))
  })

  it.skipIf(!transports.includes("ucx")).each(["tcp,self", "^sm"])(
    "is TCP where UCX would have to use that, UCX_TLS=%s",
    async (list) => {
      const ends = await chosen({ UCX_TLS: list }, { UCX_TLS: list })
      const why = /^rank 0: UCX would have to use plain TCP.*UCX_TLS leaves shared memory out/u
      expect(ends).toEqual(both("tcp", why))
    }
  )

  it.skipIf(!transports.includes("ucx")).each(["all", "^tcp"])(
    "is UCX where all have it and share memory, UCX_TLS=%s",
    async (list) => {
      const ends = await chosen({ UCX_TLS: list }, { UCX_TLS: list })
      expect(ends).toEqual(both("ucx", /^UCX 1\.\d+\.\d+, shared memory with 1 rank$/u))
    }
  )
})
