// Gradients of attention on wgmma (compute capability 9.0): the two kernels of flash-backward.cu, whose factors the tensor cores
// read straight from shared memory.
#include "flash-hopper.cuh"

namespace tandem::cuda {

namespace {

using namespace flash;

/** Two tiles of 64 rows that stay, two that come one after another in two buffers, and two numbers of each row of these. */
template <int width>
constexpr size_t backwardBytes = size_t{6} * (width / 64) * pieceBytes + 4 * 64 * sizeof(float) + 1024;

#ifdef TANDEM_HAS_WGMMA
/** Two products of rows by rows, as `multiplyRows`, begun together and waited for. */
template <class T, int width>
__device__ inline void multiplyBoth(float (&scores)[8][4], uint32_t left, uint32_t right, float (&dscores)[8][4], uint32_t leftChange,
                                    uint32_t rightChange) {
  settle(scores);
  settle(dscores);
  openProducts();
  multiplyRows<T, width>(scores, left, right);
  multiplyRows<T, width>(dscores, leftChange, rightChange);
  closeProducts();
  awaitProducts<0>();
  settle(scores);
  settle(dscores);
}
#endif

/** 64 queries against all keys that they see. */
template <class T, int width>
__global__ void __launch_bounds__(threads, width == 64 ? 4 : 2) queryGradients(Attention a, const float* delta) {
#ifdef TANDEM_HAS_WGMMA
  constexpr int parts = width / 64;
  constexpr uint32_t tileBytes = parts * pieceBytes;
  extern __shared__ uint8_t memory[];
  const uint32_t qTile = firstTile(memory);
  const uint32_t doutTile = qTile + tileBytes;
  const uint32_t kTiles = doutTile + tileBytes;
  const uint32_t vTiles = kTiles + 2 * tileBytes;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int64_t blocks = (a.time + 63) / 64;
  const int64_t first = (blocks - 1 - blockIdx.x) * 64;
  const int64_t head = blockIdx.y;
  const int64_t b = blockIdx.z;
  const int64_t kvHead = a.kvHead(head);
  const auto tiles = static_cast<int>((a.visible(min(a.time, first + 64) - 1) + 63) / 64);
  // tiles that each of these queries sees all of
  const auto plain = static_cast<int>(min(a.context, a.visible(first)) / 64);

  const Pieces<threads, width> keys(a.k, b * a.context, kvHead);
  const Pieces<threads, width> values(a.v, b * a.context, kvHead);
  const auto copyKeys = [&](int tile) {
    const uint32_t buffer = (tile & 1) * tileBytes;
    keys.copy(kTiles + buffer, int64_t{tile} * 64, a.context);
    values.copy(vTiles + buffer, int64_t{tile} * 64, a.context);
    commitCopies();
  };
  Pieces<threads, width>(a.q, b * a.time, head).copy(qTile, first, a.time);
  Pieces<threads, width>(a.dout, b * a.time, head).copy(doutTile, first, a.time);
  copyKeys(0);

  float lse[2], mean[2];
  rowValuesOf(a, delta, b, head, first + warp * warpRows + lane / 4, lse, mean);
  const float scale2 = a.scale * log2e;
  float sums[parts][8][4] = {};
  float scores[8][4] = {};
  float dscores[8][4] = {};
  for (int tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) {
      copyKeys(tile + 1);
      awaitCopies<1>();
    } else {
      awaitCopies<0>();
    }
    showProducts();
    __syncthreads();
    const uint32_t buffer = (tile & 1) * tileBytes;
    multiplyBoth<T, width>(scores, qTile, kTiles + buffer, dscores, doutTile, vTiles + buffer);
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) slope(scores[n][i], dscores[n][i], scale2, 1.0f, lse[i / 2], mean[i / 2]);
    }
    if (tile >= plain) hideKeys(a, dscores, first + warp * warpRows + lane / 4, int64_t{tile} * 64, 0.0f);
    uint32_t changes[4][4];
#pragma unroll
    for (int k = 0; k < 4; k++) leftOf<T>(dscores, k, changes[k]);
    settle(changes);
    settleAll(sums);
    openProducts();
    multiplyColumns<T, width>(sums, changes, kTiles + buffer);
    closeProducts();
    awaitProducts<0>();
    settleAll(sums);
    __syncthreads();
  }
  storeParts<T, width>(a.dq, b * a.time, head, first + warp * warpRows, a.time, sums, a.scale, a.scale);
#else
  __trap();
#endif
}

/** 64 keys against all queries, of all heads that share them, that see them. Scores are transposed: a warp has 16 keys. */
template <class T, int width>
__global__ void __launch_bounds__(threads, width == 64 ? 3 : 2) keyGradients(Attention a, const float* delta) {
#ifdef TANDEM_HAS_WGMMA
  constexpr int parts = width / 64;
  constexpr uint32_t tileBytes = parts * pieceBytes;
  extern __shared__ uint8_t memory[];
  const uint32_t kTile = firstTile(memory);
  const uint32_t vTile = kTile + tileBytes;
  const uint32_t qTiles = vTile + tileBytes;
  const uint32_t doutTiles = qTiles + 2 * tileBytes;
  auto* rowValues = reinterpret_cast<float*>(memory + (kTile - sharedAddress(memory)) + 6 * tileBytes);
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 64;
  const int64_t kvHead = blockIdx.y;
  const int64_t b = blockIdx.z;
  const int64_t group = a.heads / a.kvHeads;
  // tiles of queries from the first that sees one of these keys
  const int64_t from = a.causal ? max(int64_t{0}, first - (a.context - a.time)) / 64 : 0;
  const auto perHead = static_cast<int>((a.time + 63) / 64 - from);
  const int tiles = perHead * static_cast<int>(group);

  const Pieces<threads, width> queries(a.q, b * a.time, kvHead * group);
  const Pieces<threads, width> douts(a.dout, b * a.time, kvHead * group);
  // what is copied next: a head of the group, and a tile of its queries
  int nextHead = 0;
  int nextTile = 0;
  int parity = 0;
  const auto copyQueries = [&] {
    const int64_t query = (from + nextTile) * 64;
    const uint32_t buffer = parity * tileBytes;
    auto qs = queries;
    auto dos = douts;
    qs.from += int64_t{nextHead} * width * 2;
    dos.from += int64_t{nextHead} * width * 2;
    qs.copy(qTiles + buffer, query, a.time);
    dos.copy(doutTiles + buffer, query, a.time);
    const int64_t row = query + threadIdx.x % 64;
    const int64_t at = (b * a.heads + kvHead * group + nextHead) * a.time + row;
    const float value = row >= a.time ? 0 : threadIdx.x < 64 ? static_cast<const float*>(a.lse.data)[at] * log2e : delta[at];
    rowValues[parity * 128 + threadIdx.x] = value;
    commitCopies();
    parity ^= 1;
    if (++nextTile == perHead) {
      nextTile = 0;
      nextHead++;
    }
  };
  Pieces<threads, width>(a.k, b * a.context, kvHead).copy(kTile, first, a.context);
  Pieces<threads, width>(a.v, b * a.context, kvHead).copy(vTile, first, a.context);
  if (tiles > 0) copyQueries();

  const float scale2 = a.scale * log2e;
  float keySums[parts][8][4] = {};
  float valueSums[parts][8][4] = {};
  float scores[8][4] = {};
  float dscores[8][4] = {};
  int inHead = 0;
  for (int tile = 0; tile < tiles; tile++) {
    const int64_t query = (from + inHead) * 64;
    if (++inHead == perHead) inHead = 0;
    if (tile + 1 < tiles) {
      copyQueries();
      awaitCopies<1>();
    } else {
      awaitCopies<0>();
    }
    showProducts();
    __syncthreads();
    const uint32_t buffer = (tile & 1) * tileBytes;
    const float* lse = rowValues + (tile & 1) * 128;
    const float* mean = lse + 64;
    multiplyBoth<T, width>(scores, kTile, qTiles + buffer, dscores, vTile, doutTiles + buffer);
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int at = n * 8 + lane % 4 * 2 + i % 2;
        slope(scores[n][i], dscores[n][i], scale2, 1.0f, lse[at], mean[at]);
      }
    }
    // queries beyond the last, and keys that come after their query
    if (query + 64 > a.time || first + 64 > a.visible(query)) {
      hideQueries(a, scores, dscores, first + warp * warpRows + lane / 4, query);
    }
    uint32_t weights[4][4], changes[4][4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
      leftOf<T>(scores, k, weights[k]);
      leftOf<T>(dscores, k, changes[k]);
    }
    settle(weights);
    settle(changes);
    settleAll(valueSums);
    settleAll(keySums);
    openProducts();
    multiplyColumns<T, width>(valueSums, weights, doutTiles + buffer);
    multiplyColumns<T, width>(keySums, changes, qTiles + buffer);
    closeProducts();
    awaitProducts<0>();
    settleAll(valueSums);
    settleAll(keySums);
    __syncthreads();
  }
  awaitCopies<0>();
  storeParts<T, width>(a.dk, b * a.context, kvHead, first + warp * warpRows, a.context, keySums, a.scale, a.scale);
  storeParts<T, width>(a.dv, b * a.context, kvHead, first + warp * warpRows, a.context, valueSums, 1, 1);
#else
  __trap();
#endif
}

template <class T, int width>
Gradients gradientsOf(const Attention& a) {
  allowShared(queryGradients<T, width>, backwardBytes<width>);
  allowShared(keyGradients<T, width>, backwardBytes<width>);
  return [=](cudaStream_t stream, const float* delta) {
    queryGradients<T, width><<<gridOf(a.time, 64, a.heads, a.batch), threads, backwardBytes<width>, stream>>>(a, delta);
    keyGradients<T, width><<<gridOf(a.context, 64, a.kvHeads, a.batch), threads, backwardBytes<width>, stream>>>(a, delta);
  };
}

}  // namespace

Gradients hopperGradients(const Attention& a) {
  if (!wgmmaHere()) return {};
  return forKind(a, [&](auto element, auto width) {
    return gradientsOf<typename decltype(element)::type, decltype(width)::value>(a);
  });
}

}  // namespace tandem::cuda
