// Tiles of 16-bit values in shared memory, as factors of products on tensor cores. A tile's rows are one head wide; 16-byte pieces of
// a row are permuted by the row, so that eight rows of one column touch all banks.
#pragma once

#include "ptx.cuh"

namespace tandem::cuda {

/** Where a 16-byte piece of a row lies in a tile of `width` 16-bit columns. */
template <int width>
__device__ inline uint32_t pieceAddress(uint32_t tile, int row, int piece) {
  return tile + static_cast<uint32_t>(row * width * 2 + ((piece ^ (row & 7)) << 4));
}

/**
 * A tile of 64 columns, 128 bytes a row, as wgmma is told of it: the layout that PTX calls 128-byte swizzle, which is what `pieceAddress`
 * has. Tiles begin at multiples of 1024 bytes. `apart`: bytes from a tile to the next 64 columns, where the rows are what is summed over.
 */
__device__ inline uint64_t stretch(uint32_t address, uint32_t apart = 16) {
  return static_cast<uint64_t>((address & 0x3ffffu) >> 4) | static_cast<uint64_t>(apart >> 4) << 16 | uint64_t{64} << 32 |
         uint64_t{1} << 62;
}

/** Where the first tile for wgmma may begin: dynamic shared memory need not lie on 1024 bytes. */
__device__ inline uint32_t firstTile(const uint8_t* memory) { return (sharedAddress(memory) + 1023u) & ~1023u; }

/** Rows first .. first + rows - 1 that lie `stride` elements apart into a tile, by all threads of a block; zeros from `end` on. */
template <int threads, int rows, int width>
__device__ inline void copyRows(uint32_t tile, const uint16_t* from, int64_t stride, int64_t first, int64_t end) {
  constexpr int pieces = width / 8;
  for (int i = threadIdx.x; i < rows * pieces; i += threads) {
    const int row = i / pieces;
    const int piece = i % pieces;
    const bool valid = first + row < end;
    copyLater(pieceAddress<width>(tile, row, piece), from + (valid ? first + row : 0) * stride + piece * 8, valid);
  }
}

/** Rows row .. row + 15, columns 16 k .. 16 k + 15 of a tile, as the left factor. */
template <int width>
__device__ inline void loadLeft(uint32_t tile, int row, int k, uint32_t (&r)[4]) {
  const int lane = threadIdx.x % 32;
  loadMatrices(pieceAddress<width>(tile, row + lane % 16, 2 * k + lane / 16), r);
}

/** The same rows and columns as the right factor of a product over columns: two groups of eight rows, (r0, r1) and (r2, r3). */
template <int width>
__device__ inline void loadRightRows(uint32_t tile, int row, int k, uint32_t (&r)[4]) {
  const int lane = threadIdx.x % 32;
  loadMatrices(pieceAddress<width>(tile, row + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2), r);
}

/** The same as the right factor of a product over rows: two groups of eight columns, (r0, r1) and (r2, r3). */
template <int width>
__device__ inline void loadRightColumns(uint32_t tile, int row, int k, uint32_t (&r)[4]) {
  const int lane = threadIdx.x % 32;
  loadTransposed(pieceAddress<width>(tile, row + lane % 16, 2 * k + lane / 16), r);
}

}  // namespace tandem::cuda
