// Attention in tiles on the ordinary cores, all of it in float32 (FlashAttention-2, Dao 2023): a block keeps 64 rows of one head and
// goes over what these meet, tile by tile. Heads up to `width` wide, zeros beyond their own width. Every sum has an order of its own,
// which depends on sizes alone. Includes nothing of CUDA's, for native/test/tiles runs it on a processor: whoever includes it has
// tensors (values.cuh) and their places (attention-operands.h) before.
#pragma once

#include "ptx.cuh"

namespace tandem::cuda::tiled {

constexpr int threads = 128;
/** That a block keeps: of queries, or of keys for the gradients of keys and values. A warp has 16 of them, a thread 8. */
constexpr int rows = 64;
constexpr int own = 8;
/** Threads that share a row. */
constexpr int across = 16;

/** Rows of a tile are so many floats apart that eight of them, one after another, are pieces of 16 bytes in all banks. */
template <int width>
constexpr int stride = width + 4;

/** Columns of a tile that goes by: keys, or queries for the gradients of keys and values. */
template <int width>
constexpr int backwardColumns = width > 64 ? 32 : 64;
constexpr int forwardColumns = 64;

constexpr int larger(int a, int b) { return a > b ? a : b; }

/** Floats of a tile that products of weights lie in, once nobody reads it any more. */
template <int width, int columns>
constexpr int columnFloats = larger(columns* stride<width>, rows* columns);

template <int width>
constexpr size_t forwardBytes =
    sizeof(float) * (rows * stride<width> + columnFloats<width, forwardColumns> + forwardColumns * stride<width>);
template <int width>
constexpr size_t queryBytes =
    sizeof(float) * (2 * rows * stride<width> + columnFloats<width, backwardColumns<width>> + backwardColumns<width> * stride<width>);
template <int width>
constexpr size_t keyBytes =
    sizeof(float) * (2 * rows * stride<width> + 2 * backwardColumns<width> * stride<width> + rows * backwardColumns<width>);

__device__ inline int acrossLane() { return static_cast<int>(threadIdx.x) % across; }
/** The i-th row of this thread's warp and half of it: neighbours, whose pieces lie in different banks. */
__device__ inline int rowOf(int i) { return static_cast<int>(threadIdx.x) / 32 * 16 + 2 * i + static_cast<int>(threadIdx.x) % 32 / across; }

/** Four floats on 16 bytes. */
__device__ inline float4 four(const float* from) { return *reinterpret_cast<const float4*>(from); }

/**
 * Rows first .. first + count - 1 of one head, zeros from `end` on and beyond the head's width. `pieces`: float32 rows on 16 bytes, which
 * are there once they are waited for; others at the block's next barrier.
 */
template <int width, int count, bool pieces>
__device__ inline void copyTile(float* to, const Heads& from, int64_t token, int64_t head, int64_t headWidth, int64_t first,
                                int64_t end) {
  const int64_t base = token * from.stride + head * headWidth;
  constexpr int step = pieces ? 4 : 1;
  constexpr int inRow = width / step;
  for (int i = threadIdx.x; i < count * inRow; i += threads) {
    const int row = i / inRow;
    const int c = i % inRow * step;
    const bool valid = first + row < end && c < headWidth;
    const int64_t at = valid ? base + (first + row) * from.stride + c : 0;
    float* const place = to + row * stride<width> + c;
    if constexpr (pieces) {
      copyLater(sharedAddress(place), static_cast<const float*>(from.view.data) + at, valid);
    } else {
      *place = valid ? get(from.view, at) : 0.0f;
    }
  }
}

/** sums[i][j] = row i of `left` . row j of `right`, of this thread's rows and every 16th of the other tile's. */
template <int width, int columns>
__device__ inline void rowProducts(const float* left, const float* right, float (&sums)[own][columns / across]) {
  constexpr int each = columns / across;
#pragma unroll
  for (int i = 0; i < own; i++) {
#pragma unroll
    for (int j = 0; j < each; j++) sums[i][j] = 0;
  }
  left += rowOf(0) * stride<width>;
  right += acrossLane() * stride<width>;
#pragma unroll 1
  for (int k = 0; k < width; k += 4) {
    float4 r[each];
#pragma unroll
    for (int j = 0; j < each; j++) r[j] = four(right + j * across * stride<width> + k);
#pragma unroll
    for (int i = 0; i < own; i++) {
      const float4 l = four(left + 2 * i * stride<width> + k);
#pragma unroll
      for (int j = 0; j < each; j++) sums[i][j] = fmaf(l.x, r[j].x, sums[i][j]);
#pragma unroll
      for (int j = 0; j < each; j++) sums[i][j] = fmaf(l.y, r[j].y, sums[i][j]);
#pragma unroll
      for (int j = 0; j < each; j++) sums[i][j] = fmaf(l.z, r[j].z, sums[i][j]);
#pragma unroll
      for (int j = 0; j < each; j++) sums[i][j] = fmaf(l.w, r[j].w, sums[i][j]);
    }
  }
}

/** Where column c of a row of weights lies: halves of 32 are the other way round in odd rows, so that two rows are in all banks. */
template <int columns>
__device__ inline int weightAt(int row, int c) {
  return row * columns + (c ^ (row % 2 * across));
}

/** This thread's weights go where its warp reads them; a warp's rows are its own. */
template <int columns>
__device__ inline void storeWeights(float* to, const float (&weights)[own][columns / across]) {
#pragma unroll
  for (int i = 0; i < own; i++) {
#pragma unroll
    for (int j = 0; j < columns / across; j++) to[weightAt<columns>(rowOf(i), acrossLane() + j * across)] = weights[i][j];
  }
  __syncwarp();
}

/** Adds the rows of `right`, by the weights of each of this thread's rows: of every four of 64 columns one piece. */
template <int width, int columns>
__device__ inline void mixRows(const float* weights, const float* right, float (&sums)[own][width / across]) {
  constexpr int parts = width / 64;
  right += 4 * acrossLane();
#pragma unroll 1
  for (int k = 0; k < columns; k += 4) {
    float4 r[4][parts];
#pragma unroll
    for (int n = 0; n < 4; n++) {
#pragma unroll
      for (int p = 0; p < parts; p++) r[n][p] = four(right + (k + n) * stride<width> + 64 * p);
    }
#pragma unroll
    for (int i = 0; i < own; i++) {
      const float4 w = four(weights + weightAt<columns>(rowOf(i), k));
      const float w4[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
      for (int n = 0; n < 4; n++) {
#pragma unroll
        for (int p = 0; p < parts; p++) {
          sums[i][4 * p] = fmaf(w4[n], r[n][p].x, sums[i][4 * p]);
          sums[i][4 * p + 1] = fmaf(w4[n], r[n][p].y, sums[i][4 * p + 1]);
          sums[i][4 * p + 2] = fmaf(w4[n], r[n][p].z, sums[i][4 * p + 2]);
          sums[i][4 * p + 3] = fmaf(w4[n], r[n][p].w, sums[i][4 * p + 3]);
        }
      }
    }
  }
}

/** This thread's sums of rows first .. `end` - 1. */
template <int width, bool pieces>
__device__ inline void storeRows(const Heads& to, int64_t token, int64_t head, int64_t headWidth, int64_t first, int64_t end,
                                 const float (&sums)[own][width / across]) {
#pragma unroll
  for (int i = 0; i < own; i++) {
    const int64_t row = first + rowOf(i);
    if (row >= end) continue;
    const int64_t base = (token + row) * to.stride + head * headWidth;
#pragma unroll
    for (int p = 0; p < width / 64; p++) {
      const int c = 64 * p + 4 * acrossLane();
      const float* const from = sums[i] + 4 * p;
      if constexpr (pieces) {
        if (c < headWidth) {
          *reinterpret_cast<float4*>(static_cast<float*>(to.view.data) + base + c) = {from[0], from[1], from[2], from[3]};
        }
      } else {
#pragma unroll
        for (int n = 0; n < 4; n++) {
          if (c + n < headWidth) set(to.view, base + c + n, from[n]);
        }
      }
    }
  }
}

struct Largest {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};

/** Over the threads that share a row. */
template <class Op>
__device__ inline float acrossRow(float value, Op op) {
#pragma unroll
  for (int offset = across / 2; offset > 0; offset /= 2) value = op(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

/** A block's share of the work: tiles of the token axis, all heads and sequences of one before those of the next. */
struct Share {
  int64_t tile, head, batch;
};
__device__ inline Share shareOf(int64_t heads, int64_t batch) {
  const int64_t index = blockIdx.x;
  const int64_t rest = index % (heads * batch);
  return {index / (heads * batch), rest % heads, rest / heads};
}

/** How many of the keys from `first` on query t sees, as far as a tile goes; zero or less: none. */
__device__ inline int seenOf(const Attention& a, int64_t t, int64_t first) {
  const int64_t seen = min(a.context, a.visible(t)) - first;
  return static_cast<int>(max(int64_t{-1}, min(int64_t{1024}, seen)));
}

template <int width, bool pieces>
__device__ inline void forwardTile(const Attention& a, float* memory) {
  constexpr int columns = forwardColumns;
  constexpr int each = columns / across;
  float* const q = memory;
  float* const k = q + rows * stride<width>;
  // where keys were, once all have read them
  float* const weights = k;
  float* const v = k + columnFloats<width, columns>;
  const Share share = shareOf(a.heads, a.batch);
  // the longest first
  const int64_t first = ((a.time + rows - 1) / rows - 1 - share.tile) * rows;
  const int64_t kvHead = a.kvHead(share.head);
  const int64_t visible = min(a.context, a.visible(min(a.time, first + rows) - 1));

  float sums[own][width / across] = {};
  float highest[own], total[own];
#pragma unroll
  for (int i = 0; i < own; i++) {
    highest[i] = -INFINITY;
    total[i] = 0;
  }
  copyTile<width, rows, pieces>(q, a.q, share.batch * a.time, share.head, a.headWidth, first, a.time);
  for (int64_t key = 0; key < visible; key += columns) {
    copyTile<width, columns, pieces>(k, a.k, share.batch * a.context, kvHead, a.headWidth, key, a.context);
    commitCopies();
    copyTile<width, columns, pieces>(v, a.v, share.batch * a.context, kvHead, a.headWidth, key, a.context);
    commitCopies();
    awaitCopies<1>();
    __syncthreads();
    float scores[own][each];
    rowProducts<width, columns>(q, k, scores);
    const bool edge = key + columns > a.context || key + columns > a.visible(first);
#pragma unroll
    for (int i = 0; i < own; i++) {
      const int seen = edge ? seenOf(a, first + rowOf(i), key) : columns;
      float most = highest[i];
#pragma unroll
      for (int j = 0; j < each; j++) {
        scores[i][j] = acrossLane() + j * across < seen ? a.scale * scores[i][j] : -INFINITY;
        most = fmaxf(most, scores[i][j]);
      }
      most = acrossRow(most, Largest{});
      const float shrink = expf(highest[i] - most);
      highest[i] = most;
      total[i] *= shrink;
#pragma unroll
      for (int j = 0; j < each; j++) {
        scores[i][j] = expf(scores[i][j] - most);
        total[i] += scores[i][j];
      }
#pragma unroll
      for (int c = 0; c < width / across; c++) sums[i][c] *= shrink;
    }
    __syncthreads();
    storeWeights<columns>(weights, scores);
    awaitCopies<0>();
    __syncthreads();
    mixRows<width, columns>(weights, v, sums);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < own; i++) {
    const float sum = acrossRow(total[i], Sum{});
    const int64_t t = first + rowOf(i);
    if (acrossLane() == 0 && t < a.time) set(a.lse, (share.batch * a.heads + share.head) * a.time + t, highest[i] + logf(sum));
#pragma unroll
    for (int c = 0; c < width / across; c++) sums[i][c] /= sum;
  }
  storeRows<width, pieces>(a.out, share.batch * a.time, share.head, a.headWidth, first, a.time, sums);
}

/** What the forward pass left of a query, and delta of its gradient; of none, what makes no weight. */
struct Left {
  float lse, delta;
};
__device__ inline Left leftOf(const Attention& a, const float* delta, const Share& share, int64_t head, int64_t t) {
  if (t >= a.time) return {INFINITY, 0};
  const int64_t at = (share.batch * a.heads + head) * a.time + t;
  return {get(a.lse, at), delta[at]};
}

/** The score becomes a weight, and the gradient of the weight that of the score. */
__device__ inline void slopeOf(const Attention& a, float& score, float& change, const Left& left, bool seen) {
  score = seen ? expf(score * a.scale - left.lse) : 0.0f;
  change = seen ? a.scale * score * (change - left.delta) : 0.0f;
}

/** Gradients of a tile of queries. `delta`: dout . out of each row. */
template <int width, bool pieces>
__device__ inline void queryTile(const Attention& a, const float* delta, float* memory) {
  constexpr int columns = backwardColumns<width>;
  constexpr int each = columns / across;
  float* const q = memory;
  float* const dout = q + rows * stride<width>;
  float* const k = dout + rows * stride<width>;
  float* const v = k + columns * stride<width>;
  // where values were, once all have read them
  float* const slopes = v;
  const Share share = shareOf(a.heads, a.batch);
  const int64_t first = ((a.time + rows - 1) / rows - 1 - share.tile) * rows;
  const int64_t kvHead = a.kvHead(share.head);
  const int64_t visible = min(a.context, a.visible(min(a.time, first + rows) - 1));
  Left left[own];
#pragma unroll
  for (int i = 0; i < own; i++) left[i] = leftOf(a, delta, share, share.head, first + rowOf(i));

  float sums[own][width / across] = {};
  copyTile<width, rows, pieces>(q, a.q, share.batch * a.time, share.head, a.headWidth, first, a.time);
  copyTile<width, rows, pieces>(dout, a.dout, share.batch * a.time, share.head, a.headWidth, first, a.time);
  for (int64_t key = 0; key < visible; key += columns) {
    copyTile<width, columns, pieces>(k, a.k, share.batch * a.context, kvHead, a.headWidth, key, a.context);
    commitCopies();
    copyTile<width, columns, pieces>(v, a.v, share.batch * a.context, kvHead, a.headWidth, key, a.context);
    commitCopies();
    awaitCopies<1>();
    __syncthreads();
    float scores[own][each], changes[own][each];
    rowProducts<width, columns>(q, k, scores);
    awaitCopies<0>();
    __syncthreads();
    rowProducts<width, columns>(dout, v, changes);
    const bool edge = key + columns > a.context || key + columns > a.visible(first);
#pragma unroll
    for (int i = 0; i < own; i++) {
      const int seen = edge ? seenOf(a, first + rowOf(i), key) : columns;
#pragma unroll
      for (int j = 0; j < each; j++) slopeOf(a, scores[i][j], changes[i][j], left[i], acrossLane() + j * across < seen);
    }
    __syncthreads();
    storeWeights<columns>(slopes, changes);
    mixRows<width, columns>(slopes, k, sums);
    __syncthreads();
  }
  storeRows<width, pieces>(a.dq, share.batch * a.time, share.head, a.headWidth, first, a.time, sums);
}

/** Gradients of a tile of keys and of their values, over all queries of all heads that read them. */
template <int width, bool pieces>
__device__ inline void keyTile(const Attention& a, const float* delta, float* memory) {
  constexpr int columns = backwardColumns<width>;
  constexpr int each = columns / across;
  float* const k = memory;
  float* const v = k + rows * stride<width>;
  float* const q = v + rows * stride<width>;
  float* const dout = q + columns * stride<width>;
  float* const weights = dout + columns * stride<width>;
  // keys that most queries see come first
  const Share share = shareOf(a.kvHeads, a.batch);
  const int64_t first = share.tile * rows;
  const int64_t group = a.heads / a.kvHeads;
  // the first query that sees the first key, and the first that sees all of this tile
  const int64_t hidden = a.context - a.time;
  const int64_t from = a.causal ? max(int64_t{0}, first - hidden) / columns * columns : 0;
  const int64_t whole = a.causal ? max(int64_t{0}, first + rows - 1 - hidden) : 0;

  float keySums[own][width / across] = {};
  float valueSums[own][width / across] = {};
  copyTile<width, rows, pieces>(k, a.k, share.batch * a.context, share.head, a.headWidth, first, a.context);
  copyTile<width, rows, pieces>(v, a.v, share.batch * a.context, share.head, a.headWidth, first, a.context);
  for (int64_t head = share.head * group; head < (share.head + 1) * group; head++) {
    for (int64_t query = from; query < a.time; query += columns) {
      copyTile<width, columns, pieces>(q, a.q, share.batch * a.time, head, a.headWidth, query, a.time);
      commitCopies();
      copyTile<width, columns, pieces>(dout, a.dout, share.batch * a.time, head, a.headWidth, query, a.time);
      commitCopies();
      Left left[each];
#pragma unroll
      for (int j = 0; j < each; j++) left[j] = leftOf(a, delta, share, head, query + acrossLane() + j * across);
      awaitCopies<1>();
      __syncthreads();
      float scores[own][each], changes[own][each];
      rowProducts<width, columns>(k, q, scores);
      awaitCopies<0>();
      __syncthreads();
      rowProducts<width, columns>(v, dout, changes);
      const bool edge = query + columns > a.time || query < whole;
      // of the queries of this tile, those from which on the tile's first key is seen
      const auto lead = static_cast<int>(a.causal ? first - hidden - query : -rows);
      const auto last = static_cast<int>(min(int64_t{columns}, a.time - query));
#pragma unroll
      for (int i = 0; i < own; i++) {
#pragma unroll
        for (int j = 0; j < each; j++) {
          const int at = acrossLane() + j * across;
          slopeOf(a, scores[i][j], changes[i][j], left[j], !edge || (at < last && at >= lead + rowOf(i)));
        }
      }
      storeWeights<columns>(weights, scores);
      mixRows<width, columns>(weights, dout, valueSums);
      __syncwarp();
      storeWeights<columns>(weights, changes);
      mixRows<width, columns>(weights, q, keySums);
      __syncthreads();
    }
  }
  storeRows<width, pieces>(a.dk, share.batch * a.context, share.head, a.headWidth, first, a.context, keySums);
  storeRows<width, pieces>(a.dv, share.batch * a.context, share.head, a.headWidth, first, a.context, valueSums);
}

}  // namespace tandem::cuda::tiled
