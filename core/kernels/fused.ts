// Composite kernels of training: what a GPU does in one launch where a layer graph has several calls.
import { add } from "./elementwise.ts"
import { geluBackward, geluForward, residualForward } from "./activation.ts"
import { defineComposite } from "./composite.ts"
import { linearBackwardInput, linearForward } from "./linear.ts"
import { softmaxCrossEntropyBackward, softmaxCrossEntropyForward } from "./loss.ts"
import {
  layerNormBackwardInput,
  layerNormBackwardWeight,
  layerNormForward,
  rmsNormBackwardInput,
  rmsNormBackwardWeight,
  rmsNormForward
} from "./normalization.ts"

const fresh = { accumulate: false }

/** The residual stream and its norm: sum = inp1 + inp2, out = LayerNorm(sum). */
export const residualLayerNormForward = defineComposite({
  name: "residual_layer_norm.forward",
  inputs: ["inp1", "inp2", "weight", "bias"],
  outputs: ["sum", "out", "mean", "rstd"],
  parts: [
    { kernel: residualForward, inputs: ["inp1", "inp2"], outputs: ["sum"] },
    { kernel: layerNormForward, inputs: ["sum", "weight", "bias"], outputs: ["out", "mean", "rstd"] }
  ]
})

export const residualRmsNormForward = defineComposite({
  name: "residual_rms_norm.forward",
  inputs: ["inp1", "inp2", "weight"],
  outputs: ["sum", "out", "rstd"],
  parts: [
    { kernel: residualForward, inputs: ["inp1", "inp2"], outputs: ["sum"] },
    { kernel: rmsNormForward, inputs: ["sum", "weight"], outputs: ["out", "rstd"] }
  ]
})

const layerNormInput = {
  kernel: layerNormBackwardInput,
  inputs: ["dout", "inp", "weight", "mean", "rstd"]
}
const layerNormWeight = {
  kernel: layerNormBackwardWeight,
  inputs: ["dout", "inp", "mean", "rstd"],
  outputs: ["dweight", "dbias"],
  fixed: fresh
}
const rmsNormInput = { kernel: rmsNormBackwardInput, inputs: ["dout", "inp", "weight", "rstd"] }
const rmsNormWeight = {
  kernel: rmsNormBackwardWeight,
  inputs: ["dout", "inp", "rstd"],
  outputs: ["dweight"],
  fixed: fresh
}

/** Both halves of LayerNorm's backward pass, reading `dout` and `inp` once. */
export const layerNormBackward = defineComposite({
  name: "layer_norm.backward",
  inputs: ["dout", "inp", "weight", "mean", "rstd"],
  outputs: ["dinp", "dweight", "dbias"],
  parts: [{ ...layerNormInput, outputs: ["dinp"] }, layerNormWeight]
})

export const rmsNormBackward = defineComposite({
  name: "rms_norm.backward",
  inputs: ["dout", "inp", "weight", "rstd"],
  outputs: ["dinp", "dweight"],
  parts: [{ ...rmsNormInput, outputs: ["dinp"] }, rmsNormWeight]
})

/** The same, and what comes back along the residual stream added: dinp = dsum + the norm's gradient. */
export const residualLayerNormBackward = defineComposite({
  name: "residual_layer_norm.backward",
  inputs: ["dsum", "dout", "inp", "weight", "mean", "rstd"],
  outputs: ["dinp", "dweight", "dbias"],
  parts: [
    { ...layerNormInput, outputs: ["dnorm"] },
    { kernel: add, inputs: ["dsum", "dnorm"], outputs: ["dinp"] },
    layerNormWeight
  ],
  inPlace: [["dsum", "dinp"]]
})

export const residualRmsNormBackward = defineComposite({
  name: "residual_rms_norm.backward",
  inputs: ["dsum", "dout", "inp", "weight", "rstd"],
  outputs: ["dinp", "dweight"],
  parts: [
    { ...rmsNormInput, outputs: ["dnorm"] },
    { kernel: add, inputs: ["dsum", "dnorm"], outputs: ["dinp"] },
    rmsNormWeight
  ],
  inPlace: [["dsum", "dinp"]]
})

/** A linear layer with GELU as its epilogue; what goes into the GELU is kept for the backward pass. */
export const linearGeluForward = defineComposite({
  name: "linear_gelu.forward",
  inputs: ["inp", "weight", "bias?"],
  outputs: ["pre", "out"],
  parts: [
    { kernel: linearForward, inputs: ["inp", "weight", "bias"], outputs: ["pre"] },
    { kernel: geluForward, inputs: ["pre"], outputs: ["out"] }
  ]
})

/** The input gradient of the linear layer behind a GELU, with the GELU's derivative as its epilogue. */
export const geluLinearBackwardInput = defineComposite({
  name: "gelu_linear.backward_input",
  inputs: ["dout", "weight", "pre"],
  outputs: ["dpre"],
  parts: [
    { kernel: linearBackwardInput, inputs: ["dout", "weight"], outputs: ["dact"] },
    { kernel: geluBackward, inputs: ["pre", "dact"], outputs: ["dpre"] }
  ]
})

/** Loss and dlogits together, the gradient in the logits' own place if wished. */
export const softmaxCrossEntropyFused = defineComposite({
  name: "softmax_cross_entropy.fused",
  inputs: ["logits", "targets", "scaling?"],
  outputs: ["loss", "dlogits"],
  parts: [
    { kernel: softmaxCrossEntropyForward, inputs: ["logits", "targets"], outputs: ["loss"] },
    { kernel: softmaxCrossEntropyBackward, inputs: ["logits", "targets", "scaling"], outputs: ["dlogits"] }
  ],
  inPlace: [["logits", "dlogits"]]
})

/** All of them. */
export const composites = [
  residualLayerNormForward,
  residualRmsNormForward,
  residualLayerNormBackward,
  residualRmsNormBackward,
  layerNormBackward,
  rmsNormBackward,
  linearGeluForward,
  geluLinearBackwardInput,
  softmaxCrossEntropyFused
] as const
