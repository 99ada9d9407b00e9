// A tensor that lies in another one's memory: the same on every machine, what is refused included.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import type { Dtype, Tensor } from "../../core/machine/tensor.ts"
import { describeContract, failureOn, runOn } from "./machines.ts"

type Service = Machine["Service"]

const arenaOf = (machine: Service, elements: number, dtype: Dtype = "float32") =>
  machine.alloc({ name: "arena", shape: [elements], dtype })

const view = (
  machine: Service,
  arena: Tensor,
  offsetBytes: number,
  elements = 64,
  dtype: Dtype = "float32"
) => machine.alloc({ name: `at ${offsetBytes}`, shape: [elements], dtype, within: { arena, offsetBytes } })

const filled = (machine: Service, value: number) =>
  machine.alloc({
    name: `all ${value}`,
    shape: [64],
    dtype: "float32",
    initial: () => new Float32Array(64).fill(value)
  })

const copy = (from: Tensor, to: Tensor, lane: Lane = Lane.compute) =>
  launch(`copy to ${to.name}`, kernels.copy, lane, [from], [to])

const program = (body: (machine: Service) => Program<unknown>): Program<unknown> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    yield* body(machine)
    yield* machine.drain
  })

const refusals: ReadonlyArray<readonly [name: string, program: Program<unknown>, says: string]> = [
  [
    "a place that reaches beyond its arena",
    program((machine) => Effect.flatMap(arenaOf(machine, 64), (arena) => view(machine, arena, 256))),
    "256 B at 256 of an arena of 256 B"
  ],
  [
    "an offset between places",
    program((machine) => Effect.flatMap(arenaOf(machine, 256), (arena) => view(machine, arena, 4))),
    "expected a multiple of 256"
  ],
  [
    "a negative offset",
    program((machine) => Effect.flatMap(arenaOf(machine, 256), (arena) => view(machine, arena, -256))),
    "expected a multiple of 256"
  ],
  [
    "a dtype narrower than the arena's",
    program((machine) =>
      Effect.flatMap(arenaOf(machine, 256), (arena) => view(machine, arena, 0, 64, "bfloat16"))
    ),
    "is bfloat16, narrower than its arena's float32"
  ],
  [
    "an arena in an arena",
    program((machine) =>
      Effect.flatMap(arenaOf(machine, 256), (arena) =>
        Effect.flatMap(view(machine, arena, 0), (inner) => view(machine, inner, 0))
      )
    ),
    "lies in another tensor itself"
  ],
  [
    "an arena that was freed",
    program((machine) =>
      Effect.flatMap(arenaOf(machine, 256), (arena) => {
        machine.free(arena)
        return view(machine, arena, 0)
      })
    ),
    'tensor "arena" was freed'
  ],
  [
    "to free an arena that something lies in",
    program((machine) =>
      Effect.flatMap(arenaOf(machine, 256), (arena) =>
        Effect.map(view(machine, arena, 0), () => machine.free(arena))
      )
    ),
    "1 tensors still lie in it"
  ],
  [
    "first values for what lies in an arena",
    program((machine) =>
      Effect.flatMap(arenaOf(machine, 256), (arena) =>
        machine.alloc({
          name: "x",
          shape: [1],
          dtype: "float32",
          within: { arena, offsetBytes: 0 },
          initial: () => Float32Array.of(1)
        })
      )
    ),
    "has initial values, and lies in an arena"
  ]
]

describeContract("arenas", (machine) => {
  for (const [name, refused, says] of refusals) {
    it(`refuse ${name}`, async () => {
      const failure = await failureOn(machine, 1, refused)
      expect(failure).toMatchObject({ _tag: "Misuse" })
      expect(String((failure as Error).message)).toContain(says)
    })
  }

  it("count once, whatever lies in them, and are free again", async () => {
    const { ranks } = await runOn(
      machine,
      1,
      program((service) =>
        Effect.gen(function* () {
          const before = service.freeBytes("device")
          const arena = yield* arenaOf(service, 128)
          const left = service.freeBytes("device")
          expect(before - left).toBe(512)
          const [a, b] = [yield* view(service, arena, 0), yield* view(service, arena, 256)]
          expect(service.freeBytes("device")).toBe(left)
          service.free(a)
          service.free(b)
          expect(service.freeBytes("device")).toBe(left)
          service.free(arena)
          expect(service.freeBytes("device")).toBe(before)
        })
      ),
      { capacityBytes: { device: 4096 } }
    )
    expect(ranks[0]!.peakBytes.device).toBe(512)
  })

  it("hold what was written last, in whichever lane", async () => {
    // The second writer is in another lane, where nothing but the arena tells it to wait.
    await runOn(
      machine,
      1,
      program((service) =>
        Effect.gen(function* () {
          const [one, two, out] = [
            yield* filled(service, 1),
            yield* filled(service, 2),
            yield* filled(service, 0)
          ]
          const arena = yield* arenaOf(service, 128)
          const [low, again, high] = [
            yield* view(service, arena, 0),
            yield* view(service, arena, 0),
            yield* view(service, arena, 256)
          ]
          for (let round = 0; round < 20; round++) {
            service.submit(copy(one, low))
            service.submit(copy(one, high))
            service.submit(copy(low, out))
            service.submit(copy(two, again, Lane.inter))
            expect([...(yield* service.read(out))]).toEqual(Array.from({ length: 64 }, () => 1))
            expect([...(yield* service.read(again))]).toEqual(Array.from({ length: 64 }, () => 2))
            expect([...(yield* service.read(high))]).toEqual(Array.from({ length: 64 }, () => 1))
          }
        })
      ),
      { seconds: () => 1e-4 }
    )
  })

  it("hold wider dtypes than their own", async () => {
    await runOn(
      machine,
      1,
      program((service) =>
        Effect.gen(function* () {
          const one = yield* filled(service, 1.001)
          const arena = yield* arenaOf(service, 256, "bfloat16")
          const exact = yield* view(service, arena, 0)
          const rounded = yield* view(service, arena, 256, 64, "bfloat16")
          service.submit(copy(one, exact))
          service.submit(copy(one, rounded))
          expect((yield* service.read(exact))[63]).toBe(Math.fround(1.001))
          expect((yield* service.read(rounded))[63]).toBe(1)
        })
      )
    )
  })
})
