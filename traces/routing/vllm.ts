// What vLLM says of a request: `CompletionOutput.routed_experts`, [tokens, layers, topK], saved as .npy or as nested lists; or
// its server's answers (one, a list, or one a line), whose prompts are a step each.
import { decodeText, textLines } from "../text.ts"
import { TraceError } from "../trace-error.ts"
import { entry, isRecord, jsonOf, listOf, rowsOf } from "./json-values.ts"
import { isNumpy, parseNumpy } from "./npy.ts"
import { expertOf, inTurn, tokensByLayer, type TokenChoices } from "./tokens.ts"

export const vllm = (file: string, bytes: Uint8Array): TokenChoices => {
  if (isNumpy(bytes)) return ofNumpy(file, bytes)
  const text = decodeText(file, bytes)
  const answers = answersOf(text)
  if (answers !== undefined) return ofAnswers(file, answers)
  const parsed = jsonOf(file, "content", text)
  // What a request comes to as its library prints it: an answer, and in it what was put out.
  const outputs = isRecord(parsed) ? parsed["outputs"] : undefined
  const own = Array.isArray(outputs) && outputs.length === 1 ? (outputs[0] as unknown) : parsed
  return ofNested(file, "", isRecord(own) ? own["routed_experts"] : own)
}

const ofNumpy = (file: string, bytes: Uint8Array): TokenChoices => {
  const { shape, data } = parseNumpy(file, bytes)
  const [count, layers, topK] = shape
  if (shape.length !== 3 || count === undefined || layers === undefined || topK === undefined) {
    throw new TraceError({
      file,
      field: "shape",
      value: `(${shape.join(", ")})`,
      accepted: "(tokens, layers, top k)"
    })
  }
  data.forEach((expert, i) => expertOf(file, `element ${i}`, expert))
  const size = layers * topK
  return {
    layers: Array.from({ length: layers }, (_, layer) => layer),
    topK,
    tokens: Array.from({ length: count }, (_, token) => data.subarray(token * size, (token + 1) * size)),
    steps: undefined
  }
}

const ofNested = (file: string, place: string, given: unknown): TokenChoices => {
  const tokens = listOf(
    file,
    place === "" ? "routed_experts" : place,
    given,
    "nested lists [tokens][layers][top k], or an .npy file"
  )
  const byLayer = new Map<number, Array<ReadonlyArray<number>>>()
  const layerCount =
    tokens.length === 0 ? 0 : listOf(file, `${place}[0]`, tokens[0], "a list of layers").length
  tokens.forEach((token, t) => {
    const layers = rowsOf(file, `${place}[${t}]`, token)
    if (layers.length !== layerCount) {
      throw new TraceError({
        file,
        field: `${place}[${t}]`,
        value: `${layers.length} layers`,
        accepted: `${layerCount} layers`
      })
    }
    layers.forEach((row, layer) => entry(byLayer, layer, () => []).push(row))
  })
  return { ...tokensByLayer(file, byLayer), steps: undefined }
}

type Json = Readonly<Record<string, unknown>>

/** The answers in a text; undefined where it holds none. */
const answersOf = (text: string): ReadonlyArray<Json> | undefined => {
  const isAnswer = (value: unknown): value is Json => isRecord(value) && Array.isArray(value["choices"])
  const parsed = parse(text)
  const given = Array.isArray(parsed) ? (parsed as ReadonlyArray<unknown>) : [parsed]
  if (parsed !== undefined) return given.length > 0 && given.every(isAnswer) ? given : undefined
  const lines = textLines(text)
    .filter((line) => line.trim() !== "")
    .map(parse)
  return lines.length > 0 && lines.every(isAnswer) ? lines : undefined
}

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text.trim().replace(/,$/u, ""))
  } catch {
    return undefined
  }
}

const ofAnswers = (file: string, answers: ReadonlyArray<Json>): TokenChoices => {
  const read = (place: string, value: unknown): TokenChoices => {
    if (typeof value !== "string") return ofNested(file, place, value)
    const bytes = new Uint8Array(Buffer.from(value, "base64"))
    if (isNumpy(bytes)) return ofNumpy(file, bytes)
    throw new TraceError({
      file,
      field: place,
      value: `${JSON.stringify(value.slice(0, 40))}...`,
      accepted: "an .npy file in base64, or nested lists [tokens][layers][top k]"
    })
  }
  const requests = answers.flatMap((answer, index) => {
    const place = answers.length === 1 ? "" : `[${index}].`
    const prompt = answer["prompt_routed_experts"] ?? undefined
    return (answer["choices"] as ReadonlyArray<unknown>).filter(isRecord).map((choice, turn) => {
      const field = `${place}choices[${turn}].routed_experts`
      const given = choice["routed_experts"] ?? undefined
      if (given === undefined) {
        throw new TraceError({
          file,
          field,
          value: "missing",
          accepted: "the experts of each token (vllm serve --enable-return-routed-experts)"
        })
      }
      const output = read(field, given)
      const before = prompt === undefined ? undefined : read(`${place}prompt_routed_experts`, prompt)
      const promptTokens = before?.tokens.length ?? promptOf(answer, output.tokens.length)
      const tokens = [...(before?.tokens ?? []), ...output.tokens]
      // The prompt is one step, and every token after it.
      const steps = tokens.map((_, token) => Math.max(0, token + 1 - Math.max(1, promptTokens)))
      return { file, choices: { ...output, tokens, steps } }
    })
  })
  if (requests.length > 0) return inTurn(requests, {})
  throw new TraceError({ file, field: "choices", value: "empty", accepted: "at least one choice" })
}

/** Tokens of the prompt among those of an answer that does not hold the two apart; 0 where they are not among them. */
const promptOf = (answer: Json, tokens: number): number => {
  const usage = isRecord(answer["usage"]) ? answer["usage"] : {}
  const [prompt, completion] = [usage["prompt_tokens"], usage["completion_tokens"]]
  if (typeof prompt !== "number" || typeof completion !== "number") return 0
  // The last token generated has not been through the model.
  return tokens >= prompt + completion - 1 ? prompt : 0
}
