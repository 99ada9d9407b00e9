// How tensors of a model in parts travel: the dtype on the wire, and copies before and after.
import { kernels } from "../../../kernels/catalogue.ts"
import type { Lane } from "../../../machine/lane.ts"
import { launch, type Op } from "../../../machine/op.ts"
import { dtypeBits, type Dtype, type Tensor } from "../../../machine/tensor.ts"

/** Only a narrower dtype changes what travels. */
export const wireFor = (dtype: Dtype, stored: Dtype): { readonly wire?: Dtype } =>
  dtypeBits[dtype] < dtypeBits[stored] ? { wire: dtype } : {}

/** Whether gradients of `dtype` are cast to `reduceDtype` before they are summed: one that is narrower rounds them on the wire. */
export const castToSum = (dtype: Dtype, reduceDtype: Dtype): boolean =>
  dtype !== reduceDtype && dtypeBits[dtype] <= dtypeBits[reduceDtype]

/** A copy, perhaps in another dtype, that the hook makes which hands over what travels: the hook's time on the host has it. */
export const cast = (label: string, lane: Lane, from: Tensor, to: Tensor): Op => ({
  ...launch(label, kernels.copy, lane, [from], [to]),
  carries: 0
})
