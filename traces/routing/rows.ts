// Choices as rows of a table or of JSON lines, as people write them down: one for each choice (step, layer, token, choice, expert, as a
// routing file has them too), or one for each token and layer with a list of its experts. Knows names of columns, and no tool.
import { decodeText, tableLines, textLines } from "../text.ts"
import { showValue, TraceError } from "../trace-error.ts"
import { entry, isList, isRecord, jsonOf, type Rows } from "./json-values.ts"
import { expertOf, tokensByLayer, tokensOfSteps, type TokenChoices } from "./tokens.ts"

/** Without case and without what is no letter. */
const lettersOf = (name: string): string => name.toLowerCase().replaceAll(/[^a-z]/gu, "")

const columnNames = {
  step: ["step", "iteration", "iter", "decodestep", "forwardpassid"],
  layer: ["layer", "layerid", "layeridx", "layerindex", "layernumber", "moelayer"],
  token: ["token", "tokenindex", "tokenidx", "tokenposition", "tokenpos", "position", "pos"],
  choice: ["choice", "k", "slot", "rank", "order"],
  expert: ["expert", "expertid", "expertidx", "expertindex", "experts", "expertids", "topkids", "topkindices", "topindices", "topkexperts", "selectedexperts", "chosenexperts", "routedexperts", "activatedexperts"] // prettier-ignore
} as const

type Column = keyof typeof columnNames

/** A row as it is written: the place, and what is under each column. */
interface Written {
  readonly place: string
  readonly of: (column: Column) => unknown
  readonly has: (column: Column) => boolean
}

const finder = (names: ReadonlyArray<string>) => {
  const plain = names.map(lettersOf)
  return (column: Column): number =>
    columnNames[column].reduce((found, name) => (found >= 0 ? found : plain.indexOf(name)), -1)
}

const accepted =
  "the columns layer, token and expert (or a list of experts); step and choice where there are some"

const writtenRows = (file: string, text: string): ReadonlyArray<Written> => {
  if (/^\s*[[{]/u.test(text)) {
    const whole = text.trimStart().startsWith("[")
    const list = whole
      ? jsonOf(file, "content", text)
      : textLines(text).flatMap((line, i) =>
          line.trim() === "" ? [] : [jsonOf(file, `line ${i + 1}`, line.trim().replace(/,$/u, ""))]
        )
    return (isList(list) ? list : []).map((row, index): Written => {
      const place = whole ? `[${index}]` : `line ${index + 1}`
      if (!isRecord(row)) throw new TraceError({ file, field: place, value: showValue(row), accepted })
      const names = Object.keys(row)
      const at = finder(names)
      return { place, of: (column) => row[names[at(column)] ?? ""], has: (column) => at(column) >= 0 }
    })
  }
  const knows = (names: ReadonlyArray<string>) => finder(names)("layer") >= 0 && finder(names)("expert") >= 0
  const [head, ...lines] = tableLines(file, text, knows)
  const at = finder(head?.cells ?? [])
  return lines.map(({ number, cells }): Written => ({
    place: `line ${number}`,
    of: (column) => cells[at(column)],
    has: (column) => at(column) >= 0
  }))
}

/** Experts of a cell: a number, a list, or text with either in it. */
const expertsOf = (file: string, field: string, value: unknown): ReadonlyArray<number> => {
  if (isList(value)) return value.map((each, k) => expertOf(file, `${field}[${k}]`, each))
  if (typeof value !== "string") return [expertOf(file, field, value)]
  const text = /^[[({]?([\d\s,;]*\d)[\])}]?$/u.exec(value.trim())?.[1]
  if (text === undefined) return [expertOf(file, field, value)]
  return text.split(/[\s,;]+/u).map((each) => expertOf(file, field, each === "" ? each : Number(each)))
}

/** A token's choices at a layer: in order of `choice` where rows say it. */
interface Choices {
  readonly experts: Array<number>
  readonly order: Array<number>
}

export const rows = (file: string, bytes: Uint8Array): TokenChoices => {
  const written = writtenRows(file, decodeText(file, bytes))
  const [first] = written
  const lists = first !== undefined && expertsAre(first)
  if (first === undefined || !first.has("layer") || !first.has("expert") || !(first.has("token") || lists))
    throw new TraceError({ file, field: first?.place ?? "content", value: "none of choices", accepted })
  const steps = new Map<number, Map<number, Map<number, Choices>>>()
  for (const row of written) {
    const number = (column: Column): number => {
      const value = row.of(column)
      const whole = typeof value === "string" && /^\d+(?:\.0*)?$/u.test(value.trim()) ? Number(value) : value
      return expertOf(file, `${row.place}, ${column}`, whole)
    }
    const layers = entry(steps, row.has("step") ? number("step") : 0, () => new Map())
    const tokens = entry(layers, number("layer"), () => new Map<number, Choices>())
    const token = row.has("token") ? number("token") : tokens.size
    const { experts, order } = entry(tokens, token, (): Choices => ({ experts: [], order: [] }))
    for (const expert of expertsOf(file, `${row.place}, expert`, row.of("expert"))) {
      order.push(row.has("choice") ? number("choice") : experts.length)
      experts.push(expert)
    }
  }
  const parts = [...steps]
    .toSorted((a, b) => a[0] - b[0])
    .map(([step, layers]) => ({
      name: `step ${step}`,
      byLayer: new Map([...layers].map(([layer, tokens]) => [layer, ordered(tokens)]))
    }))
  return first.has("step")
    ? tokensOfSteps(file, parts)
    : { ...tokensByLayer(file, parts[0]!.byLayer), steps: undefined }
}

/** Whether a row has all of a token's experts. */
const expertsAre = (row: Written): boolean => {
  const value = row.of("expert")
  return isList(value) || (typeof value === "string" && /[\s,;[]/u.test(value.trim()))
}

const ordered = (tokens: ReadonlyMap<number, Choices>): Rows =>
  [...tokens]
    .toSorted((a, b) => a[0] - b[0])
    .map(([, { experts, order }]) =>
      experts
        .map((expert, k) => ({ expert, at: order[k]! }))
        .toSorted((a, b) => a.at - b.at)
        .map(({ expert }) => expert)
    )
