// Attention's forward pass on wgmma (compute capability 9.0): the algorithm of flash.cu, keys and values read by the tensor
// cores straight from shared memory.
#include <cstdlib>
#include <cstring>

#include "flash-hopper.cuh"

namespace tandem::cuda {

bool wgmmaHere() {
#ifdef TANDEM_SM90A
  const char* wish = std::getenv("TANDEM_CUDA_WGMMA");
  if (wish != nullptr && std::strcmp(wish, "0") == 0) return false;
  int device = 0;
  int major = 0;
  int minor = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  return major == 9 && minor == 0;
#else
  return false;
#endif
}

namespace {

using namespace flash;

/** `groups` of four warps with 64 queries each share tiles of 64 keys, the next of which is on its way. */
template <int width, int groups>
constexpr size_t forwardBytes = size_t{groups + 4} * (width / 64) * pieceBytes + 1024;

template <class T, int width, int groups>
__global__ void __launch_bounds__(128 * groups, width == 64 ? 4 / groups : 2 / groups) forwardKernel(Attention a) {
#ifdef TANDEM_HAS_WGMMA
  constexpr int copiers = 128 * groups;
  constexpr int parts = width / 64;
  constexpr uint32_t tileBytes = parts * pieceBytes;
  extern __shared__ uint8_t memory[];
  const uint32_t qTiles = firstTile(memory);
  const uint32_t kTiles = qTiles + groups * tileBytes;
  const uint32_t vTiles = kTiles + 2 * tileBytes;
  const int lane = threadIdx.x % 32;
  const int group = threadIdx.x / 128;
  const int64_t blocks = (a.time + 64 * groups - 1) / (64 * groups);
  // the longest first
  const int64_t blockFirst = (blocks - 1 - blockIdx.x) * 64 * groups;
  const int64_t first = blockFirst + group * 64;
  const int64_t head = blockIdx.y;
  const int64_t b = blockIdx.z;
  const int64_t kvHead = a.kvHead(head);
  const auto tiles = static_cast<int>((a.visible(min(a.time, blockFirst + 64 * groups) - 1) + 63) / 64);
  // of this group's queries; none where all of them are beyond the last
  const auto own = static_cast<int>(first < a.time ? (a.visible(min(a.time, first + 64) - 1) + 63) / 64 : 0);
  // tiles that each of this group's queries sees all of
  const auto plain = static_cast<int>(min(a.context, a.visible(first)) / 64);
  const float scale = a.scale * log2e;

  const Pieces<copiers, width> keys(a.k, b * a.context, kvHead);
  const Pieces<copiers, width> values(a.v, b * a.context, kvHead);
  const auto copyKeys = [&](int tile) {
    const uint32_t buffer = (tile & 1) * tileBytes;
    keys.copy(kTiles + buffer, int64_t{tile} * 64, a.context);
    values.copy(vTiles + buffer, int64_t{tile} * 64, a.context);
    commitCopies();
  };
  {
    const Pieces<copiers, width> rows(a.q, b * a.time, head);
#pragma unroll
    for (int g = 0; g < groups; g++) {
      if (blockFirst + g * 64 < a.time) rows.copy(qTiles + g * tileBytes, blockFirst + g * 64, a.time);
    }
  }
  copyKeys(0);

  float sums[parts][8][4] = {};
  float scores[8][4] = {};
  Running running;
  for (int tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) {
      copyKeys(tile + 1);
      awaitCopies<1>();
    } else {
      awaitCopies<0>();
    }
    showProducts();
    __syncthreads();
    if (tile < own) {
      const uint32_t buffer = (tile & 1) * tileBytes;
      settle(scores);
      openProducts();
      multiplyRows<T, width>(scores, qTiles + group * tileBytes, kTiles + buffer);
      closeProducts();
      awaitProducts<0>();
      settle(scores);
      const int64_t row = first + threadIdx.x % 128 / 32 * warpRows + lane / 4;
      // keys that nobody, or not every query of this group, sees
      if (tile >= plain) hideKeys(a, scores, row, int64_t{tile} * 64, -INFINITY);
      float shrink[2];
      running.take(scores, scale, shrink);
#pragma unroll
      for (int part = 0; part < parts; part++) {
#pragma unroll
        for (int n = 0; n < 8; n++) {
#pragma unroll
          for (int i = 0; i < 4; i++) sums[part][n][i] *= shrink[i / 2];
        }
      }
      uint32_t weights[4][4];
#pragma unroll
      for (int k = 0; k < 4; k++) leftOf<T>(scores, k, weights[k]);
      settle(weights);
      settleAll(sums);
      openProducts();
      multiplyColumns<T, width>(sums, weights, vTiles + buffer);
      closeProducts();
      awaitProducts<0>();
      settleAll(sums);
    }
    __syncthreads();
  }

  const int64_t row = first + threadIdx.x % 128 / 32 * warpRows;
  float over[2];
  running.finish(a, static_cast<float*>(a.lse.data) + (b * a.heads + head) * a.time, row + lane / 4, over);
  storeParts<T, width>(a.out, b * a.time, head, row, a.time, sums, over[0], over[1]);
#else
  __trap();
#endif
}

template <class T, int width, int groups>
Work forwardWith(const Attention& a) {
  allowShared(forwardKernel<T, width, groups>, forwardBytes<width, groups>);
  return [=](const Launch& launch) {
    const dim3 grid = gridOf(a.time, 64 * groups, a.heads, a.batch);
    forwardKernel<T, width, groups><<<grid, 128 * groups, forwardBytes<width, groups>, launch.stream>>>(a);
  };
}

template <class T, int width>
Work forwardWork(const Attention& a) {
  // some blocks per multiprocessor, or the last of them are waited for; so many is assumed (eight for each of an H100's 132), not measured
  const bool many = ceilDiv(a.time, 128) * a.heads * a.batch >= 1024;
  return many ? forwardWith<T, width, 2>(a) : forwardWith<T, width, 1>(a);
}

}  // namespace

bool hopperForward(const Attention& a, Work& work) {
  if (!wgmmaHere()) return false;
  work = forKind(a, [&](auto element, auto width) { return forwardWork<typename decltype(element)::type, decltype(width)::value>(a); });
  return true;
}

}  // namespace tandem::cuda
