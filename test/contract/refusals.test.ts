// What no machine can carry out is refused by every machine, at the same call, with the same words: tensors freed, foreign or in
// the wrong memory, shapes that are none, ranks outside of their groups, members of a collective that contradict each other.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import type { Dtype, Tensor } from "../../core/machine/tensor.ts"
import type { Group } from "../../core/world.ts"
import { describeContract, failureOn, runOn } from "./machines.ts"

type Service = Machine["Service"]

const vector = (
  machine: Service,
  name: string,
  extents: ReadonlyArray<number> = [4],
  dtype: Dtype = "float32"
) => machine.alloc({ name, shape: extents, dtype })

const copy = (from: Tensor, to: Tensor) => launch("copy", kernels.copy, Lane.compute, [from], [to])

const ofRank = (
  body: (machine: Service) => Effect.Effect<unknown, never, never> | Program<unknown>
): Program<unknown> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    yield* body(machine)
    yield* machine.drain
  })

/** Programs of one rank, the call that refuses them, and what it says. */
const misuses: ReadonlyArray<readonly [name: string, program: Program<unknown>, call: string, says: string]> =
  [
    [
      "a tensor freed twice",
      ofRank((machine) =>
        Effect.map(vector(machine, "x"), (x) => {
          machine.free(x)
          machine.free(x)
        })
      ),
      "free",
      'tensor "x" was freed'
    ],
    [
      "an op on a freed tensor",
      ofRank((machine) =>
        Effect.map(vector(machine, "x"), (x) => {
          machine.free(x)
          machine.submit(copy(x, x))
        })
      ),
      "submit",
      'tensor "x" was freed'
    ],
    [
      "an op that ran before, on a tensor freed since",
      ofRank((machine) =>
        Effect.gen(function* () {
          const [x, y] = [yield* vector(machine, "x"), yield* vector(machine, "y")]
          const op = copy(x, y)
          machine.submit(op)
          machine.submit(op)
          machine.free(y)
          machine.submit(op)
        })
      ),
      "submit",
      'tensor "y" was freed'
    ],
    [
      "a read of a freed tensor",
      ofRank((machine) =>
        Effect.flatMap(vector(machine, "x"), (x) => {
          machine.free(x)
          return machine.read(x)
        })
      ),
      "read",
      'tensor "x" was freed'
    ],
    [
      "whether a freed tensor is ready",
      ofRank((machine) =>
        Effect.map(vector(machine, "x"), (x) => {
          machine.free(x)
          return machine.ready(x)
        })
      ),
      "ready",
      'tensor "x" was freed'
    ],
    [
      "a tensor of no machine",
      ofRank((machine) =>
        Effect.map(vector(machine, "x"), (x) => machine.submit(copy({ ...x, name: "made up" }, x)))
      ),
      "submit",
      'tensor "made up" is not of rank 0'
    ],
    ...[[-1], [2.5], [NaN], [Infinity], [-2, -2]].map(
      (shape) =>
        [
          `a tensor of shape [${shape.join(", ")}]`,
          ofRank((machine) => vector(machine, "x", shape)),
          "alloc",
          `shape [${shape.join(", ")}]; expected whole numbers`
        ] as const
    ),
    [
      "initial values of another number",
      ofRank((machine) =>
        machine.alloc({ name: "x", shape: [4], dtype: "float32", initial: () => new Float32Array(5) })
      ),
      "alloc",
      "5 initial values for 4 elements"
    ],
    [
      "operands that do not fit",
      ofRank((machine) =>
        Effect.gen(function* () {
          machine.submit(copy(yield* vector(machine, "x"), yield* vector(machine, "y", [5])))
        })
      ),
      "submit",
      "copy: output 0 has shape [5]; expected [4]"
    ],
    [
      "an attribute that the kernel has not",
      ofRank((machine) =>
        Effect.map(vector(machine, "x"), (x) =>
          machine.submit(launch("copy", kernels.copy, Lane.compute, [x], [x], { colour: 1 }))
        )
      ),
      "submit",
      'unknown attribute "colour"'
    ],
    [
      "a kernel on host memory",
      ofRank((machine) =>
        Effect.map(machine.alloc({ name: "far", shape: [4], dtype: "float32", place: "host" }), (far) =>
          machine.submit(copy(far, far))
        )
      ),
      "submit",
      'tensor "far" lies in host memory; expected device'
    ],
    [
      "a load from the device",
      ofRank((machine) =>
        Effect.map(vector(machine, "x"), (x) =>
          machine.submit(launch("load", kernels.h2d, Lane.h2d, [x], [x]))
        )
      ),
      "submit",
      'tensor "x" lies in device memory; expected host'
    ],
    ...(
      [
        [[1], "of ranks 1 has not rank 0"],
        [[], "has not rank 0"],
        [[0, 0], "has a rank twice"],
        [[0, 7], "has rank 7, of a world of 1"],
        [[0, -1], "has rank -1"]
      ] as const
    ).map(
      ([ranks, says]) =>
        [
          `a collective of ranks [${ranks.join(", ")}]`,
          ofRank((machine) =>
            Effect.map(vector(machine, "x"), (x) =>
              machine.submit(
                collective("sum", kernels.all_reduce, Lane.inter, { name: "g", ranks }, [x], [x])
              )
            )
          ),
          "submit",
          says
        ] as const
    ),
    [
      "a collective without a group",
      ofRank((machine) =>
        Effect.map(vector(machine, "x"), (x) =>
          machine.submit(launch("sum", kernels.all_reduce, Lane.inter, [x], [x]))
        )
      ),
      "submit",
      "has no group"
    ],
    [
      "a kernel with a group",
      ofRank((machine) =>
        Effect.map(vector(machine, "x"), (x) =>
          machine.submit(collective("copy", kernels.copy, Lane.compute, machine.world.all, [x], [x]))
        )
      ),
      "submit",
      "for copy, which is no collective"
    ]
  ]

describeContract("a program that cannot be", (machine) => {
  it.each(misuses)("is refused: %s", async (_, program, call, says) => {
    const error = await failureOn(machine, 1, program)
    expect(error).toMatchObject({ _tag: "Misuse", rank: 0, call })
    expect(String(error)).toContain(says)
  })

  it.each([[[2 ** 32, 2 ** 32]], [[2 ** 53]]])("has no memory for a tensor of shape %s", async (shape) => {
    const error = await failureOn(
      machine,
      1,
      ofRank((service) => vector(service, "x", shape))
    )
    expect(error).toMatchObject({ _tag: "OutOfMemory", rank: 0, place: "device", tensor: "x" })
    expect(String(error)).toContain("B of device memory; ")
  })

  it.each([-1, 0.5, NaN, Infinity])("is refused: a look-ahead of %s steps", async (lookAhead) => {
    const error = await failureOn(machine, 1, Effect.void, { lookAhead })
    expect(error).toMatchObject({ _tag: "Misuse", call: "lookAhead" })
  })

  it("leaves what was before as it was: a refusal that the program survives changes nothing", async () => {
    const program = Effect.gen(function* () {
      const service = yield* Machine
      const x = yield* service.alloc({
        name: "x",
        shape: [1],
        dtype: "float32",
        initial: () => Float32Array.of(3)
      })
      const before = service.freeBytes("device")
      const refused = yield* Effect.exit(vector(service, "y", [-1]))
      expect(() => service.submit(copy(x, { ...x }))).toThrow(/is not of rank/u)
      expect(service.freeBytes("device")).toBe(before)
      const id = service.submit(copy(x, x))
      return [Exit.isFailure(refused), id, (yield* service.read(x))[0]] as const
    })
    const { ranks } = await runOn(machine, 1, program, { capacityBytes: { device: 100 } })
    expect(ranks[0]!.value).toEqual([true, 0, 3])
  })
})

interface Part {
  readonly kernel?: "all_reduce" | "broadcast" | "all_gather"
  readonly elements?: number
  readonly dtype?: Dtype
  readonly tensors?: number
  readonly attributes?: Record<string, number | string>
  readonly wire?: Dtype
  readonly group?: Group
}

const sizesOf: Readonly<Record<NonNullable<Part["kernel"]>, number>> = {
  all_reduce: 1,
  broadcast: 1,
  all_gather: 2
}

/** Each rank submits its part of one collective. */
const meeting = (parts: readonly [Part, Part]): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const {
      kernel = "all_reduce",
      elements = 4,
      dtype = "float32",
      tensors = 1,
      ...own
    } = parts[machine.rank]!
    const inputs: Array<Tensor> = []
    const outputs: Array<Tensor> = []
    for (let i = 0; i < tensors; i++) {
      inputs.push(yield* vector(machine, `in ${i}`, [elements], dtype))
      outputs.push(yield* vector(machine, `out ${i}`, [elements * sizesOf[kernel]], dtype))
    }
    const { attributes = kernel === "all_gather" ? { ranks: 2 } : {}, wire, group = machine.world.all } = own
    const options = wire === undefined ? { attributes } : { attributes, wire }
    machine.submit(collective("meet", kernels[kernel], Lane.inter, group, inputs, outputs, options))
    yield* machine.drain
  })

describeContract("members of a collective", (machine) => {
  it.each<readonly [string, Part, Part]>([
    ["kernel", { kernel: "all_reduce" }, { kernel: "broadcast" }],
    ["size", { elements: 4 }, { elements: 5 }],
    ["dtype, of as many bytes", { elements: 4 }, { elements: 8, dtype: "bfloat16" }],
    ["number of tensors, of as many bytes", { elements: 4 }, { elements: 2, tensors: 2 }],
    ["reduction", { attributes: { reduce: "sum" } }, { attributes: { reduce: "avg" } }],
    ["wire", { wire: "bfloat16", elements: 4 }, { wire: "float16", elements: 4 }],
    [
      "root",
      { kernel: "broadcast", attributes: { root: 0 } },
      { kernel: "broadcast", attributes: { root: 1 } }
    ],
    [
      "counts",
      { kernel: "all_gather", elements: 4, attributes: { ranks: 2, counts: "4,4", member: 0 } },
      { kernel: "all_gather", elements: 4, attributes: { ranks: 2 } }
    ],
    [
      "ranks behind one name",
      { group: { name: "g", ranks: [0, 1] } },
      { group: { name: "g", ranks: [1, 0] } }
    ]
  ])("are refused where they contradict each other: %s", async (_, one, other) => {
    const error = await failureOn(machine, 2, meeting([one, other]))
    expect(error).toMatchObject({ _tag: "CollectiveMismatch", position: 0 })
    const { submitted, expected } = error as { submitted: string; expected: string }
    expect(submitted).not.toBe(expected)
  })

  it("may leave out what is the default, and have what is each one's own", async () => {
    await runOn(machine, 2, meeting([{ attributes: { reduce: "sum" } }, {}]))
    await runOn(
      machine,
      2,
      meeting([{ kernel: "broadcast" }, { kernel: "broadcast", attributes: { root: 0 } }])
    )
    const gather = (member: number): Part => ({
      kernel: "all_gather",
      attributes: { ranks: 2, counts: "4,4", member }
    })
    await runOn(machine, 2, meeting([gather(0), gather(1)]))
  })

  it("meet by name and ranks: two names over the same ranks are two communicators", async () => {
    const program = Effect.gen(function* () {
      const service = yield* Machine
      const { rank, world } = service
      const x = yield* vector(service, "x")
      const y = yield* vector(service, "y")
      const names = [
        { name: "one", ranks: world.all.ranks, tensor: x, lane: Lane.inter },
        { name: "other", ranks: world.all.ranks, tensor: y, lane: Lane.intra }
      ]
      for (const { tensor, lane, ...group } of rank === 0 ? names : names.toReversed())
        service.submit(collective(group.name, kernels.all_reduce, lane, group, [tensor], [tensor]))
      yield* service.drain
    })
    await runOn(machine, 2, program)
  })

  it("of which one never comes are a deadlock, wherever the others wait", async () => {
    const program = Effect.gen(function* () {
      const service = yield* Machine
      const x = yield* vector(service, "x")
      if (service.rank === 0)
        service.submit(collective("lonely", kernels.all_reduce, Lane.inter, service.world.all, [x], [x]))
      yield* Effect.all([service.read(x), service.drain], { concurrency: "unbounded" })
    })
    const error = await failureOn(machine, 2, program)
    expect(error).toMatchObject({ _tag: "Deadlock" })
    expect(String(error)).toContain('collective 0 of group "world" (lonely): 1 of 2 ranks joined')
    expect(String(error)).toContain('rank 0 waits for tensor "x"')
    expect(String(error)).toContain("rank 0 waits for everything submitted")
  })
})
