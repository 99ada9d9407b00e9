// A kernel made of other kernels: its parts run in order, and what only passes between them never leaves the chip. Its
// values are its parts', its cost their FLOPs and the bytes of what goes in and comes out. Knows no particular kernel.
import type { TensorData } from "../machine/tensor.ts"
import {
  attributeResolver,
  checkCall,
  operand,
  totalBytes,
  trafficOf,
  type Attribute,
  type Attributes,
  type AttributeValue,
  type Kernel,
  type Operand,
  type Shape
} from "./kernel.ts"
import { countsArithmetic, type Sizes } from "./measure.ts"

/** A kernel inside another. Operands are places among the inputs of the whole, its outputs, then its inner values. */
interface PartCall {
  readonly kernel: Kernel
  readonly attributes: Attributes
  readonly inputs: ReadonlyArray<number>
  readonly outputs: ReadonlyArray<number>
}

/** What a launch of a composite does: its parts in order, and the values that pass between them, unrounded. */
export interface Expansion {
  readonly calls: ReadonlyArray<PartCall>
  readonly inner: ReadonlyArray<Operand>
}

/** A part by the names of its operands. */
export interface Part {
  readonly kernel: Kernel
  readonly inputs: ReadonlyArray<string>
  readonly outputs: ReadonlyArray<string>
  /** Attributes that are always these; all others are the composite's own. */
  readonly fixed?: Attributes
}

interface CompositeDeclaration<Name extends string> {
  readonly name: Name
  readonly parts: ReadonlyArray<Part>
  /** Outer operands in order; one that ends in "?" may be left out. Names that parts use and nobody lists are inner. */
  readonly inputs: ReadonlyArray<string>
  readonly outputs: ReadonlyArray<string>
  /** See `Kernel.inPlace`, by name. */
  readonly inPlace?: ReadonlyArray<readonly [input: string, output: string]>
}

export interface Composite<Name extends string = string> extends Kernel<Name> {
  readonly declaration: CompositeDeclaration<Name>
}

const plainName = (name: string): string => (name.endsWith("?") ? name.slice(0, -1) : name)

/** Attributes of all parts together, but for fixed ones. Parts that call an attribute the same share it. */
const schemaOf = (parts: ReadonlyArray<Part>): Readonly<Record<string, Attribute>> => {
  const schema: Record<string, Attribute> = {}
  for (const { kernel, fixed = {} } of parts)
    for (const [name, attribute] of Object.entries(kernel.attributes))
      if (!(name in fixed)) schema[name] = attribute
  return schema
}

/** The attributes that a part takes of those of the whole. */
const attributesOf = ({ kernel, fixed }: Part, attributes: Attributes): Attributes => {
  const own: Record<string, AttributeValue> = { ...fixed }
  for (const name of Object.keys(kernel.attributes)) {
    const value = attributes[name]
    if (value !== undefined) own[name] = value
  }
  return own
}

/** Shapes of a part's outputs; what does not fit is told in the name of the whole. */
const shapesOf = (
  name: string,
  { kernel }: Part,
  operands: ReadonlyArray<Operand>,
  attributes: Attributes
) => {
  try {
    return kernel.shapes(operands, attributes)
  } catch (error) {
    throw error instanceof RangeError ? new RangeError(`${name}: ${error.message}`) : error
  }
}

interface Whole {
  /** Operands by name: outer ones that are there, and inner ones. */
  readonly values: ReadonlyMap<string, Operand>
  readonly calls: ReadonlyArray<{ readonly part: Part; readonly attributes: Attributes }>
}

/** A composite by its declaration. Throws RangeError where the declaration contradicts itself. */
export const defineComposite = <const Name extends string>(
  declaration: CompositeDeclaration<Name>
): Composite<Name> => {
  const { name, parts } = declaration
  const inputNames = declaration.inputs.map(plainName)
  const required = declaration.inputs.filter((input) => !input.endsWith("?")).length
  const schema = schemaOf(parts)
  const scalars = [
    ...new Set(parts.flatMap(({ kernel, fixed = {} }) => kernel.scalars.filter((one) => !(one in fixed))))
  ]
  const check = attributeResolver(name, schema, scalars)
  const written = new Set(parts.flatMap(({ outputs }) => outputs))
  const lost = declaration.outputs.find((output) => !written.has(output))
  if (lost !== undefined) throw new RangeError(`${name}: no part writes its output "${lost}"`)

  /** Shapes of everything, part by part. */
  const whole = (inputs: ReadonlyArray<Operand>, attributes: Attributes): Whole => {
    check(attributes)
    if (inputs.length < required || inputs.length > inputNames.length) {
      const expected = required === inputNames.length ? required : `${required} to ${inputNames.length}`
      throw new RangeError(`${name}: ${inputs.length} inputs given, ${expected} expected`)
    }
    const values = new Map<string, Operand>()
    inputs.forEach((one, index) => values.set(inputNames[index]!, one))
    const calls = parts.map((part) => {
      const own = attributesOf(part, attributes)
      const operands = presentInputs(part, values)
      const shapes = shapesOf(name, part, operands, own)
      if (shapes === undefined) throw new RangeError(`${name}: ${part.kernel.name} has outputs of any shape`)
      shapes.forEach((shape, index) => {
        const output = part.outputs[index]
        if (output !== undefined)
          values.set(output, operand(shape, part.kernel.outputDtypes[index] ?? "float32"))
      })
      return { part, attributes: own }
    })
    return { values, calls }
  }

  /** The operands of a part; trailing ones that the composite was not given are left out. */
  const presentInputs = (part: Part, values: ReadonlyMap<string, Operand>): ReadonlyArray<Operand> =>
    part.inputs.flatMap((one) => {
      const value = values.get(one)
      if (value !== undefined) return [value]
      if (declaration.inputs.includes(`${one}?`)) return []
      throw new RangeError(`${name}: nothing gives "${one}"`)
    })

  const expand = (
    inputs: ReadonlyArray<Operand>,
    outputs: ReadonlyArray<Operand>,
    attributes: Attributes
  ): Expansion => {
    const { values, calls } = whole(inputs, attributes)
    const places = new Map<string, number>()
    inputNames.slice(0, inputs.length).forEach((input, index) => places.set(input, index))
    // What a part writes is the output of that name, even where an input has the name too.
    const outputPlaces = new Map(declaration.outputs.map((output, index) => [output, inputs.length + index]))
    const inner: Array<Operand> = []
    const written = new Map<string, number>()
    const placeOf = (one: string): ReadonlyArray<number> => {
      const place = written.get(one) ?? places.get(one)
      return place === undefined ? [] : [place]
    }
    return {
      inner,
      calls: calls.map(({ part, attributes: own }) => {
        const reads = part.inputs.flatMap(placeOf)
        const writes = part.outputs.map((one) => {
          const place = outputPlaces.get(one) ?? inputs.length + outputs.length + inner.length
          if (!outputPlaces.has(one)) inner.push(values.get(one)!)
          written.set(one, place)
          return place
        })
        return { kernel: part.kernel, attributes: own, inputs: reads, outputs: writes }
      })
    }
  }

  const dtypeOf = (side: "inputs" | "outputs", one: string) => {
    for (const part of parts) {
      const index = part[side].indexOf(one)
      if (index < 0) continue
      return side === "inputs" ? part.kernel.inputDtypes[index] : part.kernel.outputDtypes[index]
    }
    return undefined
  }

  const work: Kernel["work"] = (inputs, outputs, attributes) => ({
    flops: flopsOf(expand(inputs, outputs, attributes), inputs, outputs),
    readBytes: totalBytes(inputs),
    writtenBytes: totalBytes(outputs)
  })

  // What takes the time of a fused kernel is its product or attention: it is measured as that.
  const heavy = parts.filter(({ kernel }) => countsArithmetic(kernel.measure))
  const sizesOfHeavy = (
    ...[inputs, outputs, attributes]: Parameters<Kernel["sizes"]>
  ): ReadonlyArray<Sizes> => {
    const { calls, inner } = expand(inputs, outputs, attributes)
    const all = [...inputs, ...outputs, ...inner]
    const of = (places: ReadonlyArray<number>) => places.map((place) => all[place]!)
    return calls
      .filter(({ kernel }) => countsArithmetic(kernel.measure))
      .map((call) => call.kernel.sizes(of(call.inputs), of(call.outputs), call.attributes))
  }

  return {
    name,
    kind: "compute",
    declaration,
    signature: `${declaration.inputs.join(", ")} -> ${declaration.outputs.join(", ")} (${parts.map(({ kernel }) => kernel.name).join(", then ")})`,
    attributes: schema,
    scalars,
    costFollowsScalars: false,
    inPlace: (declaration.inPlace ?? []).map(([input, output]) => [
      inputNames.indexOf(input),
      declaration.outputs.indexOf(output)
    ]),
    inputDtypes: inputNames.map((one) => dtypeOf("inputs", one)),
    outputDtypes: declaration.outputs.map((one) => dtypeOf("outputs", one)),
    shapes(inputs, attributes) {
      const { values } = whole(inputs, attributes)
      return declaration.outputs.map((output) => values.get(output)!.shape)
    },
    work,
    measure: heavy.length === 1 ? heavy[0]!.kernel.measure : "traffic",
    sizes: (inputs, outputs, attributes) =>
      heavy.length === 1
        ? sizesOfHeavy(inputs, outputs, attributes)[0]!
        : trafficOf(work(inputs, outputs, attributes)),
    ...(heavy.length < 2
      ? {}
      : {
          parts: (inputs, outputs, attributes) =>
            sizesOfHeavy(inputs, outputs, attributes).map((sizes, index) => ({
              measure: heavy[index]!.kernel.measure,
              sizes,
              times: 1
            }))
        }),
    expand,
    reference: (inputs, outputs, attributes, shapes) => {
      const [reads, writes] = [operandsOf(inputs, shapes.inputs), operandsOf(outputs, shapes.outputs)]
      runParts(expand(reads, writes, attributes), reads, inputs, writes, outputs)
    }
  }
}

const flopsOf = (
  { calls, inner }: Expansion,
  inputs: ReadonlyArray<Operand>,
  outputs: ReadonlyArray<Operand>
): number => {
  const all = [...inputs, ...outputs, ...inner]
  return calls.reduce((flops, { kernel, attributes, inputs: reads, outputs: writes }) => {
    const of = (places: ReadonlyArray<number>) => places.map((place) => all[place]!)
    return flops + kernel.work(of(reads), of(writes), attributes).flops
  }, 0)
}

/** Operands of arrays: a reference sees shapes and values, and integer arrays are the only ones of integers. */
const operandsOf = (data: ReadonlyArray<TensorData>, shapes: ReadonlyArray<Shape>): ReadonlyArray<Operand> =>
  shapes.map((shape, index) => operand(shape, data[index] instanceof Int32Array ? "int32" : "float32"))

/** Runs the references of the parts in order; inner values are float32 and not rounded to any narrower dtype. */
const runParts = (
  { calls, inner }: Expansion,
  inputs: ReadonlyArray<Operand>,
  inputData: ReadonlyArray<TensorData>,
  outputs: ReadonlyArray<Operand>,
  outputData: ReadonlyArray<TensorData>
): void => {
  const all = [...inputs, ...outputs, ...inner]
  const data = [
    ...inputData,
    ...outputData,
    ...inner.map(({ elements, dtype }) =>
      dtype === "int32" ? new Int32Array(elements) : new Float32Array(elements)
    )
  ]
  for (const { kernel, attributes, inputs: reads, outputs: writes } of calls) {
    const of = <T>(values: ReadonlyArray<T>, places: ReadonlyArray<number>) =>
      places.map((place) => values[place]!)
    checkCall(kernel, of(all, reads), of(all, writes), attributes)
    if (kernel.reference === undefined) throw new RangeError(`${kernel.name} has no reference`)
    kernel.reference(of(data, reads), of(data, writes), attributes, {
      inputs: of(all, reads).map(({ shape }) => shape),
      outputs: of(all, writes).map(({ shape }) => shape)
    })
  }
}

/** How many inputs one tensor of a list brings, given the attributes. */
type ListRule = (attributes: Attributes) => { readonly inputs: number }

/**
 * The same kernel over lists of tensors in one launch: all first inputs, then all second ones, and so on; outputs likewise.
 * A list of one is the kernel itself. Tensors of a list may differ in shape.
 */
export const overLists = <Name extends string>(kernel: Kernel<Name>, rule: ListRule): Kernel<Name> => {
  const lengthOf = (inputs: ReadonlyArray<unknown>, attributes: Attributes): number => {
    const each = rule(attributes).inputs
    const length = inputs.length / each
    if (Number.isInteger(length) && length > 0) return length
    throw new RangeError(
      `${kernel.name}: ${inputs.length} inputs given; expected ${each} for each tensor of the list: ${kernel.signature}`
    )
  }
  const of = <T>(operands: ReadonlyArray<T>, length: number, index: number): ReadonlyArray<T> =>
    operands.filter((_, at) => at % length === index)
  const expand = (
    inputs: ReadonlyArray<Operand>,
    outputs: ReadonlyArray<Operand>,
    attributes: Attributes
  ): Expansion => {
    const length = lengthOf(inputs, attributes)
    const reads = [...inputs.keys()]
    const writes = [...outputs.keys()].map((at) => inputs.length + at)
    return {
      inner: [],
      calls: Array.from({ length }, (_, index) => ({
        kernel,
        attributes,
        inputs: of(reads, length, index),
        outputs: of(writes, length, index)
      }))
    }
  }
  const work: Kernel["work"] = (inputs, outputs, attributes) => {
    const length = lengthOf(inputs, attributes)
    const sum = { flops: 0, readBytes: 0, writtenBytes: 0 }
    for (let index = 0; index < length; index++) {
      const own = kernel.work(of(inputs, length, index), of(outputs, length, index), attributes)
      sum.flops += own.flops
      sum.readBytes += own.readBytes
      sum.writtenBytes += own.writtenBytes
    }
    return sum
  }
  return {
    ...kernel,
    signature: `${kernel.signature} (lists of tensors: all of one operand, then all of the next)`,
    shapes(inputs, attributes) {
      const length = lengthOf(inputs, attributes)
      const each = Array.from({ length }, (_, index) => kernel.shapes(of(inputs, length, index), attributes)!)
      return Array.from({ length: each[0]!.length }, (_, output) =>
        each.map((shapes) => shapes[output]!)
      ).flat()
    },
    work,
    measure: "traffic",
    sizes: (inputs, outputs, attributes) => trafficOf(work(inputs, outputs, attributes)),
    expand,
    reference: (inputs, outputs, attributes, shapes) => {
      const length = lengthOf(inputs, attributes)
      for (let index = 0; index < length; index++) {
        kernel.reference!(of(inputs, length, index), of(outputs, length, index), attributes, {
          inputs: of(shapes.inputs, length, index),
          outputs: of(shapes.outputs, length, index)
        })
      }
    }
  }
}
