// What is read from a recording of DDP and FSDP2: which steps, which medians, and the table of collectives.
import { expect, it } from "vitest"
import {
  collectivesCsv,
  congestionOf,
  localSeconds,
  peakBytesOf,
  secondsOf,
  slowdownBeside,
  waitedSecondsOf,
  type RecordedSteps,
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

it("takes the local step with as many processes as train, else what there is", () => {
  expect(localSeconds(recording, "gpt2", 2)).toBe(44)
  expect(localSeconds({ ...recording, parts: [local(1, 40)] }, "gpt2", 2)).toBe(40)
  expect(() => localSeconds(recording, "llama1b", 2)).toThrow("no local steps of llama1b were recorded")
})

it("takes kernels beside collectives over sockets where both were timed", () => {
  expect(slowdownBeside(recording, "10gbit")).toBe(1.5)
  expect(slowdownBeside(recording, "3gbit")).toBe(1.5)
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
