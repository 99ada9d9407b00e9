// What carries a job's messages where its ranks are told nothing of it, "auto", and why.
import { spawn } from "node:child_process"
import { expect, it } from "vitest"
import { describeNative } from "../native/addon.ts"
import { startMembers } from "./started.ts"

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
  it("is memory where all ranks read each other's, with UCX or without", async () => {
    const ends = await chosen({ TANDEM_UCX: "/nowhere/libucp.so.0" }, {})
    expect(ends).toEqual(both("memory", /^all ranks read each other's memory$/u))
  })
})
