// What the passes of attention on wgmma share: tiles of 64 columns, one for each 64 of a head's width.
#pragma once

#include "flash.cuh"
#include "wgmma.cuh"

namespace tandem::cuda::flash {

constexpr uint32_t pieceBytes = 64 * 128;

#ifdef TANDEM_HAS_WGMMA

/**
 * What one of `copiers` threads copies of 64 rows of one head, as width / 64 tiles one after another: the same piece of every
 * few rows, so that addresses are found once.
 */
template <int copiers, int width>
struct Pieces {
  static constexpr int rowsApart = copiers / 8;
  const char* from;
  int64_t rowBytes;
  uint32_t to;
  int row;

  __device__ Pieces(const Heads& heads, int64_t token, int64_t head)
      : from(reinterpret_cast<const char*>(static_cast<const uint16_t*>(heads.view.data) + token * heads.stride + head * width +
                                           threadIdx.x % 8 * 8)),
        rowBytes(heads.stride * 2),
        to(pieceAddress<64>(0, threadIdx.x / 8, threadIdx.x % 8)),
        row(threadIdx.x / 8) {}

  /** Rows from `first` on, which is below `end`; zeros from `end` on. */
  __device__ inline void copy(uint32_t tile, int64_t first, int64_t end) const {
    const char* start = from + first * rowBytes;
    const auto rows = static_cast<int>(min(end - first, int64_t{64}));
#pragma unroll
    for (int i = 0; i < 64 / rowsApart; i++) {
      const bool valid = row + i * rowsApart < rows;
      const char* source = valid ? start + (row + i * rowsApart) * rowBytes : start;
#pragma unroll
      for (int part = 0; part < width / 64; part++) {
        copyLater(tile + to + part * pieceBytes + i * rowsApart * 128, source + part * 128, valid);
      }
    }
  }
};

/** sums = (64 rows of the left tile) (64 rows of the right tile)^T, over all columns; whatever they were before. */
template <class T, int width>
__device__ inline void multiplyRows(float (&sums)[8][4], uint32_t left, uint32_t right) {
#pragma unroll
  for (int k = 0; k < width / 16; k++) {
    const uint32_t at = k / 4 * pieceBytes + k % 4 * 32;
    Wgmma<T>::template add<0>(sums, stretch(left + at), stretch(right + at), k > 0);
  }
}

/** Two neighbouring groups of eight columns of sums as a left factor. */
template <class T>
__device__ inline void leftOf(const float (&sums)[8][4], int k, uint32_t (&left)[4]) {
  left[0] = Mma<T>::two(sums[2 * k][0], sums[2 * k][1]);
  left[1] = Mma<T>::two(sums[2 * k][2], sums[2 * k][3]);
  left[2] = Mma<T>::two(sums[2 * k + 1][0], sums[2 * k + 1][1]);
  left[3] = Mma<T>::two(sums[2 * k + 1][2], sums[2 * k + 1][3]);
}

/** sums += weights (64 by 64, 16 columns of them in each left factor) (64 rows of the right tile). */
template <class T, int width>
__device__ inline void multiplyColumns(float (&sums)[width / 64][8][4], const uint32_t (&weights)[4][4], uint32_t right) {
#pragma unroll
  for (int k = 0; k < 4; k++) {
#pragma unroll
    for (int part = 0; part < width / 64; part++) {
      Wgmma<T>::template add<1>(sums[part], weights[k], stretch(right + part * pieceBytes + k * 16 * 128), true);
    }
  }
}

template <int parts>
__device__ inline void settleAll(float (&sums)[parts][8][4]) {
#pragma unroll
  for (int part = 0; part < parts; part++) settle(sums[part]);
}

/** 16 rows of each warp, a part at a time. */
template <class T, int width>
__device__ inline void storeParts(const Heads& to, int64_t token, int64_t head, int64_t first, int64_t end,
                                  const float (&sums)[width / 64][8][4], float factor0, float factor1) {
#pragma unroll
  for (int part = 0; part < width / 64; part++) {
    const Heads narrow = {to.view.at(head * width + part * 64), to.stride};
    storeRows<T, 64>(narrow, token, 0, first, end, sums[part], factor0, factor1);
  }
}

#endif

}  // namespace tandem::cuda::flash
