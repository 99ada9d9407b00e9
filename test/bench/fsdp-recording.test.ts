// What is read from a recording of DDP and FSDP2: which steps, which medians, and the table of collectives.
import { expect, it } from "vitest"
import {
  addedInTurns,
  collectivesCsv,
  congestionOf,
  fewSeconds,
  fsdpSecondsPerCall,
  hasSockets,
  hasTurns,
  hostSeconds,
  peakBytesOf,
  secondsOf,
  slowdownBeside,
  slowerSeconds,
  sourceOf,
  stepsOf,
  turnsOf,
  waitedSecondsOf,
  type RecordedSteps,
  type RecordedTurn,
  type Recording
} from "../../bench/measured/fsdp-recording.ts"

const local = (processes: number, seconds: number): RecordedSteps => ({
  what: "steps",
  link: "none",
  model: "gpt2",
  mode: "local",
  processes,
  ranks: Array.from({ length: processes }, () => ({ seconds: [seconds] }))
})

const ddp: RecordedSteps = {
  what: "steps",
  link: "nvlink",
  model: "gpt2",
  mode: "ddp",
  ranks: [
    { seconds: [9, 1, 3, 2], synchronized_seconds: [5, 4, 8], peak_bytes: 70 },
    { seconds: [4, 4, 4, 5], synchronized_seconds: [], peak_bytes: 80 }
  ]
}

const beside = (alone: number, at: number | null) => ({ alone_seconds: alone, beside_seconds: at })

const recording: Recording = {
  date: "2026-11",
  described: { sockets: [{ tcp: { tcp_congestion_control: ["cubic"] } }] },
  parts: [
    local(1, 40),
    local(2, 44),
    ddp,
    { what: "beside", link: "nvlink", ranks: [{ product: beside(1, 9), copy: beside(1, 9) }] },
    { what: "beside", link: "10gbit", ranks: [{ product: beside(2, 3), copy: beside(1, null) }] },
    {
      what: "collectives",
      link: "unshaped",
      rows: [
        {
          op: "all_reduce",
          bytes: 4096,
          ranks: [{ blocking_seconds: [3, 1, 2], queued_seconds: 0.5 }, { blocking_seconds: [4] }]
        },
        { op: "all_gather", bytes: 8192, ranks: [{ blocking_seconds: [0.25] }] }
      ]
    }
  ]
}

it("takes the median of steps and the mean of ranks", () => {
  expect(secondsOf(ddp)).toBe((2.5 + 4) / 2)
  expect(waitedSecondsOf(ddp)).toBe(5)
  expect(waitedSecondsOf(local(1, 1))).toBeUndefined()
  expect(peakBytesOf(ddp)).toBe(80)
})

it("takes steps of both processes at once, of few tokens or many, without DDP's first ten", () => {
  const few: RecordedSteps = { ...local(2, 30), few: true }
  const early: RecordedSteps = { ...ddp, early: true, processes: 2 }
  const all: Recording = { ...recording, parts: [local(1, 40), few, local(2, 44), early, ddp, few] }
  expect(stepsOf(all, { model: "gpt2", mode: "local", few: false })).toEqual([local(2, 44)])
  expect(stepsOf(all, { model: "gpt2", mode: "local", few: true })).toEqual([few, few])
  expect(stepsOf(all, { model: "gpt2", mode: "ddp", few: false, link: "nvlink" })).toEqual([ddp])
  expect(stepsOf(all, { model: "gpt2", mode: "ddp", few: false, link: "10gbit" })).toEqual([])
  expect(stepsOf(all, { model: "llama1b", mode: "local", few: false })).toEqual([])
})

it("takes the longer of each pair of two ranks' steps where they wait for each other", () => {
  const of = (...ranks: ReadonlyArray<ReadonlyArray<number>>): RecordedSteps => ({
    ...local(2, 0),
    ranks: ranks.map((seconds) => ({ seconds }))
  })
  // Pairs: 1 2, 1 6, 5 2, 5 6.
  expect(slowerSeconds([of([1, 5], [2, 6])])).toBe((2 + 6 + 5 + 6) / 4)
  // One rank is always the slower one: its mean.
  expect(slowerSeconds([of([1, 2], [10, 20])])).toBe(15)
  expect(slowerSeconds([of([1], [2]), of([4], [3])])).toBe(3)
})

it("takes kernels beside collectives over NVLink, or over sockets, where both were timed", () => {
  expect(slowdownBeside(recording, "10gbit")).toBe(1.5)
  expect(slowdownBeside(recording, "3gbit")).toBe(1.5)
  expect(slowdownBeside(recording, "nvlink")).toBe(9)
  expect(slowdownBeside({ ...recording, parts: [] }, "10gbit")).toBeUndefined()
})

it("writes collectives as a table: calls in a row where recorded, else the median that was waited for", () => {
  expect(collectivesCsv(recording, "unshaped")).toBe(
    "op,ranks,bytes,median_seconds,link\nall_reduce,2,4096,2.25,unshaped\nall_gather,1,8192,0.25,unshaped\n"
  )
  expect(collectivesCsv(recording, "nvlink")).toBeUndefined()
  expect(congestionOf(recording)).toBe("cubic")
  expect(congestionOf({ date: "", parts: [] })).toBe("tcp")
})

// Recorded with `--links ""`: nothing is told of what was not there.
it("says what was recorded: of NVLink alone no word of sockets, and of turns where there are some", () => {
  const described = { nvlink: [{ torch: "2.11", nccl: "2.28", device: "NVIDIA H200" }] }
  const alone: Recording = { date: "2026-11", described, parts: [local(2, 44), ddp] }
  expect([hasSockets(alone), hasTurns(alone)]).toEqual([false, false])
  expect(sourceOf(alone)).toMatch(/^[^;]*, 2026-11: two NVIDIA H200 [^;]*, PyTorch 2\.11, NCCL 2\.28: /u)
  expect(sourceOf(alone)).not.toMatch(/TCP|sockets|rounds/u)
  const sockets: Recording = { ...recording, parts: [...recording.parts, { ...ddp, link: "10gbit" }] }
  expect(hasSockets(sockets)).toBe(true)
  expect(sourceOf(sockets)).toMatch(/, TCP cubic: .*; sockets between network namespaces/u)
  const turn: RecordedTurn = { ...ddp, what: "turn", round: 0 }
  expect(hasTurns({ ...alone, parts: [turn] })).toBe(true)
  expect(sourceOf({ ...alone, parts: [ddp, turn] })).toMatch(/in each of several rounds/u)
})

it("takes what FSDP2 adds from steps of the same round, however fast the host was in it", () => {
  const turn = (
    round: number,
    mode: "local16" | "fsdp",
    few: boolean,
    ...ranks: ReadonlyArray<number>
  ): RecordedTurn => ({
    what: "turn",
    round,
    link: mode === "fsdp" ? "nvlink" : "none",
    model: "gpt2",
    mode,
    few,
    ranks: ranks.map((seconds) => ({ seconds: [seconds] }))
  })
  const parts = [
    turn(1, "fsdp", true, 90, 90),
    turn(1, "local16", true, 45, 60),
    turn(1, "fsdp", false, 95, 95),
    turn(0, "local16", true, 40, 30),
    turn(0, "fsdp", true, 66, 66),
    turn(0, "fsdp", false, 70, 70),
    turn(2, "local16", true, 41, 41),
    turn(2, "fsdp", true, 69, 69),
    // whose local steps were lost
    turn(3, "fsdp", true, 500, 500)
  ]
  const all: Recording = { ...recording, parts }
  expect(turnsOf(all, { model: "gpt2", mode: "fsdp", few: false }).map(({ round }) => round)).toEqual([0, 1])
  // 66 - 40, 90 - 60 and 69 - 41: the slower of two hosts each time
  expect(addedInTurns(all, "gpt2", "fsdp")).toBe(28)
  expect(addedInTurns(all, "gpt2", "ddp")).toBeUndefined()
  expect(addedInTurns(all, "llama1b", "fsdp")).toBeUndefined()
  // 60, 40 and 41: the slower of two hosts, the median of rounds
  expect(hostSeconds(all, "gpt2", "local16")).toBe(41)
  expect(fewSeconds(all, "gpt2", "fsdp")).toBe(41 + 28)
  expect(fsdpSecondsPerCall(all, "gpt2", 7)).toBe(4)
})

it("takes what FSDP2 adds from all steps of few tokens where there are no turns, and never less than nothing", () => {
  const few = (mode: "local16" | "fsdp", ...ranks: ReadonlyArray<number>): RecordedSteps => ({
    ...local(2, 0),
    mode,
    link: mode === "fsdp" ? "nvlink" : "none",
    few: true,
    ranks: ranks.map((seconds) => ({ seconds: [seconds] }))
  })
  const alone = [few("local16", 30, 40), few("local16", 36, 20)]
  const all = (fsdp: number): Recording => ({ ...recording, parts: [...alone, few("fsdp", fsdp, fsdp)] })
  expect(hostSeconds(all(68), "gpt2", "local16")).toBe(38)
  expect(fewSeconds(all(68), "gpt2", "fsdp")).toBe(68)
  expect(fsdpSecondsPerCall(all(68), "gpt2", 10)).toBe(3)
  expect(fsdpSecondsPerCall(all(30), "gpt2", 10)).toBe(0)
})
