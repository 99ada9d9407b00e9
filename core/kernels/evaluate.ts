// Runs a reference on values: checks the call, computes, and rounds the outputs to their dtypes as hardware would store
// them. What the simulator's fibers and the agreement tests use; knows nothing of when anything runs.
import type { TensorData } from "../machine/tensor.ts"
import type { Collective } from "./collectives.ts"
import { checkCall, type Attributes, type Kernel, type Operand } from "./kernel.ts"
import { roundInPlace } from "./rounding.ts"

const checkLengths = (kernel: Kernel, operands: ReadonlyArray<Operand>, data: ReadonlyArray<TensorData>) => {
  for (const [index, { elements }] of operands.entries()) {
    const length = data[index]?.length
    if (length !== elements) {
      throw new RangeError(
        `${kernel.name}: operand ${index} has ${String(length)} values for ${elements} elements`
      )
    }
  }
}

/**
 * Values of one call: overwrites `outputData`, rounded to the dtypes of `outputs`. In place is allowed: the same array in
 * both lists. Throws RangeError when the call does not fit, or the kernel has no reference.
 */
export const evaluate = (
  kernel: Kernel,
  inputs: ReadonlyArray<Operand>,
  inputData: ReadonlyArray<TensorData>,
  outputs: ReadonlyArray<Operand>,
  outputData: ReadonlyArray<TensorData>,
  attributes: Attributes
): void => {
  checkCall(kernel, inputs, outputs, attributes)
  checkLengths(kernel, inputs, inputData)
  checkLengths(kernel, outputs, outputData)
  if (kernel.reference === undefined) throw new RangeError(`${kernel.name} has no reference`)
  kernel.reference(inputData, outputData, attributes, {
    inputs: inputs.map(({ shape }) => shape),
    outputs: outputs.map(({ shape }) => shape),
    outputDtypes: outputs.map(({ dtype }) => dtype)
  })
  for (const [index, { dtype }] of outputs.entries()) roundInPlace(outputData[index]!, dtype)
}

/** One member's part of a collective call. */
export interface Member {
  readonly inputs: ReadonlyArray<Operand>
  readonly inputData: ReadonlyArray<TensorData>
  readonly outputs: ReadonlyArray<Operand>
  readonly outputData: ReadonlyArray<TensorData>
  readonly attributes: Attributes
}

/** Values of a collective for all its members, in group order; otherwise as `evaluate`. */
export const evaluateCollective = (collective: Collective, members: ReadonlyArray<Member>): void => {
  for (const { inputs, inputData, outputs, outputData, attributes } of members) {
    checkCall(collective, inputs, outputs, attributes)
    checkLengths(collective, inputs, inputData)
    checkLengths(collective, outputs, outputData)
  }
  collective.combine(
    members.map(({ inputData }) => inputData),
    members.map(({ outputData }) => outputData),
    members.map(({ attributes }) => attributes)
  )
  for (const { outputs, outputData } of members) {
    for (const [index, { dtype }] of outputs.entries()) roundInPlace(outputData[index]!, dtype)
  }
}
