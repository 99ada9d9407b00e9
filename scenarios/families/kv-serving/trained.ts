// Serving with weights that `exec train --save` wrote: the program's tensors get them by name, and prompts are pieces of the
// text that the model has not seen. Names, shapes and layouts are the same in training and serving (Hugging Face's Llama).
import { readFileSync } from "node:fs"
import * as Effect from "effect/Effect"
import { weightSpecs, type DecoderModel } from "../../../core/algorithms/kv-serving/model.ts"
import { servingRole } from "../../../core/algorithms/kv-serving/sequence.ts"
import type { ServingPlan } from "../../../core/algorithms/kv-serving/server.ts"
import { InputError } from "../../../core/input-error.ts"
import { Random } from "../../../core/random.ts"
import { readWeights, type SavedWeights } from "../../../traces/weights-file.ts"
import type { InitialValues } from "../../../core/machine/machine.ts"
import { corpusOf, shippedText } from "../../text.ts"
import { reasonOf } from "../../file/source.ts"

/** Weights, and a text to continue in their token ids. */
export interface Trained {
  /** Where the weights come from. */
  readonly file: string
  readonly weights: SavedWeights
  readonly text: Int32Array
  /** A request's prompt: a piece of the text, by the scenario's seed. */
  prompt(id: number, tokens: number, seed: number): Int32Array
}

/** `textFile`: the text that was learnt; default the one that ships. Its held-out end is what prompts are taken from. */
export const loadTrained = (file: string, textFile = shippedText): Effect.Effect<Trained, InputError> =>
  Effect.gen(function* () {
    const weights = yield* readWeights(file).pipe(
      Effect.mapError(({ field, value, accepted }) => new InputError({ file, field, value, accepted }))
    )
    const { characters, heldOut } = weights
    if (characters.length === 0) {
      const accepted =
        "those of a model that has learnt a text: tokens of files are no characters to continue"
      return yield* new InputError({ file, field: "characters", value: "none", accepted })
    }
    const read = yield* Effect.try({
      try: () => readFileSync(textFile, "utf8"),
      catch: (cause) =>
        new InputError({
          file: textFile,
          field: "",
          value: reasonOf(cause),
          accepted: "a text file"
        })
    })
    const corpus = corpusOf(read, heldOut)
    const ids = new Map(characters.map((character, id) => [character, id]))
    const unknown = corpus.characters.find((character) => !ids.has(character))
    if (unknown !== undefined) {
      return yield* new InputError({
        file: textFile,
        field: "",
        value: `the character ${JSON.stringify(unknown)}`,
        accepted: `a text of the ${characters.length} characters that ${file} knows, named with --text`
      })
    }
    const unseen = heldOut === 0 ? corpus.train : corpus.heldOut
    const text = unseen.map((id) => ids.get(corpus.characters[id]!)!)
    return {
      file,
      weights,
      text,
      prompt: (id, tokens, seed) => {
        const from = new Random(seed).split(`request ${id} prompt`).below(text.length - tokens + 1)
        return text.slice(from, from + tokens)
      }
    }
  })

/** Fields of the scenario's model that must be those of the weights. */
const sizes = ["layers", "width", "heads", "kvHeads", "ffnWidth", "vocabulary", "tied"] as const

/** The plan with the weights' rotary base, and its tensors' values. `scenarioFile` is for messages. */
export const trainedServing = (
  plan: ServingPlan,
  seed: number,
  { file, weights, text, prompt }: Trained,
  scenarioFile: string
): Effect.Effect<{ readonly plan: ServingPlan; readonly initial: InitialValues }, InputError> =>
  Effect.gen(function* () {
    if (weights.model !== "llama") {
      const accepted = "weights of a llama, which serving runs"
      return yield* new InputError({ file, field: "metadata model", value: weights.model, accepted })
    }
    for (const size of sizes) {
      if (plan.model[size] === weights.sizes[size]) continue
      return yield* new InputError({
        file: scenarioFile,
        field: `model.${size}`,
        value: String(plan.model[size]),
        accepted: `${weights.sizes[size]}, as the model of ${file} has it`
      })
    }
    const { ropeBase } = weights.sizes
    if (typeof ropeBase !== "number" || !(ropeBase > 0)) {
      const field = "metadata sizes"
      return yield* new InputError({ file, field, accepted: "sizes with a ropeBase above 0" })
    }
    const model: DecoderModel = { ...plan.model, ropeBase }
    const values = new Map(weights.parameters.map((parameter) => [parameter.name, parameter]))
    for (const { name, shape } of weightSpecs(model)) {
      const found = values.get(name)
      if (found !== undefined && String(found.shape) === String(shape)) continue
      return yield* new InputError({
        file,
        field: name,
        ...(found === undefined ? {} : { value: `[${String(found.shape)}]` }),
        accepted: `a parameter of shape [${String(shape)}]`
      })
    }
    const longest = Math.max(...plan.requests.map(({ promptTokens }) => promptTokens))
    if (longest > text.length) {
      return yield* new InputError({
        file: scenarioFile,
        field: "requests",
        value: `a prompt of ${longest} tokens`,
        accepted: `prompts of at most the ${text.length} characters held out`
      })
    }
    const initial: InitialValues = (_, tensor) => {
      const role = servingRole(tensor)
      return role?.kind === "prompt"
        ? prompt(role.request, tensor.elements, seed)
        : values.get(tensor.name)?.values
    }
    return { plan: { ...plan, model }, initial }
  })

/** Tokens as text; a replacement character for ids that stand for none. */
export const textOf = ({ weights }: Trained, tokens: ArrayLike<number>): string =>
  Array.from(tokens, (token) => weights.characters[token] ?? "\uFFFD").join("")
