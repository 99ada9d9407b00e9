// Products on the ordinary cores, in float32: 64 by 64 tiles, 16 deep, 4 by 4 elements per thread. Of few rows, as in decoding,
// a warp takes a column: then it is reading the right factor that takes time.
#include "gemm.h"
#include "group-counts.cuh"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {

constexpr int tile = 64;
constexpr int depth = 16;

/** The tile of rows m0 and columns n0 of one product; `rows` and `k` are those of the group. */
__device__ void productTile(const Product& p, int64_t m0, int64_t n0) {
  __shared__ float as[depth][tile + 4];
  __shared__ float bs[depth][tile + 4];
  const int tx = threadIdx.x % 16;
  const int ty = threadIdx.x / 16;
  float sums[4][4] = {};
  for (int64_t k0 = 0; k0 < p.k; k0 += depth) {
    for (int i = threadIdx.x; i < tile * depth; i += 256) {
      // neighbouring threads read what lies side by side
      const int m = p.a.column == 1 ? i / depth : i % tile;
      const int ka = p.a.column == 1 ? i % depth : i / tile;
      as[ka][m] = m0 + m < p.m && k0 + ka < p.k ? get(p.a.view, (m0 + m) * p.a.row + (k0 + ka) * p.a.column) : 0.0f;
      const int n = p.b.row == 1 ? i / depth : i % tile;
      const int kb = p.b.row == 1 ? i % depth : i / tile;
      bs[kb][n] = n0 + n < p.n && k0 + kb < p.k ? get(p.b.view, (k0 + kb) * p.b.row + (n0 + n) * p.b.column) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < depth; k++) {
      float a[4], b[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        a[i] = as[k][ty * 4 + i];
        b[i] = bs[k][tx * 4 + i];
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < 4; i++) {
    const int64_t m = m0 + ty * 4 + i;
    for (int j = 0; j < 4; j++) {
      const int64_t n = n0 + tx * 4 + j;
      if (m >= p.m || n >= p.n) continue;
      float value = sums[i][j];
      if (p.hasBias) value += get(p.bias, n);
      if (p.hasAdd) value += get(p.add, m * p.n + n);
      set(p.c, m * p.n + n, value);
    }
  }
}

__global__ void __launch_bounds__(256) productKernel(Product p) {
  productTile(p, static_cast<int64_t>(blockIdx.y) * tile, static_cast<int64_t>(blockIdx.x) * tile);
}

constexpr int columnWarps = 4;

/** Up to `rows` rows with one column of the right factor, which lies in one piece, per warp. */
template <int rows>
__global__ void __launch_bounds__(columnWarps * 32) columnKernel(Product p) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * columnWarps + threadIdx.x / 32;
  if (n >= p.n) return;
  const View column = p.b.view.at(n * p.b.column);
  float sums[rows] = {};
#pragma unroll 4
  for (int64_t k = threadIdx.x % 32 * pack; k < p.k; k += 32 * pack) {
    float b[pack];
    getPack(column, k, b);
#pragma unroll
    for (int m = 0; m < rows; m++) {
      if (m >= p.m) break;
      float a[pack];
      getPack(p.a.view.at(m * p.a.row), k, a);
#pragma unroll
      for (int j = 0; j < pack; j++) sums[m] = fmaf(a[j], b[j], sums[m]);
    }
  }
#pragma unroll
  for (int m = 0; m < rows; m++) {
    if (m >= p.m) break;
    float value = warpReduce(sums[m], Add{});
    if (threadIdx.x % 32 != 0) continue;
    if (p.hasBias) value += get(p.bias, n);
    if (p.hasAdd) value += get(p.add, m * p.n + n);
    set(p.c, m * p.n + n, value);
  }
}

bool aligned(const View& v, int64_t stride) {
  const size_t bytes = static_cast<size_t>(pack) * static_cast<size_t>(storedBytes(v.dtype));
  return stride % pack == 0 && reinterpret_cast<uintptr_t>(v.data) % bytes == 0;
}

/** A block finds its group by counting tiles; counts that do not add up are a fault, and nothing is computed. */
__global__ void __launch_bounds__(256) groupedKernel(Grouped g, Reporter reporter) {
  const auto [group, first, count, m0] = partOfBlock(g, reporter, tile);
  if (group < 0) return;
  Product p = g.product;
  if (g.sums) {
    p.k = count;
    p.a.view = p.a.view.at(first * p.a.column);
    p.b.view = p.b.view.at(first * p.b.row);
    p.c = p.c.at(group * g.groupStride);
    if (p.hasAdd) p.add = p.add.at(group * g.groupStride);
  } else {
    p.m = count;
    p.a.view = p.a.view.at(first * p.a.row);
    p.b.view = p.b.view.at(group * g.groupStride);
    p.c = p.c.at(first * p.n);
  }
  productTile(p, m0, static_cast<int64_t>(blockIdx.x) * tile);
}

unsigned tiles(int64_t extent) { return static_cast<unsigned>(ceilDiv(extent, tile)); }

}  // namespace

void multiply(const Launch& launch, const Product& product) {
  if (product.m == 0 || product.n == 0) return;
  const Product& p = product;
  const bool along = p.a.column == 1 && p.b.row == 1 && p.k % pack == 0 && p.k >= 32 * pack;
  if (p.m <= fewRows && along && aligned(p.a.view, p.a.row) && aligned(p.b.view, p.b.column)) {
    const auto blocks = static_cast<unsigned>(ceilDiv(p.n, columnWarps));
    if (p.m == 1) {
      columnKernel<1><<<blocks, columnWarps * 32, 0, launch.stream>>>(p);
    } else if (p.m <= 4) {
      columnKernel<4><<<blocks, columnWarps * 32, 0, launch.stream>>>(p);
    } else {
      columnKernel<fewRows><<<blocks, columnWarps * 32, 0, launch.stream>>>(p);
    }
    return;
  }
  productKernel<<<dim3(tiles(product.n), tiles(product.m)), 256, 0, launch.stream>>>(product);
}

void multiplyGroups(const Launch& launch, const Grouped& g) {
  const Product& p = g.product;
  if (p.n == 0 || g.groups == 0 || (g.sums ? p.m : g.rows) == 0) return;
  if (multiplyGroupsOnTensorCores(launch, g)) return;
  const dim3 grid = g.sums ? dim3(tiles(p.n), tiles(p.m), static_cast<unsigned>(g.groups))
                           : dim3(tiles(p.n), tiles(g.rows) + static_cast<unsigned>(g.groups));
  groupedKernel<<<grid, 256, 0, launch.stream>>>(g, launch.reporter);
}

}  // namespace tandem::cuda
