// Text as token ids, one for each character: small enough a vocabulary for small models, and nothing to download.
// Knows nothing of models; whether a vocabulary is large enough is asked by whoever has one.
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { InputError } from "../core/input-error.ts"
import { plainly } from "../traces/system-words.ts"

/** A text as token ids, a token for each character. */
export interface TextCorpus {
  /** The characters of the text, by token id: in order of code point. */
  readonly characters: ReadonlyArray<string>
  readonly train: Int32Array
  /** The end of the text, which no step trains on. */
  readonly heldOut: Int32Array
}

/** The Psalms in the King James Version (1611), a verse a line: 223,732 characters, 63 different ones. Public domain. */
export const shippedText = fileURLToPath(new URL("./texts/psalms.txt", import.meta.url))

/** A text cut into training and held-out tokens. `heldOut` is the share of it, at its end, that is held out. */
export const corpusOf = (text: string, heldOut: number): TextCorpus => {
  const points = codePointsOf(text)
  const known = [...new Set(points)].toSorted((a, b) => a - b)
  const ids = new Int32Array((known.at(-1) ?? -1) + 1)
  for (const [id, point] of known.entries()) ids[point] = id
  const characters = known.map((point) => String.fromCodePoint(point))
  const tokens = new Int32Array(points.length)
  for (let i = 0; i < points.length; i++) tokens[i] = ids[points[i]!]!
  const cut = Math.round(tokens.length * (1 - heldOut))
  return { characters, train: tokens.slice(0, cut), heldOut: tokens.slice(cut) }
}

const codePointsOf = (text: string): Int32Array => {
  const points = new Int32Array(text.length)
  let count = 0
  for (let i = 0; i < text.length; i++) {
    const point = text.codePointAt(i)!
    // Two units of the text.
    if (point > 0xffff) i++
    points[count++] = point
  }
  return points.subarray(0, count)
}

/** Tells one text from another: how many tokens there are, and a digest of them. */
export const sourceOf = ({ characters, train, heldOut }: TextCorpus): unknown => {
  const hash = createHash("sha256").update(characters.join(""))
  for (const { buffer, byteOffset, byteLength } of [train, heldOut])
    hash.update(new Uint8Array(buffer, byteOffset, byteLength))
  return { trainTokens: train.length, heldOutTokens: heldOut.length, sha256: hash.digest("hex") }
}

/**
 * The text of files, one behind the other, for a model with windows of `context` tokens and so large a vocabulary. Fails with an InputError on
 * `field` of `file` when the text cannot be read, is too short, or has too many different characters.
 */
export const loadText = (
  paths: ReadonlyArray<string>,
  heldOut: number,
  model: { readonly context: number; readonly vocabulary: number },
  [file, field]: readonly [file: string, field: string]
): Effect.Effect<TextCorpus, InputError> =>
  Effect.gen(function* () {
    const refuse = (value: string, accepted: string) => new InputError({ file, field, value, accepted })
    const texts = yield* Effect.forEach(paths, (path) =>
      Effect.try({
        try: () => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(readFileSync(path)),
        catch: (cause) => refuse(`${path} (${plainly(cause)})`, "a text file in UTF-8")
      })
    )
    const corpus = corpusOf(texts.join(""), heldOut)
    const path = paths.join(", ")
    const { context, vocabulary } = model
    if (corpus.train.length <= context) {
      // Of a text that is long enough it is the share that leaves too little.
      if (corpus.train.length + corpus.heldOut.length > context)
        return yield* new InputError({
          file,
          field: "training.heldOut",
          value: `${heldOut}, which leaves ${corpus.train.length} characters of ${path} to train on,`,
          accepted: `a share that leaves more than the ${context} of a window`
        })
      return yield* refuse(
        `${path} (${corpus.train.length} characters to train on)`,
        `a text with more characters than the ${context} of a window`
      )
    }
    if (corpus.characters.length > vocabulary) {
      return yield* refuse(
        `${path} (${corpus.characters.length} different characters)`,
        `a text with at most as many different characters as the model's vocabulary of ${vocabulary}, or a larger vocabulary`
      )
    }
    return corpus
  })
