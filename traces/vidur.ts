// Tables that Vidur profiles models and networks into (`mlp.csv`, `attention.csv`, `all_reduce.csv`, `send_recv.csv`): statistics of each op in
// milliseconds, in columns `time_stats.<op>.median`. Knows what its programs time, and nothing of this project's own tables.
import { counted } from "../core/units.ts"
import { median } from "../core/median.ts"
import type { CollectiveCost, OpCost } from "../core/profile.ts"
import { commaHint, type Line } from "./text.ts"
import { showValue, TraceError } from "./trace-error.ts"

const statistic = /^time_stats\.(\w+)\.median$/u

/** Whether a first line is of such a table. */
export const isVidur = (names: ReadonlyArray<string>): boolean => names.some((name) => statistic.test(name))

interface VidurTables {
  readonly ops: ReadonlyArray<OpCost>
  readonly collectives: ReadonlyArray<CollectiveCost>
  readonly warnings: ReadonlyArray<string>
}

/** Vidur's names of collectives are torch's, and ours. Sizes are bytes of its buffer: one rank's input; its output of a reduce-scatter. */
const collectives: ReadonlySet<string> = new Set([
  "all_reduce",
  "all_gather",
  "reduce_scatter",
  "broadcast",
  "send_recv"
])

interface Sizes {
  readonly width: number
  readonly ffn: number
  readonly heads: number
  readonly kvHeads: number
  readonly gated: boolean
  readonly parts: number
}

/** Weights of a decoder layer divided among `parts` ranks, [k, n] of each product. */
const products: Readonly<Record<string, (sizes: Sizes) => readonly [k: number, n: number]>> = {
  attn_pre_proj: ({ width, heads, kvHeads, parts }) => [
    width,
    ((heads + 2 * kvHeads) * (width / heads)) / parts
  ],
  attn_post_proj: ({ width, parts }) => [width / parts, width],
  mlp_up_proj: ({ width, ffn, gated, parts }) => [width, ((gated ? 2 : 1) * ffn) / parts],
  mlp_down_proj: ({ width, ffn, parts }) => [ffn / parts, width]
}

/** Attention of a rank's heads: of a whole prompt over itself, or of a new token of each sequence over what is cached. */
const attention: ReadonlySet<string> = new Set(["attn_prefill", "attn_decode"])

const attentionColumns = ["n_embd", "n_q_head", "n_kv_head", "batch_size", "prefill_chunk_size", "kv_cache_size", "is_prefill"] // prettier-ignore

/** The row's attention; undefined of part of a prompt, which reads what was cached before it. */
const attentionOf = (op: string, row: Row): OpCost | undefined => {
  const isPrefill = /^(?:true|1)$/iu.test(row.text("is_prefill"))
  const cached = row.number("kv_cache_size", "a whole number, at least 0")!
  if (isPrefill !== (op === "attn_prefill") || (isPrefill && cached > 0)) return undefined
  const parts = row.has("num_tensor_parallel_workers") ? row.whole("num_tensor_parallel_workers") : 1
  const heads = row.whole("n_q_head")
  const attributes = {
    q_heads: heads / parts,
    kv_heads: row.whole("n_kv_head") / parts,
    d: row.whole("n_embd") / heads
  }
  if (!Object.values(attributes).every(Number.isInteger))
    throw row.bad("n_q_head", row.text("n_q_head"), "a model whose heads divide evenly among its ranks")
  const batch = row.whole("batch_size")
  return {
    op: isPrefill ? "attention_prefill_fp16" : "attention_decode_fp16",
    // The new token's own key and value are read with those that were cached.
    attributes: isPrefill
      ? { batch, tokens: row.whole("prefill_chunk_size"), ...attributes }
      : { batch, kv: cached + 1, ...attributes },
    medianSeconds: 0
  }
}

/** Throws `TraceError` that names line and column. `lines`: without the header. */
export const vidurTables = (file: string, head: Line, lines: ReadonlyArray<Line>): VidurTables => {
  const names = head.cells
  const timed = names.flatMap((name, column) => {
    const op = statistic.exec(name)?.[1]
    return op === undefined ? [] : [{ op, column, name }]
  })
  const needs = (column: string): void => {
    if (names.includes(column)) return
    const accepted = `the column ${column}, as Vidur's tables have`
    throw new TraceError({ file, field: `line ${head.number}, header`, value: "missing", accepted })
  }
  interface Times<A> {
    readonly row: A
    readonly ms: Array<number>
  }
  const ops = new Map<string, Times<OpCost>>()
  const all = new Map<string, Times<CollectiveCost>>()
  const add = <A>(to: Map<string, Times<A>>, key: string, row: A, ms: number): void => {
    const found = to.get(key)
    if (found === undefined) to.set(key, { row, ms: [ms] })
    else found.ms.push(ms)
  }
  const isUsed = (op: string) => collectives.has(op) || attention.has(op) || products[op] !== undefined
  const unused = timed.filter(({ op }) => !isUsed(op))
  let without = 0
  let partial = 0
  for (const line of lines) {
    const row = rowOf(file, line, names)
    for (const { op, name } of timed) {
      const product = products[op]
      const isCollective = collectives.has(op)
      if (!isUsed(op)) continue
      const ms = row.number(name, "milliseconds, at least 0", { mayBeBlank: true })
      if (ms === undefined || ms === 0) {
        without++
        continue
      }
      if (attention.has(op)) {
        for (const column of attentionColumns) needs(column)
        const cost = attentionOf(op, row)
        if (cost === undefined) partial++
        else add(ops, [cost.op, ...Object.values(cost.attributes)].join(" "), cost, ms)
        continue
      }
      if (isCollective) {
        for (const column of ["num_workers", "size"]) needs(column)
        const ranks = row.whole("num_workers")
        const perNode = names.includes("devices_per_node") ? row.whole("devices_per_node") : ranks
        const cost: CollectiveCost = {
          op: op as CollectiveCost["op"],
          ranks,
          sizeBytes: row.whole("size"),
          medianSeconds: 0,
          link: ranks > perNode ? "across nodes" : "unshaped"
        }
        add(all, [op, ranks, cost.sizeBytes, cost.link].join(" "), cost, ms)
        continue
      }
      for (const column of ["num_tokens", "n_embd", "n_expanded_embd", "n_head", "n_kv_head"]) needs(column)
      const [k, n] = product!({
        width: row.whole("n_embd"),
        ffn: row.whole("n_expanded_embd"),
        heads: row.whole("n_head"),
        kvHeads: row.whole("n_kv_head"),
        gated: names.includes("use_gated_mlp") && /^(?:true|1)$/iu.test(row.text("use_gated_mlp")),
        parts: names.includes("num_tensor_parallel_workers") ? row.whole("num_tensor_parallel_workers") : 1
      })
      if (!Number.isInteger(k) || !Number.isInteger(n))
        throw row.bad("n_embd", `${k} x ${n}`, "a model whose weights divide evenly among its ranks")
      const m = row.whole("num_tokens")
      // Vidur's models are of 16 bits.
      add(ops, [m, k, n].join(" "), { op: "gemm_fp16", attributes: { m, k, n }, medianSeconds: 0 }, ms)
    }
  }
  if (ops.size === 0 && all.size === 0) {
    const known = [...Object.keys(products), ...attention, ...collectives].map(
      (op) => `time_stats.${op}.median`
    )
    throw new TraceError({
      file,
      field: "content",
      value: timed.map(({ name }) => name).join(", "),
      accepted: `rows with times of ${known.join(", ")}`
    })
  }
  const told = <A extends { readonly medianSeconds: number }>(from: Map<string, Times<A>>) =>
    [...from.values()].map(({ row, ms }) => ({ ...row, medianSeconds: median(ms) * 1e-3 }))
  const rows = told(all)
  const across = rows.filter(({ link }) => link !== "unshaped").length
  return {
    ops: told(ops),
    collectives: rows,
    warnings: [
      ...(unused.length === 0
        ? []
        : [
            `columns of ${unused.map(({ op }) => op).join(", ")} are neither products of matrices nor attention and were left out`
          ]),
      ...(partial === 0
        ? []
        : [`${partial} times are of parts of prompts, which read what was cached before: left out`]),
      ...(without === 0
        ? []
        : [`${counted(without, "time", "is blank or 0 and was", "are blank or 0 and were")} left out`]),
      ...(across === 0 || across === rows.length ? [] : [toldApart(across)])
    ]
  }
}

const toldApart = (across: number): string =>
  `${counted(across, "row", "is", "are")} of ranks on several nodes: told apart by link, "across nodes"`

interface Row {
  readonly bad: (column: string, value: string, accepted: string) => TraceError
  readonly has: (column: string) => boolean
  readonly text: (column: string) => string
  readonly number: (
    column: string,
    accepted: string,
    limits?: { readonly mayBeBlank?: boolean; readonly min?: number }
  ) => number | undefined
  readonly whole: (column: string) => number
}

const rowOf = (file: string, { number, cells }: Line, names: ReadonlyArray<string>): Row => {
  const bad = (column: string, value: string, accepted: string) =>
    new TraceError({ file, field: `line ${number}, column ${column}`, value: showValue(value), accepted })
  if (cells.length !== names.length) {
    const accepted = `${names.length} cells, as in the header`
    throw new TraceError({ file, field: `line ${number}`, value: `${cells.length} cells`, accepted })
  }
  const text = (column: string): string => cells[names.indexOf(column)]!
  const numberAt = (
    column: string,
    accepted: string,
    { mayBeBlank = false, min = 0 } = {}
  ): number | undefined => {
    const cell = text(column)
    if (mayBeBlank && /^(?:|nan)$/iu.test(cell)) return undefined
    const value = /^\d+(?:\.\d*)?(?:e[+-]?\d+)?$/iu.test(cell) ? Number(cell) : Number.NaN
    if (!(value >= min && value <= Number.MAX_SAFE_INTEGER))
      throw bad(column, cell, accepted + commaHint(cell))
    return value
  }
  return {
    bad,
    has: (column) => names.includes(column),
    text,
    number: numberAt,
    whole: (column) => {
      const accepted = "a whole number, at least 1"
      const value = numberAt(column, accepted, { min: 1 })!
      if (!Number.isInteger(value)) throw bad(column, text(column), accepted)
      return value
    }
  }
}
