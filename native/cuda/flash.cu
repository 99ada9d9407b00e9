// Attention on tensor cores without its matrix of weights in memory: 16-bit values, float32 sums.
#include "flash.cuh"

namespace tandem::cuda {

namespace {

using namespace flash;

/** `groups` of 16 rows per warp, in the forward pass: two read keys and values half as often, one balances short prompts. */
template <int width, int groups_>
struct Sizes {
  static constexpr int groups = groups_;
  static constexpr int queries = 4 * warpRows * groups;
  static constexpr int keys = 64;
  static constexpr size_t forwardBytes = static_cast<size_t>(queries + 4 * keys) * width * 2;
};

template <class T, int width, int groups>
__global__ void __launch_bounds__(threads) forwardKernel(Attention a) {
  using S = Sizes<width, groups>;
  constexpr int steps = width / 16;
  constexpr int keyTiles = S::keys / 8;
  extern __shared__ __align__(128) uint8_t memory[];
  const uint32_t qTile = sharedAddress(memory);
  const uint32_t kTiles = qTile + S::queries * width * 2;
  const uint32_t vTiles = kTiles + 2 * S::keys * width * 2;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int64_t blocks = (a.time + S::queries - 1) / S::queries;
  // the longest first
  const int64_t first = (blocks - 1 - blockIdx.x) * S::queries;
  const int64_t head = blockIdx.y;
  const int64_t b = blockIdx.z;
  const int64_t kvHead = a.kvHead(head);
  const int64_t lastQuery = min(a.time, first + S::queries) - 1;
  const int64_t visible = a.visible(lastQuery);
  const int64_t tiles = (visible + S::keys - 1) / S::keys;
  const float scale = a.scale * log2e;

  const auto copyKeys = [&](int64_t tile) {
    const auto buffer = static_cast<uint32_t>(tile % 2 * S::keys * width * 2);
    copyTile<S::keys, width>(kTiles + buffer, a.k, b * a.context, kvHead, tile * S::keys, a.context);
    copyTile<S::keys, width>(vTiles + buffer, a.v, b * a.context, kvHead, tile * S::keys, a.context);
    commitCopies();
  };
  copyTile<S::queries, width>(qTile, a.q, b * a.time, head, first, a.time);
  copyKeys(0);

  float sums[S::groups][width / 8][4] = {};
  Running running[S::groups];

  for (int64_t tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) {
      copyKeys(tile + 1);
      awaitCopies<1>();
    } else {
      awaitCopies<0>();
    }
    __syncthreads();
    const auto buffer = static_cast<uint32_t>(tile % 2 * S::keys * width * 2);
    const uint32_t keys = kTiles + buffer;
    const uint32_t values = vTiles + buffer;

    float scores[S::groups][keyTiles][4] = {};
#pragma unroll
    for (int k = 0; k < steps; k++) {
      uint32_t left[S::groups][4];
#pragma unroll
      for (int g = 0; g < S::groups; g++) loadLeft<width>(qTile, (warp * S::groups + g) * warpRows, k, left[g]);
#pragma unroll
      for (int n = 0; n < keyTiles / 2; n++) {
        uint32_t right[4];
        loadRightRows<width>(keys, n * 16, k, right);
#pragma unroll
        for (int g = 0; g < S::groups; g++) {
          Mma<T>::add(scores[g][2 * n], left[g], right[0], right[1]);
          Mma<T>::add(scores[g][2 * n + 1], left[g], right[2], right[3]);
        }
      }
    }

    // keys that nobody, or not every query of this block, sees
    if ((tile + 1) * S::keys > a.visible(first) || (tile + 1) * S::keys > a.context) {
#pragma unroll
      for (int g = 0; g < S::groups; g++) {
        hideKeys(a, scores[g], first + (warp * S::groups + g) * warpRows + lane / 4, tile * S::keys, -INFINITY);
      }
    }

#pragma unroll
    for (int g = 0; g < S::groups; g++) {
      float shrink[2];
      running[g].take(scores[g], scale, shrink);
#pragma unroll
      for (int n = 0; n < width / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) sums[g][n][i] *= shrink[i / 2];
      }
    }

#pragma unroll
    for (int k = 0; k < S::keys / 16; k++) {
      uint32_t left[S::groups][4];
#pragma unroll
      for (int g = 0; g < S::groups; g++) {
        const float(&p)[4] = scores[g][2 * k];
        const float(&q)[4] = scores[g][2 * k + 1];
        left[g][0] = Mma<T>::two(p[0], p[1]);
        left[g][1] = Mma<T>::two(p[2], p[3]);
        left[g][2] = Mma<T>::two(q[0], q[1]);
        left[g][3] = Mma<T>::two(q[2], q[3]);
      }
#pragma unroll
      for (int n = 0; n < width / 16; n++) {
        uint32_t right[4];
        loadRightColumns<width>(values, k * 16, n, right);
#pragma unroll
        for (int g = 0; g < S::groups; g++) {
          Mma<T>::add(sums[g][2 * n], left[g], right[0], right[1]);
          Mma<T>::add(sums[g][2 * n + 1], left[g], right[2], right[3]);
        }
      }
    }
    __syncthreads();
  }

  auto* lse = static_cast<float*>(a.lse.data) + (b * a.heads + head) * a.time;
#pragma unroll
  for (int g = 0; g < S::groups; g++) {
    const int64_t row = first + (warp * S::groups + g) * warpRows;
    float over[2];
    running[g].finish(a, lse, row + lane / 4, over);
    storeRows<T, width>(a.out, b * a.time, head, row, a.time, sums[g], over[0], over[1]);
  }
}

template <class T, int width, int groups>
Work forwardWith(const Attention& a) {
  using S = Sizes<width, groups>;
  allowShared(forwardKernel<T, width, groups>, S::forwardBytes);
  return [=](const Launch& launch) {
    const dim3 grid = gridOf(a.time, S::queries, a.heads, a.batch);
    forwardKernel<T, width, groups><<<grid, threads, S::forwardBytes, launch.stream>>>(a);
  };
}

template <class T, int width>
Work forwardWork(const Attention& a) {
  if constexpr (width == 64) {
    // some blocks per multiprocessor, or the last of them are waited for
    if (ceilDiv(a.time, Sizes<64, 2>::queries) * a.heads * a.batch >= 1024) return forwardWith<T, 64, 2>(a);
  }
  return forwardWith<T, width, 1>(a);
}

}  // namespace

bool flashForward(const Attention& a, Work& work) {
  if (!fits(a, {&a.q, &a.k, &a.v, &a.out})) return false;
  if (hopperForward(a, work)) return true;
  work = forKind(a, [&](auto element, auto width) { return forwardWork<typename decltype(element)::type, decltype(width)::value>(a); });
  return true;
}

}  // namespace tandem::cuda
