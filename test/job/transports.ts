// The transports that tests of jobs run over: TCP, memory (what "auto" is on one host), and UCX where it is there. Without it its tests are left out and it is said so, or
// fail with TANDEM_REQUIRE_UCX=1.
import type { TransportWish } from "../../exec/job/meeting.ts"
import { ucxInfo } from "../../exec/native.ts"

const ucx = ucxInfo()
const required = (process.env["TANDEM_REQUIRE_UCX"] ?? "") !== ""
if ("missing" in ucx && !required) process.stderr.write(`no tests over UCX: ${ucx.missing}\n`)

export const transports: ReadonlyArray<TransportWish> =
  "missing" in ucx && !required ? ["tcp", "auto"] : ["tcp", "auto", "ucx"]

/** What a member of a job does until somebody is killed: says nothing, or, over anything but TCP, moves tensors without an end. */
export const untilCut = (transport: TransportWish): string => (transport === "tcp" ? "wait" : "moving")
