// Weights that a run begins with instead of random ones: those that another run has saved, held to the model that is to go on
// with them. What optimizers keep beside them begins anew.
import * as Effect from "effect/Effect"
import { InputError } from "../../../core/input-error.ts"
import type { TensorData } from "../../../core/machine/tensor.ts"
import type { LayerGraph, Value } from "../../../core/models/layer-graph.ts"
import { readWeights, type SavedWeights } from "../../../traces/weights-file.ts"

/**
 * First values of the graph's parameters, from a file of weights. Fails with an InputError on the file for another architecture,
 * other sizes, other characters, or a parameter that is missing or has another shape.
 */
export const savedBeginning = (
  file: string,
  graph: LayerGraph,
  learns: Pick<SavedWeights, "model" | "sizes" | "characters">
): Effect.Effect<(parameter: Value) => () => TensorData, InputError> =>
  Effect.gen(function* () {
    const saved = yield* readWeights(file).pipe(
      Effect.mapError(({ field, value, accepted }) => new InputError({ file, field, value, accepted }))
    )
    const refuse = (field: string, value: unknown, accepted: unknown, why: string) =>
      new InputError({
        file,
        field,
        value: JSON.stringify(value) ?? "nothing",
        accepted: `${JSON.stringify(accepted)}, as ${why}`
      })
    const model = "the scenario's model has it"
    if (saved.model !== learns.model) return yield* refuse("model", saved.model, learns.model, model)
    // A window's length is no size of a model but where positions have a table, whose shape tells.
    for (const [size, wanted] of Object.entries(learns.sizes))
      if (size !== "context" && saved.sizes[size] !== wanted)
        return yield* refuse(`sizes.${size}`, saved.sizes[size], wanted, model)
    const [theirs, ours] = [saved.characters.join(""), learns.characters.join("")]
    if (theirs !== ours)
      return yield* refuse("characters", theirs, ours, "the text that is to be learnt has them")
    const known = new Map(saved.parameters.map((one) => [one.name, one]))
    for (const parameter of graph.layers.flatMap(({ parameters }) => parameters)) {
      const shape = usedShape(parameter)
      const found = known.get(parameter.name)?.shape
      if (found?.join() !== shape.join())
        return yield* refuse(`parameter ${parameter.name}`, found, shape, model)
    }
    return ({ name, elements }) =>
      () => {
        // What pads a table stays zero.
        const values = new Float32Array(elements)
        values.set(known.get(name)!.values)
        return values
      }
  })

/** As it is saved: without the rows that pad a table. */
const usedShape = ({ shape, usedRows }: Value): ReadonlyArray<number> =>
  usedRows === undefined ? shape : [usedRows, ...shape.slice(1)]
