// A Llama-style decoder as generation sees it: sizes, the names and shapes of its weights, and what a token costs in cache.
// Weights are named as Hugging Face names them, so that a checkpoint can be put behind them.
import { elementsOf, sizeBytesOf, type Dtype, type TensorSpec } from "../../machine/tensor.ts"
import {
  attentionWeightShapes,
  denseWeightShapes,
  llamaLayer,
  kvWidthOf,
  type DecoderSizes
} from "../../models/decoder-layer.ts"

export interface DecoderModel extends DecoderSizes {
  readonly layers: number
  readonly ffnWidth: number
  readonly vocabulary: number
  /** The output layer shares the embedding's weight. */
  readonly tied: boolean
  readonly ropeBase: number
  /** Of weights, activations and, where not told apart, the cache. */
  readonly dtype: Dtype
  readonly cacheDtype?: Dtype | undefined
}

/** Bytes of one token's keys and values in one layer. */
export const tokenLayerBytes = (model: DecoderModel): number =>
  2 * sizeBytesOf(kvWidthOf(model), model.cacheDtype ?? model.dtype)

/** Bytes of a cache that holds so many tokens in each layer: 2 * tokens * kvHeads * headWidth * bytes, summed over layers. */
export const cacheBytes = (model: DecoderModel, tokensByLayer: ReadonlyArray<number>): number =>
  tokensByLayer.reduce((sum, tokens) => sum + tokens * tokenLayerBytes(model), 0)

/** Shapes of one layer's weights, in the order of the forward pass. */
const layerWeightShapes = (model: DecoderModel) => ({
  ...attentionWeightShapes(llamaLayer, model),
  ...denseWeightShapes(model)
})

export type LayerWeight = keyof ReturnType<typeof layerWeightShapes>

/** Every weight of the model. */
export const weightSpecs = (model: DecoderModel): ReadonlyArray<TensorSpec> => {
  const { layers, width, vocabulary, tied, dtype } = model
  const spec = (name: string, shape: ReadonlyArray<number>): TensorSpec => ({
    name: `${name}.weight`,
    shape,
    dtype
  })
  return [
    spec("model.embed_tokens", [vocabulary, width]),
    ...Array.from({ length: layers }, (_, l) =>
      Object.entries(layerWeightShapes(model)).map(([name, shape]) =>
        spec(`model.layers.${l}.${name}`, shape)
      )
    ).flat(),
    spec("model.norm", [width]),
    ...(tied ? [] : [spec("lm_head", [vocabulary, width])])
  ]
}

/** Bytes of all weights. */
export const weightBytes = (model: DecoderModel): number => bytesOfSpecs(weightSpecs(model))

/** Bytes of tensors before they are made. */
export const bytesOfSpecs = (specs: ReadonlyArray<TensorSpec>): number =>
  specs.reduce((sum, { shape, dtype }) => sum + sizeBytesOf(elementsOf(shape), dtype), 0)
