// The blocked product: panels of a and b are packed so that the innermost loop reads both in order, and keeps a tile of c in
// registers (as in BLIS, doi:10.1145/2764454). Compiled with fused multiply-add where the processor has it.
#include <algorithm>
#include <vector>

#include "gemm.h"
#include "simd.h"

namespace tandem {

namespace {

// A tile of c: 6 x 16 floats fill twelve of sixteen 256-bit registers.
constexpr int64_t tileRows = 6;
constexpr int64_t tileColumns = 16;
// A panel of b, depth x 16, stays in the first cache; a block of a, 96 x depth, in the second.
constexpr int64_t depth = 256;
constexpr int64_t blockRows = 96;
constexpr int64_t blockColumns = 1024;

/** Rows [0, rows) of a, padded with zeros to whole tiles: for each tile and k, six values together. */
TANDEM_SIMD void packRows(const float* a, int64_t row, int64_t column, int64_t rows, int64_t k, float* packed) {
  for (int64_t i = 0; i < rows; i += tileRows) {
    const int64_t height = std::min(tileRows, rows - i);
    for (int64_t p = 0; p < k; p++) {
      for (int64_t r = 0; r < tileRows; r++) packed[r] = r < height ? a[(i + r) * row + p * column] : 0.0f;
      packed += tileRows;
    }
  }
}

/** Columns [0, columns) of b, padded with zeros to whole tiles: for each tile and k, sixteen values together. */
TANDEM_SIMD void packColumns(const float* b, int64_t row, int64_t column, int64_t columns, int64_t k, float* packed) {
  for (int64_t j = 0; j < columns; j += tileColumns) {
    const int64_t width = std::min(tileColumns, columns - j);
    if (column == 1 && width == tileColumns) {
      for (int64_t p = 0; p < k; p++) {
        for (int64_t c = 0; c < tileColumns; c++) packed[p * tileColumns + c] = b[p * row + j + c];
      }
    } else {
      for (int64_t c = 0; c < tileColumns; c++) {
        for (int64_t p = 0; p < k; p++) {
          packed[p * tileColumns + c] = c < width ? b[p * row + (j + c) * column] : 0.0f;
        }
      }
    }
    packed += k * tileColumns;
  }
}

typedef float Vector __attribute__((vector_size(32)));
/** The same anywhere in memory; for loads and stores only, since a variable of this type would not be aligned. */
typedef float Unaligned __attribute__((vector_size(32), aligned(4), may_alias));

/** tile += a panel (k x 6) times b panel (k x 16). */
TANDEM_SIMD void multiplyTile(int64_t k, const float* a, const float* b, float* tile) {
  Vector sums[tileRows][2];
  for (auto& row : sums) row[0] = row[1] = Vector{0, 0, 0, 0, 0, 0, 0, 0};
  for (int64_t p = 0; p < k; p++) {
    const Vector left = *reinterpret_cast<const Unaligned*>(b);
    const Vector right = *reinterpret_cast<const Unaligned*>(b + 8);
#pragma GCC unroll 6
    for (int64_t r = 0; r < tileRows; r++) {
      sums[r][0] += a[r] * left;
      sums[r][1] += a[r] * right;
    }
    a += tileRows;
    b += tileColumns;
  }
  for (int64_t r = 0; r < tileRows; r++) {
    *reinterpret_cast<Unaligned*>(tile + r * tileColumns) = sums[r][0];
    *reinterpret_cast<Unaligned*>(tile + r * tileColumns + 8) = sums[r][1];
  }
}

void store(const float* tile, int64_t rows, int64_t columns, float* c, int64_t stride, bool add) {
  for (int64_t i = 0; i < rows; i++) {
    float* out = c + i * stride;
    const float* in = tile + i * tileColumns;
    if (add) {
      for (int64_t j = 0; j < columns; j++) out[j] += in[j];
    } else {
      for (int64_t j = 0; j < columns; j++) out[j] = in[j];
    }
  }
}

}  // namespace

void multiplyOwn(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, int64_t stride, bool add) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    for (int64_t i = 0; i < m && !add; i++) std::fill(c + i * stride, c + i * stride + n, 0.0f);
    return;
  }
  thread_local std::vector<float> packedA(blockRows * depth);
  thread_local std::vector<float> packedB(blockColumns * depth);
  alignas(64) float tile[tileRows * tileColumns];
  for (int64_t column = 0; column < n; column += blockColumns) {
    const int64_t columns = std::min(blockColumns, n - column);
    for (int64_t p = 0; p < k; p += depth) {
      const int64_t steps = std::min(depth, k - p);
      packColumns(b.data + p * b.row + column * b.column, b.row, b.column, columns, steps, packedB.data());
      for (int64_t row = 0; row < m; row += blockRows) {
        const int64_t rows = std::min(blockRows, m - row);
        packRows(a.data + row * a.row + p * a.column, a.row, a.column, rows, steps, packedA.data());
        for (int64_t j = 0; j < columns; j += tileColumns) {
          for (int64_t i = 0; i < rows; i += tileRows) {
            multiplyTile(steps, packedA.data() + i * steps, packedB.data() + j * steps, tile);
            store(tile, std::min(tileRows, rows - i), std::min(tileColumns, columns - j),
                  c + (row + i) * stride + column + j, stride, add || p > 0);
          }
        }
      }
    }
  }
}

}  // namespace tandem
