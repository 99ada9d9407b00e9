// CSV of moe-beyond's recordings of DeepSeek-V2-Lite: Layer ID, Batch Number, Token, Activated Expert IDs ("[8, 26, 56]"); a
// row for each layer and token, layer after layer. Several sequences of a batch follow each other.
import { decodeText, tableLines } from "../text.ts"
import { TraceError } from "../trace-error.ts"
import { entry } from "./json-values.ts"
import { expertOf, tokensOfSteps, type TokenChoices } from "./tokens.ts"

const lettersOf = (names: ReadonlyArray<string>): ReadonlyArray<string> =>
  names.map((name) => name.toLowerCase().replaceAll(/[^a-z]/gu, ""))

export const moeBeyond = (file: string, bytes: Uint8Array): TokenChoices => {
  const isRecording = (cells: ReadonlyArray<string>) => lettersOf(cells).includes("activatedexpertids")
  const [head, ...lines] = tableLines(file, decodeText(file, bytes), isRecording)
  const names = lettersOf(head?.cells ?? [])
  const layer = names.indexOf("layerid")
  const batch = names.indexOf("batchnumber")
  const experts = names.indexOf("activatedexpertids")
  if (layer < 0 || experts < 0) {
    throw new TraceError({
      file,
      field: "line 1",
      value: JSON.stringify(head?.cells.join(",").slice(0, 80) ?? ""),
      accepted: "the columns Layer ID, Batch Number, Token, Activated Expert IDs"
    })
  }
  const sequences = new Map<number, Map<number, Array<ReadonlyArray<number>>>>()
  for (const { number, cells } of lines) {
    const whole = (column: number, name: string): number => {
      const cell = cells[column] ?? ""
      return expertOf(file, `line ${number}, ${name}`, /^\d+$/u.test(cell) ? Number(cell) : cell)
    }
    const field = `line ${number}, Activated Expert IDs`
    const text = cells[experts] ?? ""
    if (!/^(?:\[[\d\s,]*\]|[\d\s]*)$/u.test(text)) {
      const value = JSON.stringify(text.slice(0, 80))
      throw new TraceError({ file, field, value, accepted: 'experts as "[8, 26, 56]"' })
    }
    const chosen = text
      .replaceAll(/^\[|\]$/gu, "")
      .trim()
      .split(/\s*,\s*|\s+/u)
      .map((expert) => expertOf(file, field, expert.trim() === "" ? expert : Number(expert)))
    const layers = entry(sequences, batch < 0 ? 0 : whole(batch, "Batch Number"), () => new Map())
    entry(layers, whole(layer, "Layer ID"), () => []).push(chosen)
  }
  const parts = [...sequences]
    .toSorted((a, b) => a[0] - b[0])
    .map(([sequence, byLayer]) => ({ name: `batch ${sequence}`, byLayer }))
  return { ...tokensOfSteps(file, parts), steps: undefined }
}
