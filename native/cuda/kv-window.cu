// Window scores on tensor cores: how much all queries of the window, of all heads that share a key/value head, look at each
// key. The matrix of weights is never written. Keys are read once where attention has left the sum of each query's exponentials;
// else twice: once for that sum, once for the weights themselves, summed over queries.
#include "kv-window.h"

#include <algorithm>

#include "flash-hopper.cuh"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {

using flash::pieceBytes;

constexpr int threads = 256;
constexpr int rowsPerWarp = 32;
constexpr int rowsPerBlock = threads / 32 * rowsPerWarp;
constexpr int keysPerTile = 64;
/** Two blocks of a multiprocessor have room for the sums of so many. */
constexpr int mostTiles = 32;
constexpr float log2e = 1.4426950408889634f;

/**
 * The row of the block that a thread's scores belong to: of `part` / 2 of the warp's 32 rows, one after another with mma, 64 rows
 * apart in each four warps with wgmma.
 */
template <bool hopper>
__device__ inline int rowOf(int part) {
  const int warp = threadIdx.x / 32;
  const int half = threadIdx.x % 32 / 4 + part % 2 * 8;
  if (hopper) return warp / 4 * 128 + part / 2 * 64 + warp % 4 * 16 + half;
  return warp * rowsPerWarp + part / 2 * 16 + half;
}

/** Where 16 bytes of a row of a tile lie: rows of the head's width, or with wgmma tiles of 64 rows and 64 columns. */
template <int width, bool hopper>
__device__ inline uint32_t placeOf(uint32_t tile, int row, int piece) {
  if (!hopper) return pieceAddress<width>(tile, row, piece);
  const int block = row / 64 * (width / 64) + piece / 8;
  return pieceAddress<64>(tile + block * pieceBytes, row % 64, piece % 8);
}

struct Geometry {
  Window w;
  /** Queries that share a key/value head: its heads, one after another, with the window of each. */
  int64_t rows;
  /** Blocks along the keys, and tiles of keys of each. */
  int64_t splits;
  int tiles;

  __device__ int64_t keysPerBlock() const { return static_cast<int64_t>(tiles) * keysPerTile; }

  /** The last key that a row sees. */
  __device__ int64_t lastKey(int64_t row) const { return w.time - w.window + row % w.window; }

  /** The logarithm, of base two, that attention has left of a row's sum. */
  __device__ float knownTotal(int64_t kvHead, int64_t row) const {
    const int64_t head = kvHead * (w.heads / w.kvHeads) + row / w.window;
    return w.lse[head * w.time + lastKey(row)] * log2e;
  }
};

template <int width, bool hopper>
__device__ inline void copyQueries(uint32_t tile, const Geometry& g, int64_t kvHead, int64_t first) {
  constexpr int pieces = width / 8;
  constexpr int apart = threads / pieces;
  const int piece = threadIdx.x % pieces;
  const auto window = static_cast<unsigned>(g.w.window);
  const int64_t group = g.w.heads / g.w.kvHeads;
  const int64_t stride = g.w.heads * width;
  const auto* base = static_cast<const uint16_t*>(g.w.q.data) + (g.w.time - g.w.window) * stride + kvHead * group * width + piece * 8;
  for (int own = threadIdx.x / pieces; own < rowsPerBlock; own += apart) {
    const bool valid = first + own < g.rows;
    const unsigned row = valid ? static_cast<unsigned>(first) + own : 0;
    copyLater(placeOf<width, hopper>(tile, own, piece), base + row % window * stride + row / window * width, valid);
  }
}

/** A tile of 64 keys; the same piece of every few of its rows for each thread. Zeros from `end` on. */
template <int width, bool hopper>
__device__ inline void copyKeys(uint32_t tile, const uint16_t* base, int64_t stride, int64_t first, int64_t end) {
  constexpr int pieces = width / 8;
  constexpr int apart = threads / pieces;
  const int own = threadIdx.x / pieces;
  const int piece = threadIdx.x % pieces;
  const uint16_t* from = base + first * stride + piece * 8;
  const auto rows = static_cast<int>(min(end - first, int64_t{keysPerTile}));
#pragma unroll
  for (int i = 0; i < keysPerTile / apart; i++) {
    const int row = own + i * apart;
    copyLater(placeOf<width, hopper>(tile, row, piece), row < rows ? from + row * stride : from, row < rows);
  }
}

/** scores of the warp's 32 rows with the tile of keys. */
template <class T, int width, bool hopper>
__device__ inline void multiply(float (&scores)[2][keysPerTile / 8][4], uint32_t queries, uint32_t keys) {
  const int warp = threadIdx.x / 32;
  if constexpr (hopper) {
#ifdef TANDEM_HAS_WGMMA
    const uint32_t own = queries + warp / 4 * 2 * (width / 64) * pieceBytes;
    settle(scores[0]);
    settle(scores[1]);
    openProducts();
    flash::multiplyRows<T, width>(scores[0], own, keys);
    flash::multiplyRows<T, width>(scores[1], own + width / 64 * pieceBytes, keys);
    closeProducts();
    awaitProducts<0>();
    settle(scores[0]);
    settle(scores[1]);
#endif
  } else {
#pragma unroll
    for (int half = 0; half < 2; half++) {
#pragma unroll
      for (int n = 0; n < keysPerTile / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) scores[half][n][i] = 0;
      }
    }
#pragma unroll
    for (int k = 0; k < width / 16; k++) {
      uint32_t left[2][4];
      loadLeft<width>(queries, warp * rowsPerWarp, k, left[0]);
      loadLeft<width>(queries, warp * rowsPerWarp + 16, k, left[1]);
#pragma unroll
      for (int n = 0; n < keysPerTile / 16; n++) {
        uint32_t right[4];
        loadRightRows<width>(keys, n * 16, k, right);
#pragma unroll
        for (int half = 0; half < 2; half++) {
          Mma<T>::add(scores[half][2 * n], left[half], right[0], right[1]);
          Mma<T>::add(scores[half][2 * n + 1], left[half], right[2], right[3]);
        }
      }
    }
  }
}

/**
 * visit(tile of keys, scores of the warp's 32 rows) for each tile of the block. `meets`: all threads meet in each visit, so that nobody
 * reads a tile any more when the one after the next is copied over it.
 */
template <class T, int width, bool hopper, bool meets, class Visit>
__device__ inline void eachTile(const Geometry& g, uint8_t* memory, int64_t kvHead, int64_t firstRow, Visit visit) {
  const uint32_t queries = firstTile(memory);
  const uint32_t keys = queries + rowsPerBlock * width * 2;
  const int64_t firstKey = blockIdx.x * g.keysPerBlock();
  const int64_t stride = g.w.kvHeads * width;
  const auto* base = static_cast<const uint16_t*>(g.w.k.data) + kvHead * width;
  const auto tiles = static_cast<int>(min(int64_t{g.tiles}, (g.w.time - firstKey + keysPerTile - 1) / keysPerTile));
  const auto copy = [&](int tile) {
    copyKeys<width, hopper>(keys + (tile & 1) * keysPerTile * width * 2, base, stride, firstKey + tile * keysPerTile, g.w.time);
    commitCopies();
  };
  copyQueries<width, hopper>(queries, g, kvHead, firstRow);
  copy(0);
  float scores[2][keysPerTile / 8][4] = {};
  for (int tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) {
      copy(tile + 1);
      awaitCopies<1>();
    } else {
      awaitCopies<0>();
    }
#ifdef TANDEM_HAS_WGMMA
    if (hopper) showProducts();
#endif
    __syncthreads();
    multiply<T, width, hopper>(scores, queries, keys + (tile & 1) * keysPerTile * width * 2);
    visit(tile, firstKey + tile * keysPerTile, scores);
    if (!meets) __syncthreads();
  }
}

/** Of one split of the keys: each row's largest score and the sum of exponentials below it. */
template <class T, int width, bool hopper>
__global__ void __launch_bounds__(threads, 2) windowSums(Geometry g, float2* partial) {
  extern __shared__ __align__(128) uint8_t memory[];
  const int64_t kvHead = blockIdx.y;
  const int lane = threadIdx.x % 32;
  const float scale2 = rsqrtf(static_cast<float>(width)) * log2e;
  for (int64_t first = 0; first < g.rows; first += rowsPerBlock) {
    float max[4], sum[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      max[i] = -INFINITY;
      sum[i] = 0;
    }
    eachTile<T, width, hopper, false>(g, memory, kvHead, first, [&](int, int64_t key, float(&scores)[2][keysPerTile / 8][4]) {
#pragma unroll
      for (int part = 0; part < 4; part++) {
        const int64_t own = first + rowOf<hopper>(part);
        // only the last keys are hidden from some rows
        const int64_t seen = key + keysPerTile <= g.w.time - g.w.window + 1 ? keysPerTile : g.lastKey(own) + 1 - key;
        float highest = max[part];
#pragma unroll
        for (int n = 0; n < keysPerTile / 8; n++) {
#pragma unroll
          for (int i = 0; i < 2; i++) {
            float& score = scores[part / 2][n][part % 2 * 2 + i];
            if (n * 8 + lane % 4 * 2 + i >= seen) score = -INFINITY;
            highest = fmaxf(highest, score);
          }
        }
        const float base = highest == -INFINITY ? 0.0f : highest * scale2;
        float total = sum[part] * exp2Fast(fmaf(max[part], scale2, -base));
#pragma unroll
        for (int n = 0; n < keysPerTile / 8; n++) {
#pragma unroll
          for (int i = 0; i < 2; i++) total += exp2Fast(fmaf(scores[part / 2][n][part % 2 * 2 + i], scale2, -base));
        }
        sum[part] = total;
        max[part] = highest;
      }
    });
#pragma unroll
    for (int part = 0; part < 4; part++) {
      float highest = fmaxf(max[part], __shfl_xor_sync(allLanes, max[part], 1));
      highest = fmaxf(highest, __shfl_xor_sync(allLanes, highest, 2));
      const float base = highest == -INFINITY ? 0.0f : highest * scale2;
      float total = sum[part] * exp2Fast(fmaf(max[part], scale2, -base));
      total += __shfl_xor_sync(allLanes, total, 1);
      total += __shfl_xor_sync(allLanes, total, 2);
      const int64_t own = first + rowOf<hopper>(part);
      if (lane % 4 == 0 && own < g.rows) partial[(kvHead * g.splits + blockIdx.x) * g.rows + own] = make_float2(base, total);
    }
  }
}

/** The logarithm, of base two, of each row's sum over all keys. */
__global__ void __launch_bounds__(128) windowTotals(Geometry g, const float2* partial, float* lse) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * 4 + threadIdx.x / 32;
  if (index >= g.w.kvHeads * g.rows) return;
  const int lane = threadIdx.x % 32;
  const float2* own = partial + index / g.rows * g.splits * g.rows + index % g.rows;
  float max = -INFINITY;
  for (int64_t split = lane; split < g.splits; split += 32) {
    if (own[split * g.rows].y > 0) max = fmaxf(max, own[split * g.rows].x);
  }
  max = warpReduce(max, Larger{});
  float sum = 0;
  for (int64_t split = lane; split < g.splits; split += 32) {
    const float2 part = own[split * g.rows];
    if (part.y > 0) sum += part.y * exp2f(part.x - max);
  }
  sum = warpReduce(sum, Add{});
  if (lane == 0) lse[index] = max + log2f(sum);
}

/** columns += the weights of a thread's four rows; `sees(part, column)`: whether the row sees the first thread's key of that column. */
template <class Sees>
__device__ inline void addWeights(float (&columns)[keysPerTile / 8 * 2], const float (&scores)[2][keysPerTile / 8][4],
                                  float scale2, const float (&base)[4], Sees sees) {
#pragma unroll
  for (int part = 0; part < 4; part++) {
#pragma unroll
    for (int n = 0; n < keysPerTile / 8; n++) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const float weight = exp2Fast(fmaf(scores[part / 2][n][part % 2 * 2 + i], scale2, -base[part]));
        columns[n * 2 + i] += sees(part, n * 8 + i) ? weight : 0.0f;
      }
    }
  }
}

/** Of twice `kept` sums each of two threads, `kept` * 2 lanes apart, keeps half and adds the other's: the upper one the upper half. */
template <int kept>
__device__ inline void addHalf(float (&columns)[keysPerTile / 8 * 2]) {
  const bool upper = threadIdx.x & kept * 2;
#pragma unroll
  for (int i = 0; i < kept; i++) {
    const float away = upper ? columns[i] : columns[i + kept];
    const float own = upper ? columns[i + kept] : columns[i];
    columns[i] = own + __shfl_xor_sync(allLanes, away, kept * 2);
  }
}

/** Weights, summed over rows. `lse` is null where attention has left the sums. */
template <class T, int width, bool hopper>
__global__ void __launch_bounds__(threads, 2) windowWeights(Geometry g, const float* lse) {
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ float parts[threads / 32][keysPerTile];
  __shared__ float totals[mostTiles * keysPerTile];
  const int64_t kvHead = blockIdx.y;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const float scale2 = rsqrtf(static_cast<float>(width)) * log2e;
  for (int64_t i = threadIdx.x; i < g.keysPerBlock(); i += threads) totals[i] = 0;
  for (int64_t first = 0; first < g.rows; first += rowsPerBlock) {
    float base[4];
#pragma unroll
    for (int part = 0; part < 4; part++) {
      const int64_t row = first + rowOf<hopper>(part);
      base[part] = row >= g.rows ? INFINITY : lse == nullptr ? g.knownTotal(kvHead, row) : lse[kvHead * g.rows + row];
    }
    eachTile<T, width, hopper, true>(g, memory, kvHead, first, [&](int tile, int64_t key, float(&scores)[2][keysPerTile / 8][4]) {
      float columns[keysPerTile / 8 * 2] = {};
      // only the last keys are hidden from some rows
      if (key + keysPerTile <= g.w.time - g.w.window + 1) {
        addWeights(columns, scores, scale2, base, [](int, int) { return true; });
      } else {
        addWeights(columns, scores, scale2, base, [&](int part, int column) {
          return column + lane % 4 * 2 < g.lastKey(first + rowOf<hopper>(part)) + 1 - key;
        });
      }
      // over the eight threads, four lanes apart, that have the same columns: two of each thread are left
      static_assert(keysPerTile == 64);
      addHalf<8>(columns);
      addHalf<4>(columns);
      addHalf<2>(columns);
      const int own = (lane >> 4 & 1) * 4 + (lane >> 3 & 1) * 2 + (lane >> 2 & 1);
      parts[warp][own * 8 + lane % 4 * 2] = columns[0];
      parts[warp][own * 8 + lane % 4 * 2 + 1] = columns[1];
      __syncthreads();
      if (threadIdx.x < keysPerTile) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < threads / 32; w++) sum += parts[w][threadIdx.x];
        totals[tile * keysPerTile + threadIdx.x] += sum;
      }
    });
  }
  __syncthreads();
  const float over = static_cast<float>(g.rows);
  for (int64_t i = threadIdx.x; i < g.keysPerBlock(); i += threads) {
    const int64_t key = blockIdx.x * g.keysPerBlock() + i;
    if (key < g.w.time) set(g.w.scores, kvHead * g.w.time + key, totals[i] / over);
  }
}

template <class T, int width, bool hopper>
Work windowWith(const Geometry& g) {
  constexpr size_t shared = static_cast<size_t>(rowsPerBlock + 2 * keysPerTile) * width * 2 + 1024;
  allowShared(windowSums<T, width, hopper>, shared);
  allowShared(windowWeights<T, width, hopper>, shared);
  const dim3 grid(static_cast<unsigned>(g.splits), static_cast<unsigned>(g.w.kvHeads));
  if (g.w.lse != nullptr) {
    return [=](const Launch& launch) {
      windowWeights<T, width, hopper><<<grid, threads, shared, launch.stream>>>(g, nullptr);
    };
  }
  return [=](const Launch& launch) {
    const auto partials = static_cast<size_t>(g.w.kvHeads * g.splits * g.rows);
    const auto rows = static_cast<size_t>(g.w.kvHeads * g.rows);
    const Scratch scratch(launch, partials * sizeof(float2) + rows * sizeof(float));
    auto* partial = scratch.as<float2>();
    auto* lse = scratch.as<float>(partials * sizeof(float2));
    windowSums<T, width, hopper><<<grid, threads, shared, launch.stream>>>(g, partial);
    windowTotals<<<static_cast<unsigned>(ceilDiv(g.w.kvHeads * g.rows, 4)), 128, 0, launch.stream>>>(g, partial, lse);
    windowWeights<T, width, hopper><<<grid, threads, shared, launch.stream>>>(g, lse);
  };
}

template <class T, int width>
Work windowWork(const Geometry& g) {
  return wgmmaHere() ? windowWith<T, width, true>(g) : windowWith<T, width, false>(g);
}

}  // namespace

bool windowOnTensorCores(const Window& w, Work& work) {
  const Dtype dtype = w.q.dtype;
  if (!w.softmax || dtype != w.k.dtype || (dtype != Dtype::bfloat16 && dtype != Dtype::float16)) return false;
  if ((w.headWidth != 64 && w.headWidth != 128) || w.kvHeads == 0 || w.heads == 0) return false;
  // long stretches of keys, for each block begins by copying all queries: no more rounds of the two blocks that a multiprocessor has room
  // for than stretches need, and all blocks of a round alike
  int device = 0;
  int multiprocessors = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  const int64_t allTiles = ceilDiv(w.time, keysPerTile);
  const int64_t rounds = ceilDiv(allTiles * w.kvHeads, int64_t{2} * multiprocessors * mostTiles);
  const int64_t tiles = std::clamp<int64_t>(ceilDiv(allTiles * w.kvHeads, 2 * multiprocessors * rounds), 1, mostTiles);
  const Geometry g = {w, w.window * (w.heads / w.kvHeads), ceilDiv(allTiles, tiles), static_cast<int>(tiles)};
  const bool wide = w.headWidth == 128;
  if (dtype == Dtype::bfloat16) {
    work = wide ? windowWork<__nv_bfloat16, 128>(g) : windowWork<__nv_bfloat16, 64>(g);
  } else {
    work = wide ? windowWork<__half, 128>(g) : windowWork<__half, 64>(g);
  }
  return true;
}

}  // namespace tandem::cuda
