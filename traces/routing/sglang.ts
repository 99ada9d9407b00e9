// SGLang's expert distribution recorder in mode per_token, its records saved as JSON (tensors as lists): each a forward pass
// with topk_ids_of_layer [layers][tokens][top k], -1 where a layer has no experts. Passes of several ranks are put together.
import { decodeText } from "../text.ts"
import { TraceError } from "../trace-error.ts"
import { entry, isList, isRecord, jsonOf, listOf, rowsOf, type Rows } from "./json-values.ts"
import { expertOf, tokensOfSteps, type TokenChoices } from "./tokens.ts"

const conversion =
  "JSON, as this makes of it: python -c \"import torch,json,sys; json.dump([{k: (v.tolist() if hasattr(v, 'tolist') else v) for k, v in r.items() if k in ('rank', 'forward_pass_id', 'topk_ids_of_layer')} for r in torch.load(sys.argv[1], weights_only=False)['records']], open(sys.argv[2], 'w'))\" in.pt out.json"

export const sglang = (file: string, bytes: Uint8Array): TokenChoices => {
  if (bytes[0] === 0x50 && bytes[1] === 0x4b) {
    throw new TraceError({ file, field: "content", value: "a file of torch.save", accepted: conversion })
  }
  const parsed = jsonOf(file, "content", decodeText(file, bytes))
  const records = listOf(
    file,
    "records",
    isRecord(parsed) ? parsed["records"] : parsed,
    "a list of forward passes"
  )
  const passes = new Map<number, Array<{ readonly rank: number; readonly layers: Map<number, Rows> }>>()
  records.forEach((record, index) => {
    const place = `records[${index}]`
    const ids = listOf(
      file,
      `${place}.topk_ids_of_layer`,
      isRecord(record) ? record["topk_ids_of_layer"] : undefined,
      "lists [layers][tokens][top k]"
    )
    const layers = new Map<number, Rows>()
    ids.forEach((given, layer) => {
      const field = `${place}.topk_ids_of_layer[${layer}]`
      const tokens = listOf(file, field, given, "a list of tokens")
      const isDense = tokens.every((token) => isList(token) && token.every((expert) => expert === -1))
      if (!isDense) layers.set(layer, rowsOf(file, field, tokens))
    })
    if (layers.size === 0 || !isRecord(record)) return
    const pass = expertOf(file, `${place}.forward_pass_id`, record["forward_pass_id"] ?? index)
    const rank = expertOf(file, `${place}.rank`, record["rank"] ?? 0)
    entry(passes, pass, () => []).push({ rank, layers })
  })
  const steps = [...passes]
    .toSorted((a, b) => a[0] - b[0])
    .map(([pass, parts]) => {
      const byLayer = new Map<number, Rows>()
      for (const { layers } of parts.toSorted((a, b) => a.rank - b.rank))
        for (const [layer, rows] of layers) byLayer.set(layer, [...(byLayer.get(layer) ?? []), ...rows])
      return { name: `forward pass ${pass}`, byLayer }
    })
  return tokensOfSteps(file, steps)
}
