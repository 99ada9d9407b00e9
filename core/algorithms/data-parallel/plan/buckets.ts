// How gradients are grouped into all-reduces. Knows parameters as sizes in the order their gradients become ready; nothing
// of the model they come from or of time.

/** One gradient. `layer` is the layer whose backward pass produces it. */
export interface GradientSize {
  readonly layer: number
  readonly sizeBytes: number
  /** Gradients of different dtypes never share a bucket. */
  readonly dtype: string
}

/** Gradients that one all-reduce carries. */
export interface Bucket {
  /** Indices into the ready order. */
  readonly parameters: ReadonlyArray<number>
  readonly sizeBytes: number
  readonly dtype: string
  /**
   * Index into the ready order of the gradient after which this bucket may be reduced. Buckets are launched in order
   * (as DDP's reducer does), so this is the latest gradient of this and all earlier buckets.
   */
  readonly readyAfter: number
}

/** Sizes at which PyTorch DDP's buckets close, bytes. */
export interface BucketLimits {
  /** Default 1 MiB: a small first bucket lets communication start early. */
  readonly firstBucketBytes?: number
  /** Default 25 MiB (`bucket_cap_mb=25`). */
  readonly bucketBytes?: number
}

interface OpenBucket {
  parameters: Array<number>
  sizeBytes: number
}

/** Adds what follows from the order of launch. */
const inLaunchOrder = (
  gradients: ReadonlyArray<GradientSize>,
  closed: ReadonlyArray<OpenBucket>
): ReadonlyArray<Bucket> => {
  let readyAfter = -1
  return closed.map(({ parameters, sizeBytes }) => {
    readyAfter = Math.max(readyAfter, parameters.at(-1)!)
    return { parameters, sizeBytes, dtype: gradients[parameters[0]!]!.dtype, readyAfter }
  })
}

/**
 * PyTorch DDP's buckets: what `compute_bucket_assignment_by_size` makes of the gradient-ready order when the reducer rebuilds
 * its buckets after the first iteration. A gradient joins the open bucket of its dtype; the bucket closes when it has
 * reached its limit, so it may exceed the limit by part of its last gradient, and a gradient over the limit is never split.
 * Each dtype's first bucket has the first limit, all its later ones the second. Buckets are launched in the order
 * they closed, then the unfilled ones. (PyTorch leaves the order of two unfilled buckets of different dtypes to a hash
 * table; here it is that of their first gradients.)
 */
export const ddpBuckets = (
  gradients: ReadonlyArray<GradientSize>,
  limits: BucketLimits = {}
): ReadonlyArray<Bucket> => {
  const firstBytes = limits.firstBucketBytes ?? 2 ** 20
  const laterBytes = limits.bucketBytes ?? 25 * 2 ** 20
  const open = new Map<string, OpenBucket & { limitBytes: number }>()
  const closed: Array<OpenBucket> = []
  for (const [index, { sizeBytes, dtype }] of gradients.entries()) {
    const bucket = open.get(dtype) ?? { parameters: [], sizeBytes: 0, limitBytes: firstBytes }
    bucket.parameters.push(index)
    bucket.sizeBytes += sizeBytes
    if (bucket.sizeBytes >= bucket.limitBytes) {
      closed.push(bucket)
      open.set(dtype, { parameters: [], sizeBytes: 0, limitBytes: laterBytes })
    } else open.set(dtype, bucket)
  }
  const unfilled = [...open.values()]
    .filter(({ parameters }) => parameters.length > 0)
    .toSorted((a, b) => a.parameters[0]! - b.parameters[0]!)
  return inLaunchOrder(gradients, [...closed, ...unfilled])
}

/** One bucket per key, in the order of the keys' first gradients. */
const bucketsBy = (
  gradients: ReadonlyArray<GradientSize>,
  key: (gradient: GradientSize) => string
): ReadonlyArray<Bucket> => {
  const buckets = new Map<string, OpenBucket>()
  for (const [index, gradient] of gradients.entries()) {
    const bucket = buckets.get(key(gradient)) ?? { parameters: [], sizeBytes: 0 }
    bucket.parameters.push(index)
    bucket.sizeBytes += gradient.sizeBytes
    buckets.set(key(gradient), bucket)
  }
  // In order of completion: a bucket must not be held up by one that is ready later.
  const closed = [...buckets.values()].toSorted((a, b) => a.parameters.at(-1)! - b.parameters.at(-1)!)
  return inLaunchOrder(gradients, closed)
}

/** One bucket per layer (and dtype), in the order the layers' last gradients are ready: wait-free backpropagation. */
export const perLayerBuckets = (gradients: ReadonlyArray<GradientSize>): ReadonlyArray<Bucket> =>
  bucketsBy(gradients, ({ layer, dtype }) => `${layer} ${dtype}`)

/** One bucket per dtype: nothing is sent before the last gradient is ready (S-SGD without overlap). */
export const singleBucket = (gradients: ReadonlyArray<GradientSize>): ReadonlyArray<Bucket> =>
  bucketsBy(gradients, ({ dtype }) => dtype)
