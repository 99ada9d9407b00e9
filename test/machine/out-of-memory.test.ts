// What is said where memory does not suffice.
import { expect, it } from "vitest"
import { OutOfMemory } from "../../core/machine/machine.ts"

it("names no free bytes of a memory without bounds, which holds all but what is beyond counting", () => {
  const error = new OutOfMemory({
    rank: 0,
    place: "device",
    tensor: "activations",
    neededBytes: 2 ** 54,
    freeBytes: Infinity,
    capacityBytes: Infinity
  })
  expect(error.message).toBe(
    'rank 0: tensor "activations" needs 18014398509481984 B of device memory; no memory holds as much'
  )
})

it("counts whole bytes, of a memory too that ranks share to a part of one", () => {
  const error = new OutOfMemory({
    rank: 158,
    place: "device",
    tensor: "output",
    neededBytes: 64_000_000,
    freeBytes: 25_212_514.304,
    capacityBytes: 25_276_514.304
  })
  expect(error.message).toBe(
    'rank 158: tensor "output" needs 64000000 B of device memory; 25212514 of 25276514 B are free'
  )
})
