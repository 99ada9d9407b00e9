// Who carries nothing out hands a program the same tensors as a machine that does: a planner then sees what will run.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { collectingMachine } from "../../core/machine/collecting.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { onPaper } from "../../core/machine/paper.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { flatWorld, run } from "../simulate/simulated.ts"

/** What a program's tensors are, on whichever machine `carriedOut` puts it. */
const tensorsOn = (carriedOut: (program: Program<void>) => unknown): ReadonlyArray<Tensor> => {
  const made: Array<Tensor> = []
  carriedOut(
    Effect.gen(function* () {
      const { alloc } = yield* Machine
      made.push(yield* alloc({ name: "plain", shape: [3, 5], dtype: "bfloat16" }))
      const arena = yield* alloc({ name: "arena", shape: [512], dtype: "int8", place: "host" })
      const within = { arena, offsetBytes: 256 }
      made.push(arena, yield* alloc({ name: "view", shape: [7], dtype: "float32", within }))
      made.push(
        yield* alloc({ name: "told", shape: [], dtype: "int32", role: { kind: "prompt", request: 3 } })
      )
    })
  )
  return made
}

it("a tensor is the same on a machine, on paper and where ops are only collected", () => {
  const simulated = tensorsOn((program) => run({ world: flatWorld(1), program }))
  expect(simulated.map(({ place }) => place)).toEqual(["device", "host", "host", "device"])
  const onPaperAlone = tensorsOn((program) => onPaper(program, { world: flatWorld(1), seconds: () => 0 }))
  const collected = tensorsOn((program) =>
    Effect.runSync(Effect.provideService(program, Machine, collectingMachine([])))
  )
  expect(onPaperAlone).toEqual(simulated)
  expect(collected).toEqual(simulated)
})
