// From where on a profile says that a number of it is known no better.
import { expect, it } from "vitest"
import {
  collectiveWarnings,
  companyWarnings,
  readWarnings,
  stepWarnings
} from "../../exec/profile-warnings.ts"

it("steps that differ from part to part by more than a fifth are told", () => {
  expect(stepWarnings([0.01])).toEqual([])
  expect(stepWarnings([0.01, 0.011, 0.012])).toEqual([])
  const [told] = stepWarnings([0.0101, 0.0089, 0.0112])
  expect(told).toMatch(/^a step took 8\.90 ms to 11\.2 ms in 3 parts of the run/u)
})

const company = { collectives: undefined, waits: [] }
const field = "collectives.slowdown"

it("a slowdown is told with its steps' own where these differ, and why there is none", () => {
  expect(companyWarnings(undefined, field)).toEqual([])
  expect(companyWarnings({ ...company, kernels: 1.3, kernelsOfShares: [1.25, 1.35] }, field)).toEqual([])
  expect(companyWarnings({ ...company, kernels: undefined, kernelsOfShares: [] }, field)).toEqual([])
  expect(companyWarnings({ ...company, kernels: 2.5, kernelsOfShares: [1.66, 2, 6.21] }, field)).toEqual([
    "collectives.slowdown was 1.66 to 6.21 in 3 shares of the steps beside collectives: it is known no better than that"
  ])
  const [upwards] = companyWarnings({ ...company, kernels: 9, kernelsOfShares: [2, Infinity] }, field)
  expect(upwards).toContain("was 2.00 upwards")
  const [none] = companyWarnings({ ...company, kernels: undefined, kernelsOfShares: [3, Infinity] }, field)
  expect(none).toMatch(/^no collectives\.slowdown is told/u)
})

it("a read that was told by steps that nobody timed says for how many ops between two reads it holds", () => {
  const recording = { ops: 136, submittingSeconds: 240e-6 }
  const [told, ...more] = readWarnings({ readSeconds: 607e-6 }, recording)
  expect(more).toEqual([])
  expect(told).toMatch(
    /^a read takes the host 607 us with 136 ops between two reads, which take 240 us to submit/u
  )
  // From a timeline alone, or of a program that does not read.
  expect(readWarnings({ readSeconds: 607e-6 }, undefined)).toEqual([])
  expect(readWarnings({}, recording)).toEqual([])
  expect(readWarnings(undefined, recording)).toEqual([])
})

it("collectives of which a few were held up are told where they are much of the time", () => {
  const alike = {
    op: "all_to_all",
    ranks: 2,
    sizeBytes: 80e6,
    seconds: [0.0275, 0.028, 0.029, 0.0275]
  } as const
  const heldUp = { ...alike, op: "all_gather", seconds: [0.028, 0.028, 0.116, 0.029] } as const
  const small = { ...alike, op: "all_reduce", sizeBytes: 4096, seconds: [1e-4, 1e-4, 9e-4, 1e-4] } as const
  expect(collectiveWarnings([])).toEqual([])
  expect(collectiveWarnings([alike, small])).toEqual([])
  expect(collectiveWarnings([alike, heldUp, small])).toEqual([
    "all_gather of 2 ranks, 80.0 MB, took 50.3 ms in the mean of 4, which the profile has, and 28.5 ms in the median: something held some of them up, 116 ms at most"
  ])
})
