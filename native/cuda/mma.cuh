// Tiles of 16-bit values in shared memory and products of them on tensor cores (mma.sync, sm_80 and later). A tile's rows are
// one head wide; 16-byte pieces of a row are permuted by the row, so that eight rows of one column touch all banks.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace tandem::cuda {

__device__ inline uint32_t sharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/** 16 bytes from global to shared memory, later; zeros where `valid` is false. */
__device__ inline void copyLater(uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ inline void commitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/** Until at most `open` of the groups committed by this thread are under way. */
template <int open>
__device__ inline void awaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(open) : "memory");
}

/** Where a 16-byte piece of a row lies in a tile of `width` 16-bit columns. */
template <int width>
__device__ inline uint32_t pieceAddress(uint32_t tile, int row, int piece) {
  return tile + static_cast<uint32_t>(row * width * 2 + ((piece ^ (row & 7)) << 4));
}

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

__device__ inline void loadMatrices(uint32_t address, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ inline void loadTransposed(uint32_t address, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
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

template <class T>
struct Mma;

template <>
struct Mma<__nv_bfloat16> {
  static __device__ inline void add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
  static __device__ inline uint32_t two(float x, float y) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
};

template <>
struct Mma<__half> {
  static __device__ inline void add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
  static __device__ inline uint32_t two(float x, float y) {
    const __half2 pair = __floats2half2_rn(x, y);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
};

/** 2^x, to two units in the last place of float32. */
__device__ inline float exp2Fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace tandem::cuda
