// SGLang's expert distribution recorder in mode per_token, its records saved as JSON (tensors as lists): each a forward pass
// with topk_ids_of_layer [layers][tokens][8], -1 where a layer has no experts and behind those of a smaller top k. Passes of
// several ranks are put together. Ids are of places where experts lie (with EPLB, more than there are experts): what lies there is
// in last_physical_to_logical_map [layers][places].
import { decodeText } from "../text.ts"
import { TraceError } from "../trace-error.ts"
import { entry, isList, isRecord, jsonOf, listOf, rowsOf, type Rows } from "./json-values.ts"
import { expertOf, tokensOfSteps, type TokenChoices } from "./tokens.ts"

const conversion =
  "JSON, as this makes of it: python -c \"import torch,json,sys; json.dump(torch.load(sys.argv[1], weights_only=False), open(sys.argv[2], 'w'), default=lambda v: v.tolist())\" in.pt out.json"

const perToken =
  "records of mode per_token (--expert-distribution-recorder-mode per_token), which have topk_ids_of_layer"

/** The choices of a token, without what fills them up to the recorder's eight. */
const withoutPadding = (token: unknown): unknown =>
  isList(token) ? token.slice(0, token.findLastIndex((expert) => expert !== -1) + 1) : token

/** Which experts lie at places of a layer. */
const expertsAt = (file: string, field: string, places: Rows, layer: number, given: unknown): Rows => {
  const map = listOf(file, `last_physical_to_logical_map[${layer}]`, given, "a list of experts")
  return places.map((token, t) =>
    token.map((place, k) => {
      if (place < map.length)
        return expertOf(file, `last_physical_to_logical_map[${layer}][${place}]`, map[place])
      const accepted = `a place below ${map.length}, as last_physical_to_logical_map has`
      throw new TraceError({ file, field: `${field}[${t}][${k}]`, value: String(place), accepted })
    })
  )
}

export const sglang = (file: string, bytes: Uint8Array): TokenChoices => {
  if (bytes[0] === 0x50 && bytes[1] === 0x4b) {
    throw new TraceError({ file, field: "content", value: "a file of torch.save", accepted: conversion })
  }
  const parsed = jsonOf(file, "content", decodeText(file, bytes))
  if (isRecord(parsed) && parsed["records"] === undefined && parsed["logical_count"] !== undefined) {
    const value = "counts of a whole recording (mode stat), which say of no token what it chose"
    throw new TraceError({ file, field: "logical_count", value, accepted: perToken })
  }
  const records = listOf(
    file,
    "records",
    isRecord(parsed) ? parsed["records"] : parsed,
    "a list of forward passes"
  )
  const logical = isRecord(parsed) ? parsed["last_physical_to_logical_map"] : undefined
  const placed =
    logical === undefined || logical === null
      ? undefined
      : listOf(file, "last_physical_to_logical_map", logical, "lists [layers][places]")
  const passes = new Map<number, Array<{ readonly rank: number; readonly layers: Map<number, Rows> }>>()
  records.forEach((record, index) => {
    const place = `records[${index}]`
    if (
      isRecord(record) &&
      record["topk_ids_of_layer"] === undefined &&
      record["global_physical_count"] !== undefined
    ) {
      const value = "counts of a forward pass (mode per_pass), which say of no token what it chose"
      throw new TraceError({ file, field: `${place}.global_physical_count`, value, accepted: perToken })
    }
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
      if (isDense) return
      const places = rowsOf(file, field, tokens.map(withoutPadding))
      layers.set(layer, placed === undefined ? places : expertsAt(file, field, places, layer, placed[layer]))
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
