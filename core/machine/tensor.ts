// Typed handles to memory of one rank. A handle has a shape and a place; whether data stands behind it is the
// machine's business. Knows nothing of ops, lanes or time.

/** `mxfp4`: four bits and, for each 32 numbers, a scale of eight (OCP Microscaling). */
export type Dtype = "float32" | "bfloat16" | "float16" | "float8" | "float4" | "mxfp4" | "int8" | "int32"

/** Bits of one element. */
export const dtypeBits: Readonly<Record<Dtype, number>> = {
  float32: 32,
  bfloat16: 16,
  float16: 16,
  float8: 8,
  float4: 4,
  mxfp4: 4.25,
  int8: 8,
  int32: 32
}

/** Which memory of its rank a tensor lives in. */
export type Place = "device" | "host"

/** What a tensor or an op is to its program, as data: {kind: "prompt", request: 3}. The program that makes it says which there are. */
export type Role = Readonly<Record<string, string | number>> & { readonly kind: string }

export interface TensorSpec {
  /** For people: whoever must tell what a tensor is looks at its role. */
  readonly name: string
  readonly shape: ReadonlyArray<number>
  readonly dtype: Dtype
  /** Of tensors that somebody beside the program must know: who gives their values from outside, who checks a schedule. */
  readonly role?: Role | undefined
  /** Default "device". */
  readonly place?: Place
  /** Lie in another tensor's memory instead of in memory of its own. What it holds at first is what lies there. */
  readonly within?: Within | undefined
  /** What it holds at first; zeros by default. Asked for by machines that carry values, and by no others. */
  readonly initial?: Initial | undefined
  /**
   * Outlives a step: whoever goes on from the end of one must find its values again. `copyOf`: these are another persistent
   * tensor's, rounded to its own dtype. Persistent tensors of a rank have names of their own.
   */
  readonly persistent?: true | { readonly copyOf: Tensor } | undefined
}

/**
 * Values that the host has, or kernels that make them where they lie, over zeros and one after the other. Either is there when
 * the tensor is: before time zero, for all that a program makes before it first waits.
 */
export type Initial = (() => TensorData) | ReadonlyArray<Drawn>

/** A launch of a kernel of core/kernels/initial-values.ts. */
export interface Drawn {
  readonly kernel: "normal_values" | "uniform_values" | "constant_values"
  readonly attributes: Readonly<Record<string, number>>
}

/**
 * A place in an arena, a tensor that is no view itself. Tensors in an arena may overlap: ops that name any of them keep the
 * order in which they were submitted, and what one writes the others no longer hold.
 */
export interface Within {
  readonly arena: Tensor
  /** A multiple of `viewAlignment`, counted in the arena's own dtype. */
  readonly offsetBytes: number
}

/** Bytes that offsets in an arena are multiples of: what vector loads and a GPU's products want. */
export const viewAlignment = 256

/** A handle; made by `Machine.alloc` and meaningful only to the machine that made it. */
export interface Tensor {
  /** Dense per rank, in order of allocation; never reused. */
  readonly id: number
  readonly name: string
  readonly shape: ReadonlyArray<number>
  readonly dtype: Dtype
  readonly place: Place
  readonly elements: number
  readonly sizeBytes: number
  readonly role?: Role | undefined
  /** Where it lies in another tensor's memory; it counts for nothing itself then. */
  readonly within?: Within | undefined
}

/** Bytes of its own that a tensor takes. */
export const ownBytes = ({ within, sizeBytes }: Tensor): number => (within === undefined ? sizeBytes : 0)

/**
 * Values behind a tensor: float dtypes are held as float32 rounded to the dtype, integer dtypes as int32. Machines never
 * make Float64Arrays; the reference kernels take them too, so that tests can difference them.
 */
export type TensorData = Float32Array | Float64Array | Int32Array

/** Number of elements of a shape; the empty shape is a scalar. */
export const elementsOf = (shape: ReadonlyArray<number>): number => {
  let elements = 1
  for (const extent of shape) elements *= extent
  return elements
}

/** Bytes of `elements` of `dtype`, sub-byte dtypes packed and rounded up to whole bytes. */
export const sizeBytesOf = (elements: number, dtype: Dtype): number =>
  Math.ceil((elements * dtypeBits[dtype]) / 8)

/** The tensor that is made of a spec, as whichever machine's `id`th. Looks at nothing that a machine may refuse. */
export const tensorOf = (id: number, spec: TensorSpec): Tensor => {
  const { name, shape, dtype, role, within, place = within?.arena.place ?? "device" } = spec
  const elements = elementsOf(shape)
  const plain = { id, name, shape, dtype, place, elements, sizeBytes: sizeBytesOf(elements, dtype) }
  const own = role === undefined ? plain : { ...plain, role }
  return within === undefined ? own : { ...own, within }
}
