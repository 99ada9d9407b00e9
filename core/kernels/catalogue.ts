// All kernels by name. One entry here, one implementation per backend held to its reference.
import {
  geluBackward,
  geluForward,
  residualBackward,
  residualForward,
  swigluBackward,
  swigluForward
} from "./activation.ts"
import { attentionBackward, attentionForward } from "./attention.ts"
import { barrier } from "./barrier.ts"
import {
  allGather,
  allReduce,
  allToAll,
  broadcast,
  reduceScatter,
  sendRecv,
  type Collective
} from "./collectives.ts"
import { d2d, d2h, h2d } from "./copies.ts"
import { add, average, copy, lerp, scale, subtract, zero } from "./elementwise.ts"
import {
  embeddingBackwardWeight,
  embeddingForward,
  positionAddBackwardWeight,
  positionAddForward
} from "./embedding.ts"
import { expertFfnForward } from "./expert-ffn.ts"
import { composites } from "./fused.ts"
import type { Kernel } from "./kernel.ts"
import { kvAdvance, kvAppend, kvAttention, kvEvict, kvGather, kvPlace } from "./kv-cache.ts"
import { kvChunkScores, kvPoolScores, kvShotScores, kvWindowScores } from "./kv-scores.ts"
import { kvSinkTokens, kvTopChunks, kvTopShots, kvTopTokens } from "./kv-select.ts"
import { linearBackwardInput, linearBackwardWeight, linearForward } from "./linear.ts"
import {
  softmaxBackward,
  softmaxCrossEntropyBackward,
  softmaxCrossEntropyForward,
  softmaxForward
} from "./loss.ts"
import {
  groupedLinearBackwardInput,
  groupedLinearBackwardWeight,
  groupedLinearForward,
  moeCombineBackwardGate,
  moeCombineBackwardInput,
  moeCombineForward,
  moeDispatchBackward,
  moeDispatchForward,
  moePermutation,
  topkGateBackward,
  topkGateForward
} from "./moe.ts"
import {
  cosineScoresBackwardInput,
  cosineScoresBackwardWeight,
  cosineScoresForward,
  expertChoiceBackward,
  expertChoiceForward,
  noisyLogitsBackward,
  noisyLogitsForward,
  randomNormal,
  sigmoidGateBackward,
  sigmoidGateForward,
  softGateBackward,
  softGateForward
} from "./moe-gates.ts"
import { expertChoiceLayout, moeLayout, softLayout } from "./moe-layout.ts"
import {
  moeInverseOrderBackwardGate,
  moeInverseOrderBackwardInput,
  moeInverseOrderForward,
  moeOrderBackward,
  moeOrderForward,
  moeRechunk,
  repack,
  softInverseOrderForward,
  softOrderBackwardMix,
  softOrderForward
} from "./moe-order.ts"
import {
  layerNormBackwardInput,
  layerNormBackwardWeight,
  layerNormForward,
  rmsNormBackwardInput,
  rmsNormBackwardWeight,
  rmsNormForward
} from "./normalization.ts"
import { adamw, clipByNorm, lossScale, outerNesterov, sgd, squaredNorm } from "./optimizer.ts"
import {
  packBfloat16,
  packFloat4,
  packFloat8,
  packInt8,
  unpackBfloat16,
  unpackFloat4,
  unpackFloat8,
  unpackInt8
} from "./packing.ts"
import { profiled } from "./profiled.ts"
import { ropeBackward, ropeForward, ropeRows } from "./rope.ts"
import { argmax, concatRows, lastToken, splitRows } from "./rows.ts"
import { tokenWindows } from "./token-windows.ts"
import { constantValues, normalValues, uniformValues } from "./initial-values.ts"

const allCollectives = [allReduce, allGather, reduceScatter, allToAll, broadcast, sendRecv] as const

const all = [
  // model
  embeddingForward,
  embeddingBackwardWeight,
  positionAddForward,
  positionAddBackwardWeight,
  layerNormForward,
  layerNormBackwardInput,
  layerNormBackwardWeight,
  rmsNormForward,
  rmsNormBackwardInput,
  rmsNormBackwardWeight,
  linearForward,
  linearBackwardInput,
  linearBackwardWeight,
  ropeForward,
  ropeBackward,
  attentionForward,
  attentionBackward,
  geluForward,
  geluBackward,
  swigluForward,
  swigluBackward,
  residualForward,
  residualBackward,
  softmaxForward,
  softmaxBackward,
  softmaxCrossEntropyForward,
  softmaxCrossEntropyBackward,
  topkGateForward,
  topkGateBackward,
  moePermutation,
  moeDispatchForward,
  moeDispatchBackward,
  moeCombineForward,
  moeCombineBackwardInput,
  moeCombineBackwardGate,
  groupedLinearForward,
  groupedLinearBackwardInput,
  groupedLinearBackwardWeight,
  expertFfnForward,
  tokenWindows,
  ...composites,
  normalValues,
  uniformValues,
  constantValues,
  // generation
  ropeRows,
  lastToken,
  argmax,
  concatRows,
  splitRows,
  kvAdvance,
  kvAppend,
  kvAttention,
  kvEvict,
  kvGather,
  kvPlace,
  kvWindowScores,
  kvPoolScores,
  kvChunkScores,
  kvShotScores,
  kvTopTokens,
  kvSinkTokens,
  kvTopChunks,
  kvTopShots,
  randomNormal,
  noisyLogitsForward,
  noisyLogitsBackward,
  sigmoidGateForward,
  sigmoidGateBackward,
  cosineScoresForward,
  cosineScoresBackwardInput,
  cosineScoresBackwardWeight,
  expertChoiceForward,
  expertChoiceBackward,
  softGateForward,
  softGateBackward,
  moeLayout,
  expertChoiceLayout,
  softLayout,
  moeOrderForward,
  moeOrderBackward,
  moeInverseOrderForward,
  moeInverseOrderBackwardInput,
  moeInverseOrderBackwardGate,
  softOrderForward,
  softInverseOrderForward,
  softOrderBackwardMix,
  moeRechunk,
  // optimizer
  sgd,
  adamw,
  outerNesterov,
  squaredNorm,
  clipByNorm,
  lossScale,
  // schedules
  copy,
  zero,
  add,
  subtract,
  scale,
  lerp,
  average,
  packFloat4,
  unpackFloat4,
  packFloat8,
  unpackFloat8,
  packInt8,
  unpackInt8,
  packBfloat16,
  unpackBfloat16,
  h2d,
  d2h,
  d2d,
  repack,
  ...allCollectives,
  profiled,
  barrier
] as const

type Entry = (typeof all)[number]
/** A kernel of the catalogue, as programs and native code name it. */
export type KernelName = Entry["name"]

type ByName<Entry extends Kernel> = {
  readonly [Name in Entry["name"]]: Extract<Entry, { readonly name: Name }>
}

const byName = <Entry extends Kernel>(entries: ReadonlyArray<Entry>): ByName<Entry> =>
  Object.fromEntries(entries.map((kernel) => [kernel.name, kernel])) as ByName<Entry>

/** The catalogue: `kernels.all_reduce`, `kernels["linear.forward"]`. */
export const kernels = byName<Entry>(all)

/** The collectives among them. */
export const collectives = byName<(typeof allCollectives)[number]>(allCollectives)

/** The kernel of that name, if there is one: for names that come from a file. */
export const kernelNamed = (name: string): Kernel | undefined =>
  Object.hasOwn(kernels, name) ? kernels[name as KernelName] : undefined

/** The collective of that name, if there is one. */
export const collectiveNamed = (name: string): Collective | undefined =>
  Object.hasOwn(collectives, name) ? collectives[name as keyof typeof collectives] : undefined
