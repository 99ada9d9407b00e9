// A kernel that does nothing but wait: a queue passes it once the tensors it reads are ready.
import type { Kernel } from "./kernel.ts"

/**
 * No work, no outputs, any inputs. Its lane waits for whatever last wrote its inputs, as `wait()` on every handle before
 * `optimizer.step()` does in PyTorch.
 */
export const barrier: Kernel<"barrier"> = {
  name: "barrier",
  kind: "compute",
  signature: "any number of operands ->",
  attributes: {},
  scalars: [],
  costFollowsScalars: false,
  inputDtypes: [],
  outputDtypes: [],
  shapes: () => [],
  work: () => ({ flops: 0, readBytes: 0, writtenBytes: 0 }),
  measure: "traffic",
  sizes: () => ({ bytes: 0 }),
  reference: () => {}
}
