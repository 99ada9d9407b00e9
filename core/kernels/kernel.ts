// What it means to be a kernel: one declaration (attributes, shape rule, cost, clear reference), many implementations.
// The catalogue's entries live beside this file, one file per family. Knows nothing of machines, lanes or time.
import { elementsOf, sizeBytesOf, type Dtype, type TensorData } from "../machine/tensor.ts"
import type { Expansion } from "./composite.ts"
import type { Measure, Part, Sizes } from "./measure.ts"
import { round } from "./rounding.ts"
import { areSame, bind, outputShapes, parseSignature, printShape, type Bindings } from "./signature.ts"

export type AttributeValue = number | string | boolean

/** Numbers, strings and flags that select what a kernel computes; kept flat so that they can key a profile's table. */
export type Attributes = Readonly<Record<string, AttributeValue>>

/** Declaration of one attribute; without a fallback it must be given. */
export interface Attribute<T extends AttributeValue = AttributeValue> {
  readonly type: "number" | "string" | "boolean"
  readonly fallback: T | undefined
}

/** A number of a kernel; without a fallback every op must say it. */
export const number = (fallback?: number): Attribute<number> => ({ type: "number", fallback })
/** A word of a kernel; without a fallback every op must say it. */
export const text = (fallback?: string): Attribute<string> => ({ type: "string", fallback })
/** A yes or no of a kernel; without a fallback every op must say it. */
export const flag = (fallback?: boolean): Attribute<boolean> => ({ type: "boolean", fallback })

type AttributeSchema = Readonly<Record<string, Attribute>>
export type Values<S extends AttributeSchema> = {
  readonly [K in keyof S]: S[K] extends Attribute<infer T> ? T : never
}

/** Names of a schema's number attributes. */
type NumberName<S extends AttributeSchema> = {
  [K in keyof S & string]: S[K] extends Attribute<number> ? K : never
}[keyof S & string]

/** Work of one launch, from which a roofline estimate follows when nothing was measured. */
export interface Work {
  readonly flops: number
  readonly readBytes: number
  readonly writtenBytes: number
}

export type Shape = ReadonlyArray<number>

/** The part of a tensor that shape rules and costs may look at; a `Tensor` is one. */
export interface Operand {
  readonly shape: Shape
  readonly dtype: Dtype
  readonly elements: number
  readonly sizeBytes: number
}

/** An operand from its shape and dtype. */
export const operand = (shape: Shape, dtype: Dtype): Operand => {
  const elements = elementsOf(shape)
  return { shape, dtype, elements, sizeBytes: sizeBytesOf(elements, dtype) }
}

interface CallShapes {
  readonly inputs: ReadonlyArray<Shape>
  readonly outputs: ReadonlyArray<Shape>
  /** Where missing, nothing that a reference stores and reads again is rounded on the way. */
  readonly outputDtypes?: ReadonlyArray<Dtype>
}

/**
 * One unit of device work. `copy` kernels move bytes between places of one rank; `collective` kernels move bytes
 * between ranks and have no per-rank reference: see `Collective` in core/kernels/collectives.ts.
 */
export interface Kernel<Name extends string = string> {
  readonly name: Name
  readonly kind: "compute" | "copy" | "collective"
  /** The shape rule as a person reads it: operands in order, with their extents. */
  readonly signature: string
  readonly attributes: AttributeSchema
  /**
   * Number attributes whose values a program may leave out of an op and give at each launch instead (`Machine.submit`), in
   * the order in which it gives them: the step, a learning rate, a position. So one op serves all steps. See scalars.ts.
   */
  readonly scalars: ReadonlyArray<string>
  /** `work` depends on a scalar: then each launch has a cost of its own. Elsewhere all launches of an op cost the same. */
  readonly costFollowsScalars: boolean
  /** Dtypes that inputs or outputs must have, by position; undefined or beyond the end: any. */
  readonly inputDtypes: ReadonlyArray<Dtype | undefined>
  readonly outputDtypes: ReadonlyArray<Dtype | undefined>
  /**
   * Of a kernel that updates parameters: of each output how far one launch moves an element at most, however small what it is
   * moved by, for an update that divides a gradient by the gradient's own size; one that is all rounding moves it as far as any
   * other. 0 for an update that is as small as its gradient; undefined for an output that is no parameter. Scalars are given.
   */
  readonly swing?: ((attributes: Attributes) => ReadonlyArray<number | undefined>) | undefined
  /** Outputs are inputs, moved from place to place or mixed: they are as far apart on two machines as these were, and no further. */
  readonly moves?: boolean | undefined
  /**
   * Of a kernel that chooses by scores, its first input: positions of the scores that `choice` took, which is what it leaves as integers.
   * Scores that lie as close to each other as rounding let two machines take different ones.
   */
  readonly taken?:
    | ((
        inputs: ReadonlyArray<Operand>,
        attributes: Attributes,
        choice: TensorData,
        scores: TensorData
      ) => ReadonlyArray<number>)
    | undefined
  /**
   * Of one whose choice is in order, largest score first, list by list along its last extent: computes all other outputs of the scores and
   * of a choice that is made.
   */
  readonly settle?: Kernel["reference"]
  /** Outputs that may take the memory of an input, by position. Others must not overlap what the kernel reads. */
  readonly inPlace?: ReadonlyArray<readonly [input: number, output: number]>
  /** Of a kernel made of others: what they are, for backends that have no kernel of its own (composite.ts). */
  readonly expand?: (
    inputs: ReadonlyArray<Operand>,
    outputs: ReadonlyArray<Operand>,
    attributes: Attributes
  ) => Expansion
  /**
   * Shapes of the outputs, given the inputs; undefined when they are the caller's choice. Throws RangeError when the
   * inputs do not fit together, or an attribute is missing, unknown or of the wrong type. Scalars may be missing.
   */
  shapes(inputs: ReadonlyArray<Operand>, attributes: Attributes): ReadonlyArray<Shape> | undefined
  /**
   * Floating-point operations (an add, multiply, divide, comparison, square root or exponential counts one; matrix
   * products count two per multiply-add) and the bytes that must cross memory once. Scalars may be missing unless
   * `costFollowsScalars`; so they may for `sizes` and `parts`.
   */
  work(inputs: ReadonlyArray<Operand>, outputs: ReadonlyArray<Operand>, attributes: Attributes): Work
  /** Which kind of measurement its cost is: rows of a table with its name have that kind's sizes. */
  readonly measure: Measure
  /** The sizes that its cost depends on, those of its `measure`. */
  sizes(inputs: ReadonlyArray<Operand>, outputs: ReadonlyArray<Operand>, attributes: Attributes): Sizes
  /**
   * For a launch of several pieces, each of which may have been measured by itself: what they are. A table's rows with the
   * kernel's own name come before them.
   */
  parts?(
    inputs: ReadonlyArray<Operand>,
    outputs: ReadonlyArray<Operand>,
    attributes: Attributes
  ): ReadonlyArray<Part>
  /**
   * Clear, slow, float64-accumulating definition of the values. Reads `inputs`, overwrites `outputs`; an operand that
   * is both (in place) appears in both lists as the same array. The outputs are not yet rounded to their dtype: that is
   * `evaluate` in core/kernels/evaluate.ts. Absent for kernels whose values only a profile or a trace can give.
   */
  readonly reference?: (
    inputs: ReadonlyArray<TensorData>,
    outputs: ReadonlyArray<TensorData>,
    attributes: Attributes,
    shapes: CallShapes
  ) => void
}

/** What the parts of a declaration see of a call: resolved attributes and bound extents. */
export interface Call<S extends AttributeSchema> {
  readonly a: Values<S>
  /** Extent bound to a name of the signature. */
  dim(name: string): number
  /** Product of the extents that `...` stands for; 1 where there are none. */
  readonly rows: number
  /** Shapes of the inputs, for rules that no signature can say. */
  readonly shapes: ReadonlyArray<Shape>
  /** Rounding to the grid of the output of that position, for what a kernel stores there and reads again. */
  stored(output: number): (x: number) => number
}

/** A declaration has checked that the operands its signature names are there: destructure as many as it names. */
type Arrays = readonly [TensorData, TensorData, TensorData, TensorData, TensorData, ...TensorData[]]
type Operands = readonly [Operand, Operand, Operand, Operand, Operand, ...Operand[]]

/** What a kernel's declaration says; see `Kernel` for what each comes to. */
export interface Declaration<Name extends string, S extends AttributeSchema> {
  readonly name: Name
  readonly kind?: Kernel["kind"]
  readonly signature: string
  readonly attributes?: S
  /** See `Kernel.scalars`. No shape rule may depend on one, and no cost unless `costFollowsScalars` says so. */
  readonly scalars?: ReadonlyArray<NumberName<S>>
  readonly costFollowsScalars?: boolean
  readonly inputDtypes?: ReadonlyArray<Dtype | undefined>
  readonly outputDtypes?: ReadonlyArray<Dtype | undefined>
  readonly swing?: (a: Values<S>) => ReadonlyArray<number | undefined>
  readonly moves?: boolean
  readonly taken?: (choice: TensorData, scores: TensorData, call: Call<S>) => ReadonlyArray<number>
  readonly settle?: (inputs: Arrays, outputs: Arrays, call: Call<S>) => void
  readonly inPlace?: Kernel["inPlace"]
  /** Extents that attributes fix. */
  readonly extents?: (a: Values<S>) => Readonly<Record<string, number>>
  /** A shape rule that a signature cannot say (any number of operands, say); the signature is then only read by people. */
  readonly shapes?: (inputs: ReadonlyArray<Shape>, a: Values<S>) => ReadonlyArray<Shape>
  readonly flops: (call: Call<S>, inputs: Operands, outputs: Operands) => number
  /** Default: every input once. */
  readonly readBytes?: (call: Call<S>, inputs: Operands, outputs: Operands) => number
  /** Default: every output once. */
  readonly writtenBytes?: (call: Call<S>, inputs: Operands, outputs: Operands) => number
  /** Default: `traffic`, whose sizes follow from the bytes read and written. */
  readonly measure?: Measure
  /** Sizes of the `measure`; to be given with one that is not `traffic`. */
  readonly sizes?: (call: Call<S>, inputs: Operands, outputs: Operands) => Sizes
  readonly parts?: (call: Call<S>, inputs: Operands, outputs: Operands) => ReadonlyArray<Part>
  readonly reference: (inputs: Arrays, outputs: Arrays, call: Call<S>) => void
}

/**
 * Fills in fallbacks, of all attributes that a kernel has; throws RangeError for one that is missing, unknown or of the wrong type.
 * One of `later`, which is given at launch, is not a number where it is missing.
 */
export const attributeResolver = <S extends AttributeSchema>(
  kernel: string,
  schema: S,
  later: ReadonlyArray<string> = []
): ((attributes: Attributes) => Values<S>) => {
  const known = Object.entries(schema).map(([name, { type, fallback }]) => ({
    name,
    type,
    otherwise: fallback ?? (later.includes(name) ? NaN : undefined)
  }))
  const resolve = (attributes: Attributes): Values<S> => {
    const values: Record<string, AttributeValue> = {}
    for (const { name, type, otherwise } of known) {
      const value = attributes[name] ?? otherwise
      if (value === undefined) throw new RangeError(`${kernel}: attribute "${name}" (${type}) is missing`)
      if (typeof value !== type) {
        throw new RangeError(`${kernel}: attribute "${name}" is ${JSON.stringify(value)}; expected a ${type}`)
      }
      values[name] = value
    }
    for (const name in attributes) {
      if (!(name in schema)) {
        const names = Object.keys(schema).join(", ") || "none"
        throw new RangeError(`${kernel}: unknown attribute "${name}"; known: ${names}`)
      }
    }
    return values as Values<S>
  }
  // Of one op all that there is to know is asked at once.
  let last: Attributes | undefined
  let lastValues: Values<S>
  return (attributes) => {
    if (attributes === last) return lastValues
    lastValues = resolve(attributes)
    last = attributes
    return lastValues
  }
}

export const totalBytes = (operands: ReadonlyArray<Operand>): number => {
  let sizeBytes = 0
  for (const one of operands) sizeBytes += one.sizeBytes
  return sizeBytes
}

/** Sizes of a launch that is as long as its bytes take to cross memory. */
export const trafficOf = ({ readBytes, writtenBytes }: Work): Sizes => ({ bytes: readBytes + writtenBytes })

const nothingBound: Bindings = { extents: new Map(), open: [] }

/** Makes a kernel of a declaration whose shape rule is its signature. */
export const defineKernel = <const Name extends string, S extends AttributeSchema = Record<never, Attribute>>(
  declaration: Declaration<Name, S>
): Kernel<Name> => {
  const { name, flops, readBytes, writtenBytes, reference } = declaration
  const scalars: ReadonlyArray<string> = declaration.scalars ?? []
  const signature = parseSignature(declaration.shapes === undefined ? declaration.signature : "->")
  const schema = declaration.attributes ?? ({} as S)
  const resolve = attributeResolver(name, schema)
  const resolveBeforeLaunch = scalars.length === 0 ? resolve : attributeResolver(name, schema, scalars)
  const rule = declaration.shapes
  const bindTo = (shapes: ReadonlyArray<Shape>, a: Values<S>): Bindings =>
    rule === undefined ? bind(name, signature, shapes, declaration.extents?.(a) ?? {}, a) : nothingBound
  const callOf = (
    shapes: ReadonlyArray<Shape>,
    a: Values<S>,
    outputDtypes: ReadonlyArray<Dtype> = []
  ): Call<S> => {
    const { extents, open } = bindTo(shapes, a)
    const dim = (extent: string): number => {
      const value = extents.get(extent)
      if (value === undefined) throw new RangeError(`${name}: nothing binds "${extent}"`)
      return value
    }
    const stored = (output: number) => {
      const dtype = outputDtypes[output]
      return dtype === undefined ? (x: number) => x : round(dtype)
    }
    return { a, dim, rows: extents.get("rows") ?? elementsOf(open), shapes, stored }
  }
  const shapesOf = (inputs: ReadonlyArray<Operand>): ReadonlyArray<Shape> => inputs.map(({ shape }) => shape)
  const work: Kernel["work"] = (inputs, outputs, attributes) => {
    const call = callOf(shapesOf(inputs), resolveBeforeLaunch(attributes))
    const reads = inputs as Operands
    const writes = outputs as Operands
    return {
      flops: flops(call, reads, writes),
      readBytes: readBytes?.(call, reads, writes) ?? totalBytes(inputs),
      writtenBytes: writtenBytes?.(call, reads, writes) ?? totalBytes(outputs)
    }
  }
  const { measure = "traffic", sizes, parts } = declaration
  if (measure !== "traffic" && sizes === undefined)
    throw new RangeError(`${name}: a kernel measured as ${measure} must say its sizes`)
  return {
    name,
    kind: declaration.kind ?? "compute",
    signature: declaration.signature,
    attributes: schema,
    scalars,
    costFollowsScalars: declaration.costFollowsScalars ?? false,
    inputDtypes: declaration.inputDtypes ?? [],
    outputDtypes: declaration.outputDtypes ?? [],
    ...(declaration.inPlace === undefined ? {} : { inPlace: declaration.inPlace }),
    ...(declaration.swing === undefined
      ? {}
      : { swing: (attributes: Attributes) => declaration.swing!(resolve(attributes)) }),
    ...(declaration.moves === undefined ? {} : { moves: declaration.moves }),
    ...(declaration.settle === undefined
      ? {}
      : {
          settle: (inputs, outputs, attributes, shapes) =>
            declaration.settle!(
              inputs as Arrays,
              outputs as Arrays,
              callOf(shapes.inputs, resolve(attributes), shapes.outputDtypes)
            )
        }),
    ...(declaration.taken === undefined
      ? {}
      : {
          taken: (inputs, attributes, choice, scores) =>
            declaration.taken!(choice, scores, callOf(shapesOf(inputs), resolve(attributes)))
        }),
    shapes(inputs, attributes) {
      const a = resolveBeforeLaunch(attributes)
      if (rule !== undefined) return rule(shapesOf(inputs), a)
      return outputShapes(name, signature, bindTo(shapesOf(inputs), a), a)
    },
    work,
    measure,
    sizes(inputs, outputs, attributes) {
      if (sizes === undefined) return trafficOf(work(inputs, outputs, attributes))
      const call = callOf(shapesOf(inputs), resolveBeforeLaunch(attributes))
      return sizes(call, inputs as Operands, outputs as Operands)
    },
    ...(parts === undefined
      ? {}
      : {
          parts: (inputs, outputs, attributes) =>
            parts(
              callOf(shapesOf(inputs), resolveBeforeLaunch(attributes)),
              inputs as Operands,
              outputs as Operands
            )
        }),
    reference: (inputs, outputs, attributes, shapes) =>
      reference(
        inputs as Arrays,
        outputs as Arrays,
        callOf(shapes.inputs, resolve(attributes), shapes.outputDtypes)
      )
  }
}

/**
 * Throws RangeError unless shapes, dtypes and attributes of a call fit its kernel: a broken precondition, so a defect
 * of whoever built the call.
 */
export const checkCall = (
  kernel: Kernel,
  inputs: ReadonlyArray<Operand>,
  outputs: ReadonlyArray<Operand>,
  attributes: Attributes
): void => {
  const shapes = kernel.shapes(inputs, attributes)
  if (shapes !== undefined) {
    if (shapes.length !== outputs.length) {
      throw new RangeError(`${kernel.name}: ${outputs.length} outputs given, ${shapes.length} expected`)
    }
    for (let index = 0; index < shapes.length; index++) {
      const expected = shapes[index]!
      const actual = outputs[index]!.shape
      if (!areSame(actual, expected)) {
        throw new RangeError(
          `${kernel.name}: output ${index} has shape ${printShape(actual)}; expected ${printShape(expected)}`
        )
      }
    }
  }
  checkDtypes(kernel, "input", inputs, kernel.inputDtypes)
  checkDtypes(kernel, "output", outputs, kernel.outputDtypes)
}

const checkDtypes = (
  kernel: Kernel,
  side: string,
  operands: ReadonlyArray<Operand>,
  dtypes: Kernel["inputDtypes"]
): void => {
  for (let index = 0; index < dtypes.length && index < operands.length; index++) {
    const { dtype } = operands[index]!
    const expected = dtypes[index]
    if (expected !== undefined && dtype !== expected) {
      throw new RangeError(`${kernel.name}: ${side} ${index} is ${dtype}; expected ${expected}`)
    }
  }
}
