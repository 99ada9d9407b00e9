// What a trace's texts of shapes and dtypes say. Knows nothing of events.
import type { GradientShape } from "./trace.ts"

const dtypes: Readonly<Record<string, string>> = {
  float: "float32",
  half: "float16",
  double: "float64",
  "long int": "int64",
  long: "int64",
  int: "int32"
}

/** As PyTorch records a dtype ("c10::BFloat16", "torch.bfloat16", "Half"), by its name here. */
export const dtypeOf = (name: string): string => {
  const plain = name
    .toLowerCase()
    .replace(/^(?:c10::|at::|torch\.|k(?=(?:float|half|bfloat16|double)$))/u, "")
  return dtypes[plain] ?? plain
}

/** What an AccumulateGrad op got, by its inputs' shapes and dtypes; undefined where they do not say. */
export const gradientShape = (dims: unknown, types: unknown): GradientShape | undefined => {
  const first: unknown = Array.isArray(dims) ? dims[0] : undefined
  if (!Array.isArray(first)) return undefined
  const shape: Array<number> = []
  for (const extent of first) {
    if (typeof extent !== "number" || !Number.isInteger(extent) || extent < 0 || extent >= 2 ** 31)
      return undefined
    shape.push(extent)
  }
  if (shape.reduce((product, extent) => product * extent, 1) > Number.MAX_SAFE_INTEGER) return undefined
  const type: unknown = Array.isArray(types) ? types[0] : undefined
  // An undefined gradient has neither shape nor type; a scalar has a type.
  if (shape.length === 0 && (type === undefined || type === "")) return undefined
  return { shape, dtype: typeof type === "string" && type !== "" ? dtypeOf(type) : "float32" }
}

/** Shapes of an op's inputs that are tensors, as `shapeKey` has them. */
export const inputShapes = (dims: unknown): ReadonlyArray<string> =>
  Array.isArray(dims)
    ? dims.flatMap((shape: unknown) =>
        Array.isArray(shape) && shape.length > 0 && shape.every((extent) => typeof extent === "number")
          ? [shapeKey(shape as ReadonlyArray<number>)]
          : []
      )
    : []

/** A shape as a text, to compare shapes by. */
export const shapeKey = (shape: ReadonlyArray<number>): string => shape.join("x")
