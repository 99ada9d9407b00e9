// Calls whose attributes may come with the launch, and a few launches of each.
import { kernels, type KernelName } from "../../../core/kernels/catalogue.ts"
import type { Tensor } from "../../../core/machine/tensor.ts"
import type { NativeRank } from "../../../exec/native.ts"
import { tensorOn } from "../addon.ts"

interface ScalarLaunches {
  readonly kernel: KernelName
  readonly shapes: ReadonlyArray<ReadonlyArray<number>>
  readonly written: ReadonlyArray<number>
  readonly attributes: Readonly<Record<string, number | boolean | string>>
  readonly scalars: ReadonlyArray<ReadonlyArray<number>>
  /** What is in inputs that cannot hold just anything, by place. */
  readonly held?: Readonly<Record<number, ReadonlyArray<number>>>
}

/** One of each kernel that takes any. */
export const scalarLaunches: ReadonlyArray<ScalarLaunches> = [
  {
    kernel: "adamw",
    shapes: [[9], [9], [9], [9]],
    written: [0, 2, 3],
    attributes: {},
    scalars: [
      [0.1, 1],
      [0.05, 2],
      [0.01, 3]
    ]
  },
  {
    kernel: "sgd",
    shapes: [[9], [9], [9]],
    written: [0, 2],
    attributes: { momentum: 0.9, dampening: 0.5 },
    scalars: [
      [0.1, 1],
      [0.05, 2]
    ]
  },
  {
    kernel: "outer_nesterov",
    shapes: [[9], [9], [9]],
    written: [0, 1],
    attributes: {},
    scalars: [[0.7], [0.1]]
  },
  { kernel: "scale", shapes: [[9]], written: [0], attributes: {}, scalars: [[2], [0.5], [-1]] },
  { kernel: "lerp", shapes: [[9], [9]], written: [0], attributes: {}, scalars: [[0.25], [0.5]] },
  {
    kernel: "rope.forward",
    shapes: [[1, 3, 8]],
    written: [0],
    attributes: { headWidth: 4 },
    scalars: [[5], [17]]
  },
  {
    kernel: "rope.backward",
    shapes: [[1, 3, 8]],
    written: [0],
    attributes: { headWidth: 4 },
    scalars: [[5], [17]]
  },
  {
    kernel: "position_add.forward",
    shapes: [
      [1, 2, 3],
      [9, 3]
    ],
    written: [0],
    attributes: {},
    scalars: [[0], [7]]
  },
  {
    kernel: "position_add.backward_weight",
    shapes: [
      [1, 2, 3],
      [9, 3]
    ],
    written: [1],
    attributes: { positions: 9, accumulate: true },
    scalars: [[0], [7]]
  },
  {
    kernel: "random_normal",
    shapes: [],
    written: [],
    attributes: { rows: 3, width: 3 },
    scalars: [[7], [8]]
  },
  {
    kernel: "token_windows",
    shapes: [[50]],
    written: [],
    attributes: { batch: 2, time: 3, seed: 5 },
    scalars: [[0], [1]]
  },
  {
    kernel: "expert_ffn.forward",
    shapes: [
      [6, 2],
      [9, 2],
      [6, 6],
      [6, 2]
    ],
    written: [2, 3],
    attributes: {},
    scalars: [
      [0, 2],
      [2, 3]
    ]
  },
  {
    kernel: "kv.attention",
    shapes: [
      [2, 4],
      [1, 2],
      [2, 3, 2],
      [2, 3, 2]
    ],
    written: [],
    attributes: { heads: 2, kvHeads: 1, headWidth: 2 },
    // what the rows, 0 and 1, come to: others are a fault
    scalars: [
      [3, 2],
      [3, 2]
    ]
  },
  {
    kernel: "kv.evict",
    shapes: [[2, 4], [1, 2], [1, 2], [2], [2, 5, 2], [2, 5, 2]],
    // Rows 4 and 3 of them, of which half of four stay: both have one too many, in the second launch as in the first.
    held: { 1: [3, 2], 2: [0, 0], 3: [4, 4] },
    written: [4, 5],
    attributes: { heads: 2, kvHeads: 1, headWidth: 2, keep: 0.5 },
    scalars: [
      [2, 7, 4],
      [2, 7, 4]
    ]
  }
]

/** Its inputs, with values. */
export const tensorsOf = (
  rank: NativeRank,
  { kernel, shapes, held }: ScalarLaunches
): ReadonlyArray<Tensor> =>
  shapes.map((shape, index) => {
    const dtype = kernels[kernel].inputDtypes[index] ?? "float32"
    const tensor = tensorOn(rank, shape, dtype)
    const value = (i: number) => (dtype === "int32" ? i % 7 : Math.abs(Math.sin(i + index)))
    const values = held?.[index] ?? Array.from({ length: tensor.elements }, (_, i) => value(i))
    rank.write(tensor, dtype === "int32" ? Int32Array.from(values) : Float32Array.from(values))
    return tensor
  })
