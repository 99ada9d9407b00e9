// What a model learns from, as a scenario names it: a text whose characters are the tokens, or files of tokens. Both may be several
// files, by a pattern. Texts are read whole; files of tokens as chunks of them are needed.
import { createHash } from "node:crypto"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { chunksOf, wholeCorpus, type Corpus } from "../core/algorithms/data-parallel/corpus.ts"
import { InputError } from "../core/input-error.ts"
import { openTokenFile, readTokensAcross, type TokenDtype, type TokenFile } from "../traces/token-file.ts"
import { TraceError } from "../traces/trace-error.ts"
import { reasonOf } from "./file/source.ts"
import { locate } from "./load.ts"
import { starred } from "./starred.ts"
import { loadText, shippedText, sourceOf as textSource } from "./text.ts"

/** What is learnt from, and what it is tested on. */
export interface Learnable {
  /** The characters of a text, by token id; none where tokens are not characters. */
  readonly characters: ReadonlyArray<string>
  readonly train: Corpus
  /** The part that no step trains on. */
  readonly heldOut: Int32Array
  /** Tells it from another one. */
  readonly source: unknown
}

/** As `training` of a scenario says. */
export interface CorpusSettings {
  readonly text?: string
  readonly tokens?: string
  readonly heldOutTokens?: string
  readonly tokenDtype: TokenDtype
  readonly chunkTokens: number
  /** Share at the end that is held out. */
  readonly heldOut: number
}

/** For a model with windows of `context` tokens and so large a vocabulary. */
interface Model {
  readonly context: number
  readonly vocabulary: number
}

/**
 * Fails with an InputError on the field of `file`, the scenario's path, when files are missing or damaged, too short for a window,
 * or have tokens that the model has not.
 */
export const loadCorpus = (
  settings: CorpusSettings,
  model: Model,
  file: string
): Effect.Effect<Learnable, InputError> =>
  Effect.gen(function* () {
    const { text, tokens, heldOutTokens, chunkTokens } = settings
    const refuse = (field: string, value: string, accepted: string) =>
      new InputError({ file, field: `training.${field}`, value, accepted })
    if (tokens === undefined) {
      if (heldOutTokens !== undefined)
        return yield* refuse(
          "heldOutTokens",
          heldOutTokens,
          "training.tokens beside it; a text's own end is held out"
        )
      const files = text === undefined ? [shippedText] : yield* filesOf(text, file, "text")
      const read = yield* loadText(files, settings.heldOut, model, [file, "training.text"])
      const { characters, train, heldOut } = read
      return { characters, train: wholeCorpus(train), heldOut, source: textSource(read) }
    }
    if (text !== undefined) return yield* refuse("text", text, "nothing beside training.tokens, or no tokens")
    if (chunkTokens <= model.context)
      return yield* refuse(
        "chunkTokens",
        String(chunkTokens),
        `more than the ${model.context} tokens of a window`
      )
    const all = yield* openedFiles(yield* filesOf(tokens, file, "tokens"), settings, [
      file,
      "training.tokens"
    ])
    const count = countOf(all)
    const ownEnd = heldOutTokens === undefined
    const trainTokens = ownEnd ? Math.round(count * (1 - settings.heldOut)) : count
    if (trainTokens <= model.context) {
      const value = `${tokens} (${trainTokens} tokens to train on)`
      return yield* refuse("tokens", value, `more tokens than the ${model.context} of a window`)
    }
    const test = ownEnd
      ? all
      : yield* openedFiles(yield* filesOf(heldOutTokens, file, "heldOutTokens"), settings, [
          file,
          "training.heldOutTokens"
        ])
    const from = ownEnd ? trainTokens : 0
    const chunks = chunksOf(trainTokens, chunkTokens)
    const read = (files: ReadonlyArray<TokenFile>, first: number, length: number) =>
      checked(readTokensAcross(files, first, length), files, first, model.vocabulary)
    return yield* Effect.try({
      try: (): Learnable => {
        const heldOut = read(test, from, Math.min(countOf(test) - from, chunkTokens))
        const length = chunks.length
        const train: Corpus =
          chunks.count === 1
            ? wholeCorpus(read(all, 0, trainTokens))
            : {
                tokens: chunks.count * length,
                chunkTokens: length,
                chunk: (index) => read(all, index * length, length)
              }
        // The first one is looked at before anything is trained.
        train.chunk(0)
        return { characters: [], train, heldOut, source: sourceOf(all, ownEnd ? [] : test, trainTokens) }
      },
      catch: (cause) =>
        cause instanceof InputError
          ? cause
          : refuse(ownEnd ? "tokens" : "tokens, heldOutTokens", reasonOf(cause), "files that can be read")
    })
  })

const countOf = (files: ReadonlyArray<TokenFile>): number => files.reduce((sum, one) => sum + one.tokens, 0)

/** Files by a name in the scenario's folder whose last part may have stars, in the order of their names. */
const filesOf = (
  named: string,
  file: string,
  field: string
): Effect.Effect<ReadonlyArray<string>, InputError> =>
  Effect.gen(function* () {
    const whole = locate(file, named)
    const files = yield* Effect.try({
      try: () => starred(whole),
      catch: (cause) =>
        new InputError({
          file,
          field: `training.${field}`,
          value: `${named} (${reasonOf(cause)})`,
          accepted: "files of a folder that can be read"
        })
    })
    if (files.length > 0) return files
    const accepted = `a pattern that files in ${path.dirname(whole)} have`
    return yield* new InputError({ file, field: `training.${field}`, value: named, accepted })
  })

const openedFiles = (
  paths: ReadonlyArray<string>,
  { tokenDtype }: CorpusSettings,
  [file, field]: readonly [string, string]
): Effect.Effect<ReadonlyArray<TokenFile>, InputError> =>
  Effect.try({
    try: () => paths.map((one) => openTokenFile(one, tokenDtype)),
    catch: (cause) => {
      if (!(cause instanceof TraceError)) throw cause
      const value = `${cause.file} (${cause.field} is ${cause.value})`
      return new InputError({ file, field, value, accepted: cause.accepted })
    }
  })

/** The tokens, all of which the vocabulary has. Throws InputError with the file and the place of one that it has not. */
const checked = (
  tokens: Int32Array,
  files: ReadonlyArray<TokenFile>,
  from: number,
  vocabulary: number
): Int32Array => {
  const wrong = tokens.findIndex((token) => token < 0 || token >= vocabulary)
  if (wrong < 0) return tokens
  let at = from + wrong
  const found = files.find(({ tokens: count }) => {
    if (at < count) return true
    at -= count
    return false
  })
  throw new InputError({
    file: found?.path ?? "",
    field: `token ${at}`,
    value: String(tokens[wrong]! >>> 0),
    accepted: `an id below the model's vocabulary of ${vocabulary}`
  })
}

/** What is looked at of files that are larger: so many pieces of so many tokens, evenly spread. */
const [pieces, pieceTokens] = [64, 16_384]

const sourceOf = (
  train: ReadonlyArray<TokenFile>,
  test: ReadonlyArray<TokenFile>,
  trainTokens: number
): unknown => {
  const hash = createHash("sha256")
  for (const files of [train, test]) {
    const count = countOf(files)
    const gap = Math.max(pieceTokens, count / pieces)
    for (let at = 0; at < count; at += gap) {
      const first = Math.floor(at)
      hash.update(readTokensAcross(files, first, Math.min(pieceTokens, count - first)))
    }
  }
  return {
    trainTokens,
    tokens: countOf(train),
    heldOutTokens: countOf(test),
    sampleSha256: hash.digest("hex")
  }
}
