// Reentrant checkpoints, made up in the shape that a recorded one has: the function's forward pass without autograd, then, inside
// its backward node, its ops again and a backward pass of its own over them. Every expected number is on the page.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import type { Profile } from "../../core/profile.ts"
import { importKineto } from "../../traces/index.ts"
import { ChromeTrace } from "./chrome-trace.ts"

const imported = async (trace: ChromeTrace): Promise<Profile> =>
  (await Effect.runPromise(importKineto(trace.bytes, { file: "t.json" }))).profile

const us = (seconds: number): number => Math.round(seconds * 1e9) / 1e3

/** Busy microseconds by layer, in the order of the layers: [name, forward, backward]. */
const busy = ({ layers }: Profile): ReadonlyArray<readonly [string, number, number]> =>
  layers.map(({ name, forward, backward }) => [name, us(forward.busySeconds), us(backward.busySeconds)])

/** Layer and shape of each parameter. */
const parameters = ({ layers, parameters: all }: Profile): ReadonlyArray<string> =>
  all.map(({ layer, shape }) => `${layers[layer]!.name} ${shape.join("x")}`)

/**
 * A step of two blocks of a linear layer each, both checkpointed, and a loss. Forward passes take 10 us and 20 us, made again
 * 11 and 21 us, their backward passes 30 and 40 us. `input` is the shape of what each block reads.
 */
const checkpointed = (input: ReadonlyArray<number>): ChromeTrace => {
  const trace = new ChromeTrace()
  trace.host("user_annotation", "ProfilerStep#1", 0, 400).module("Net_0", 1, 60)
  for (const block of [0, 1]) {
    const at = 5 + block * 25
    const args = { "Sequence number": 50 + block, "Input Dims": [[], input] }
    trace.op("CheckpointFunction", at, 20, args)
    trace.module(`Block_${block}`, at + 1, 18).module(`Linear_${block}`, at + 2, 16)
    trace.op("aten::linear", at + 3, 10).kernel("gemm", at + 4, 10 + block * 20, 10 + block * 10)
  }
  trace.op("aten::mse_loss", 62, 4, { "Sequence number": 52 }).kernel("loss", 63, 70, 5)
  trace.host("python_function", "torch/_tensor.py(570): backward", 70, 320)
  trace.node("MseLossBackward0", 52, 72, 5).kernel("loss_backward", 73, 80, 5, 2)
  for (const block of [1, 0]) {
    const at = block === 1 ? 90 : 200
    trace.node("CheckpointFunctionBackward", 50 + block, at, 100)
    trace.module(`Block_${block}`, at + 1, 19, 2).module(`Linear_${block}`, at + 2, 16, 2)
    const again = 100 + 10 * (1 - block)
    trace.op("aten::linear", at + 3, 10, { "Sequence number": again }, 2)
    trace.kernel("gemm", at + 4, at + 10, 11 + 10 * block, 2)
    trace.node("AddmmBackward0", again, at + 30, 10)
    trace.kernel("gemm_backward", at + 31, at + 50, 30 + 10 * block, 2)
    trace
      .accumulate([8, 4], at + 42)
      .accumulate([8], at + 44)
      .accumulate(input, at + 46)
  }
  return trace
}

describe("a reentrant checkpoint", () => {
  it("makes layers again that the forward pass had, not new ones behind it", async () => {
    expect(busy(await imported(checkpointed([16, 4])))).toEqual([
      ["Block_0.Linear_0", 10, 41],
      ["Block_1.Linear_1", 20, 61],
      ["loss", 5, 5]
    ])
  })

  it("has no parameter in the gradient of what it reads", async () => {
    const wanted = [
      "Block_1.Linear_1 8x4",
      "Block_1.Linear_1 8",
      "Block_0.Linear_0 8x4",
      "Block_0.Linear_0 8"
    ]
    expect(parameters(await imported(checkpointed([16, 4])))).toEqual(wanted)
    // Nor where that has the shape of a parameter.
    expect(parameters(await imported(checkpointed([8, 4])))).toEqual(wanted)
  })

  it("is a layer of its own where nothing says what it calls", async () => {
    const trace = checkpointed([16, 4])
    const events = trace.events.filter(({ name }) => !String(name).startsWith("nn.Module"))
    trace.events.splice(0, trace.events.length, ...events)
    const profile = await imported(trace)
    expect(busy(profile)).toEqual([
      ["CheckpointFunction", 10, 41],
      ["CheckpointFunction#2", 20, 61],
      ["aten::mse_loss", 5, 5]
    ])
    expect(profile.parameters.map(({ layer }) => layer)).toEqual([1, 1, 0, 0])
  })

  it("keeps its layers where the recording begins behind the forward pass", async () => {
    const trace = checkpointed([16, 4])
    const events = trace.events.filter(({ name, ts }) => name === "ProfilerStep#1" || Number(ts) >= 62)
    trace.events.splice(0, trace.events.length, ...events)
    const profile = await imported(trace)
    expect(profile.unattributedShare).toBe(0)
    expect(busy(profile).toSorted(([a], [b]) => (a < b ? -1 : 1))).toEqual([
      ["Block_0.Linear_0", 0, 41],
      ["Block_1.Linear_1", 0, 61],
      ["loss", 5, 5]
    ])
  })
})
