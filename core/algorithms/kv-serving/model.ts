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

/** Sizes of a Llama-style decoder that serves requests. */
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

/** Bytes of a cache that holds so many tokens in each layer: 2 * tokens * kvHeads * headWidth * bytes, summed over layers. */
export const cacheBytes = (model: DecoderModel, tokensByLayer: ReadonlyArray<number>): number =>
  tokensByLayer.reduce(
    (sum, tokens) => sum + sizeBytesOf(2 * tokens * kvWidthOf(model), model.cacheDtype ?? model.dtype),
    0
  )

/** Shapes of one layer's weights, in the order of the forward pass. */
const layerWeightShapes = (model: DecoderModel) => ({
  ...attentionWeightShapes(llamaLayer, model),
  ...denseWeightShapes(model)
})

type LayerWeight = keyof ReturnType<typeof layerWeightShapes>

/** The weights of a model, each in its place. */
export interface DecoderWeights<W> {
  readonly embedding: W
  readonly layers: ReadonlyArray<Readonly<Record<LayerWeight, W>>>
  readonly norm: W
  /** Undefined where the embedding's weight is that, too. */
  readonly output: W | undefined
}

export const decoderWeights = (model: DecoderModel): DecoderWeights<TensorSpec> => {
  const { layers, width, vocabulary, tied, dtype } = model
  const spec = (name: string, shape: ReadonlyArray<number>): TensorSpec => ({
    name: `${name}.weight`,
    shape,
    dtype
  })
  return {
    embedding: spec("model.embed_tokens", [vocabulary, width]),
    layers: Array.from({ length: layers }, (_, l) => {
      const shapes = Object.entries(layerWeightShapes(model))
      const specs = shapes.map(([name, shape]) => [name, spec(`model.layers.${l}.${name}`, shape)])
      return Object.fromEntries(specs) as Record<LayerWeight, TensorSpec>
    }),
    norm: spec("model.norm", [width]),
    output: tied ? undefined : spec("lm_head", [vocabulary, width])
  }
}

/** Every weight of the model, in the order of the forward pass. */
export const weightSpecs = (model: DecoderModel): ReadonlyArray<TensorSpec> => {
  const { embedding, layers, norm, output } = decoderWeights(model)
  return [
    embedding,
    ...layers.flatMap((layer) => Object.values(layer)),
    norm,
    ...(output === undefined ? [] : [output])
  ]
}

/** Bytes of all weights. */
export const weightBytes = (model: DecoderModel): number => bytesOfSpecs(weightSpecs(model))

/** Bytes of tensors before they are made. */
export const bytesOfSpecs = (specs: ReadonlyArray<TensorSpec>): number =>
  specs.reduce((sum, { shape, dtype }) => sum + sizeBytesOf(elementsOf(shape), dtype), 0)
