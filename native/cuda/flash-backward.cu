// Gradients of attention on tensor cores. Those of queries and those of keys and values are two kernels that each compute the
// weights again: no atomics, so a run gives the same bits again.
#include "flash.cuh"

namespace tandem::cuda {

namespace {

using namespace flash;

template <int width>
struct BackSizes {
  static constexpr int rows = 4 * warpRows;
  /** Of the other side, at a time: registers are short for wide heads. */
  static constexpr int others = width == 64 ? 64 : 32;
  static constexpr size_t bytes = static_cast<size_t>(2 * rows + 4 * others) * width * 2 + 4 * others * sizeof(float);
};

/** 64 queries against all keys that they see. */
template <class T, int width>
__global__ void __launch_bounds__(threads) queryGradients(Attention a, const float* delta) {
  using S = BackSizes<width>;
  constexpr int steps = width / 16;
  constexpr int tilesOfKeys = S::others / 8;
  extern __shared__ __align__(128) uint8_t memory[];
  const uint32_t qTile = sharedAddress(memory);
  const uint32_t doutTile = qTile + S::rows * width * 2;
  const uint32_t kTiles = doutTile + S::rows * width * 2;
  const uint32_t vTiles = kTiles + 2 * S::others * width * 2;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int64_t blocks = (a.time + S::rows - 1) / S::rows;
  const int64_t first = (blocks - 1 - blockIdx.x) * S::rows;
  const int64_t head = blockIdx.y;
  const int64_t b = blockIdx.z;
  const int64_t kvHead = a.kvHead(head);
  const int64_t visible = a.visible(min(a.time, first + S::rows) - 1);
  const int64_t tiles = (visible + S::others - 1) / S::others;

  const auto copyKeys = [&](int64_t tile) {
    const auto buffer = static_cast<uint32_t>(tile % 2 * S::others * width * 2);
    copyTile<S::others, width>(kTiles + buffer, a.k, b * a.context, kvHead, tile * S::others, a.context);
    copyTile<S::others, width>(vTiles + buffer, a.v, b * a.context, kvHead, tile * S::others, a.context);
    commitCopies();
  };
  copyTile<S::rows, width>(qTile, a.q, b * a.time, head, first, a.time);
  copyTile<S::rows, width>(doutTile, a.dout, b * a.time, head, first, a.time);
  copyKeys(0);

  float lse[2], mean[2];
  rowValuesOf(a, delta, b, head, first + warp * warpRows + lane / 4, lse, mean);
  const float scale2 = a.scale * log2e;
  float sums[width / 8][4] = {};
  for (int64_t tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) {
      copyKeys(tile + 1);
      awaitCopies<1>();
    } else {
      awaitCopies<0>();
    }
    __syncthreads();
    const auto buffer = static_cast<uint32_t>(tile % 2 * S::others * width * 2);
    float scores[tilesOfKeys][4] = {};
    float dscores[tilesOfKeys][4] = {};
#pragma unroll
    for (int k = 0; k < steps; k++) {
      uint32_t q[4], dout[4];
      loadLeft<width>(qTile, warp * warpRows, k, q);
      loadLeft<width>(doutTile, warp * warpRows, k, dout);
#pragma unroll
      for (int n = 0; n < tilesOfKeys / 2; n++) {
        uint32_t right[4];
        loadRightRows<width>(kTiles + buffer, n * 16, k, right);
        Mma<T>::add(scores[2 * n], q, right[0], right[1]);
        Mma<T>::add(scores[2 * n + 1], q, right[2], right[3]);
        loadRightRows<width>(vTiles + buffer, n * 16, k, right);
        Mma<T>::add(dscores[2 * n], dout, right[0], right[1]);
        Mma<T>::add(dscores[2 * n + 1], dout, right[2], right[3]);
      }
    }
#pragma unroll
    for (int n = 0; n < tilesOfKeys; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) slope(scores[n][i], dscores[n][i], scale2, a.scale, lse[i / 2], mean[i / 2]);
    }
    if ((tile + 1) * S::others > min(a.context, a.visible(first))) {
      hideKeys(a, dscores, first + warp * warpRows + lane / 4, tile * S::others, 0.0f);
    }
#pragma unroll
    for (int k = 0; k < S::others / 16; k++) {
      const float(&x)[4] = dscores[2 * k];
      const float(&y)[4] = dscores[2 * k + 1];
      const uint32_t left[4] = {Mma<T>::two(x[0], x[1]), Mma<T>::two(x[2], x[3]), Mma<T>::two(y[0], y[1]),
                                Mma<T>::two(y[2], y[3])};
#pragma unroll
      for (int n = 0; n < width / 16; n++) {
        uint32_t right[4];
        loadRightColumns<width>(kTiles + buffer, k * 16, n, right);
        Mma<T>::add(sums[2 * n], left, right[0], right[1]);
        Mma<T>::add(sums[2 * n + 1], left, right[2], right[3]);
      }
    }
    __syncthreads();
  }
  storeRows<T, width>(a.dq, b * a.time, head, first + warp * warpRows, a.time, sums, 1, 1);
}

/** 64 keys against all queries, of all heads that share them, that see them. Scores are transposed: a warp has 16 keys. */
template <class T, int width>
__global__ void __launch_bounds__(threads) keyGradients(Attention a, const float* delta) {
  using S = BackSizes<width>;
  constexpr int steps = width / 16;
  constexpr int tilesOfQueries = S::others / 8;
  extern __shared__ __align__(128) uint8_t memory[];
  const uint32_t kTile = sharedAddress(memory);
  const uint32_t vTile = kTile + S::rows * width * 2;
  const uint32_t qTiles = vTile + S::rows * width * 2;
  const uint32_t doutTiles = qTiles + 2 * S::others * width * 2;
  auto* rowValues = reinterpret_cast<float*>(memory + (2 * S::rows + 4 * S::others) * width * 2);
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * S::rows;
  const int64_t kvHead = blockIdx.y;
  const int64_t b = blockIdx.z;
  const int64_t group = a.heads / a.kvHeads;
  // tiles of queries from the first that sees one of these keys
  const int64_t from = a.causal ? max(int64_t{0}, first - (a.context - a.time)) / S::others : 0;
  const int64_t perHead = (a.time + S::others - 1) / S::others - from;
  const int64_t tiles = perHead * group;

  const auto copyQueries = [&](int64_t tile) {
    const int64_t head = kvHead * group + tile / perHead;
    const int64_t query = (from + tile % perHead) * S::others;
    const int parity = static_cast<int>(tile % 2);
    const auto buffer = static_cast<uint32_t>(parity * S::others * width * 2);
    copyTile<S::others, width>(qTiles + buffer, a.q, b * a.time, head, query, a.time);
    copyTile<S::others, width>(doutTiles + buffer, a.dout, b * a.time, head, query, a.time);
    if (threadIdx.x < S::others) {
      const int64_t row = query + threadIdx.x;
      const int64_t at = (b * a.heads + head) * a.time + row;
      rowValues[parity * 2 * S::others + threadIdx.x] = row < a.time ? static_cast<const float*>(a.lse.data)[at] * log2e : 0;
      rowValues[(parity * 2 + 1) * S::others + threadIdx.x] = row < a.time ? delta[at] : 0;
    }
    commitCopies();
  };
  copyTile<S::rows, width>(kTile, a.k, b * a.context, kvHead, first, a.context);
  copyTile<S::rows, width>(vTile, a.v, b * a.context, kvHead, first, a.context);
  if (tiles > 0) copyQueries(0);

  const float scale2 = a.scale * log2e;
  float keySums[width / 8][4] = {};
  float valueSums[width / 8][4] = {};
  for (int64_t tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) {
      copyQueries(tile + 1);
      awaitCopies<1>();
    } else {
      awaitCopies<0>();
    }
    __syncthreads();
    const int parity = static_cast<int>(tile % 2);
    const auto buffer = static_cast<uint32_t>(parity * S::others * width * 2);
    const float* lse = rowValues + parity * 2 * S::others;
    const float* mean = lse + S::others;
    const int64_t query = (from + tile % perHead) * S::others;
    float scores[tilesOfQueries][4] = {};
    float dscores[tilesOfQueries][4] = {};
#pragma unroll
    for (int k = 0; k < steps; k++) {
      uint32_t keys[4], values[4];
      loadLeft<width>(kTile, warp * warpRows, k, keys);
      loadLeft<width>(vTile, warp * warpRows, k, values);
#pragma unroll
      for (int n = 0; n < tilesOfQueries / 2; n++) {
        uint32_t right[4];
        loadRightRows<width>(qTiles + buffer, n * 16, k, right);
        Mma<T>::add(scores[2 * n], keys, right[0], right[1]);
        Mma<T>::add(scores[2 * n + 1], keys, right[2], right[3]);
        loadRightRows<width>(doutTiles + buffer, n * 16, k, right);
        Mma<T>::add(dscores[2 * n], values, right[0], right[1]);
        Mma<T>::add(dscores[2 * n + 1], values, right[2], right[3]);
      }
    }
#pragma unroll
    for (int n = 0; n < tilesOfQueries; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int at = n * 8 + lane % 4 * 2 + i % 2;
        slope(scores[n][i], dscores[n][i], scale2, a.scale, lse[at], mean[at]);
      }
    }
    // queries beyond the last, and keys that come after their query
    if (query + S::others > a.time || first + S::rows > a.visible(query)) {
      hideQueries(a, scores, dscores, first + warp * warpRows + lane / 4, query);
    }
#pragma unroll
    for (int k = 0; k < S::others / 16; k++) {
      const auto leftOf = [&](const float(&x)[4], const float(&y)[4], uint32_t(&left)[4]) {
        left[0] = Mma<T>::two(x[0], x[1]);
        left[1] = Mma<T>::two(x[2], x[3]);
        left[2] = Mma<T>::two(y[0], y[1]);
        left[3] = Mma<T>::two(y[2], y[3]);
      };
      uint32_t weights[4], changes[4];
      leftOf(scores[2 * k], scores[2 * k + 1], weights);
      leftOf(dscores[2 * k], dscores[2 * k + 1], changes);
#pragma unroll
      for (int n = 0; n < width / 16; n++) {
        uint32_t right[4];
        loadRightColumns<width>(doutTiles + buffer, k * 16, n, right);
        Mma<T>::add(valueSums[2 * n], weights, right[0], right[1]);
        Mma<T>::add(valueSums[2 * n + 1], weights, right[2], right[3]);
        loadRightColumns<width>(qTiles + buffer, k * 16, n, right);
        Mma<T>::add(keySums[2 * n], changes, right[0], right[1]);
        Mma<T>::add(keySums[2 * n + 1], changes, right[2], right[3]);
      }
    }
    __syncthreads();
  }
  awaitCopies<0>();
  storeRows<T, width>(a.dk, b * a.context, kvHead, first + warp * warpRows, a.context, keySums, 1, 1);
  storeRows<T, width>(a.dv, b * a.context, kvHead, first + warp * warpRows, a.context, valueSums, 1, 1);
}

/** delta[row] = dout . out, eight lanes' worth of a row at a time. */
template <int width>
__global__ void __launch_bounds__(256) deltaKernel(Attention a, float* delta) {
  constexpr int lanes = width / pack;
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x) / lanes;
  const int64_t rows = a.batch * a.heads * a.time;
  const int64_t row = min(index, rows - 1);
  // neighbouring heads of one token lie side by side
  const int64_t head = row % a.heads;
  const int64_t token = row / a.heads;
  const int64_t c = threadIdx.x % lanes * pack;
  float x[pack], y[pack];
  getPack(a.dout.at(token, head, width), c, x);
  getPack(a.out.at(token, head, width), c, y);
  float sum = 0;
#pragma unroll
  for (int j = 0; j < pack; j++) sum = fmaf(x[j], y[j], sum);
#pragma unroll
  for (int offset = lanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (c == 0 && index < rows) delta[(token / a.time * a.heads + head) * a.time + token % a.time] = sum;
}

template <class T, int width>
Work backwardWork(const Attention& a) {
  using S = BackSizes<width>;
  Gradients gradients = hopperGradients(a);
  if (!gradients) {
    allowShared(queryGradients<T, width>, S::bytes);
    allowShared(keyGradients<T, width>, S::bytes);
    gradients = [=](cudaStream_t stream, const float* delta) {
      queryGradients<T, width><<<gridOf(a.time, S::rows, a.heads, a.batch), threads, S::bytes, stream>>>(a, delta);
      keyGradients<T, width><<<gridOf(a.context, S::rows, a.kvHeads, a.batch), threads, S::bytes, stream>>>(a, delta);
    };
  }
  return [=](const Launch& launch) {
    const Scratch scratch(launch, static_cast<size_t>(a.batch * a.heads * a.time) * sizeof(float));
    auto* delta = scratch.as<float>();
    const int64_t lanes = a.batch * a.heads * a.time * (width / pack);
    deltaKernel<width><<<static_cast<unsigned>(ceilDiv(lanes, 256)), 256, 0, launch.stream>>>(a, delta);
    gradients(launch.stream, delta);
  };
}

}  // namespace

bool flashBackward(const Attention& a, Work& work) {
  if (!fits(a, {&a.q, &a.k, &a.v, &a.out, &a.dout, &a.dq, &a.dk, &a.dv})) return false;
  work = forKind(a, [&](auto element, auto width) { return backwardWork<typename decltype(element)::type, decltype(width)::value>(a); });
  return true;
}

}  // namespace tandem::cuda
