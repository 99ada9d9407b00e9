// Products of groups of rows on Hopper's tensor cores: the launch of grouped-hopper.cuh, and the maps of its factors. The driver's function
// that makes a map is looked up at run time, so nothing of the driver is needed to build.
#include <algorithm>

#include "gemm.h"

#include "grouped-hopper.cuh"

namespace tandem::cuda {

namespace {

using namespace grouped;

template <class T, bool leftColumns, bool rightColumns>
__global__ void __launch_bounds__(hopper::threads, 1)
    groupedHopper(Grouped g, Reporter reporter, const __grid_constant__ TensorMap left, const __grid_constant__ TensorMap right) {
#ifdef TANDEM_HAS_WGMMA
  extern __shared__ uint8_t memory[];
  hopper::blockTiles<T, leftColumns, rightColumns>(g, reporter, left, right, firstTile(memory));
#else
  __trap();
#endif
}

using Encode = decltype(&cuTensorMapEncodeTiled);

/** Null where the driver has none. */
Encode encoder() {
  static const Encode found = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
    const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &result);
#else
    const cudaError_t status = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &result);
#endif
    return status == cudaSuccess && result == cudaDriverEntryPointSuccess ? reinterpret_cast<Encode>(entry) : nullptr;
  }();
  return found;
}

/** A matrix of 16-bit values, of which boxes of so many rows and 64 columns are copied. */
struct Matrix {
  View view;
  int64_t rows, columns;
  unsigned boxRows;
};

/** False where the driver refuses. */
bool mapOf(const Matrix& matrix, TensorMap& map) {
  const Encode encode = encoder();
  if (encode == nullptr) return false;
  const cuuint64_t extents[2] = {static_cast<cuuint64_t>(matrix.columns), static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t rowBytes[1] = {static_cast<cuuint64_t>(matrix.columns) * 2};
  const cuuint32_t box[2] = {hopper::depth, matrix.boxRows};
  const cuuint32_t steps[2] = {1, 1};
  const auto type = matrix.view.dtype == Dtype::float16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  return encode(&map, type, 2, matrix.view.data, extents, rowBytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

int multiprocessors() {
  int device = 0;
  int count = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  return count;
}

template <class T, bool leftColumns, bool rightColumns>
bool launchTiles(const Launch& launch, const Grouped& g, Matrix a, Matrix b, int64_t tiles) {
  a.boxRows = hopper::boxRows(leftColumns, hopper::tileRows);
  b.boxRows = hopper::boxRows(rightColumns, hopper::tileColumns);
  TensorMap left, right;
  if (!mapOf(a, left) || !mapOf(b, right)) return false;
  const auto kernel = groupedHopper<T, leftColumns, rightColumns>;
  allowShared(kernel, hopper::sharedBytes);
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(tiles, multiprocessors()));
  kernel<<<blocks, hopper::threads, hopper::sharedBytes, launch.stream>>>(g, launch.reporter, left, right);
  return true;
}

template <class T>
bool launchAs(const Launch& launch, const Grouped& g, const Matrix& a, const Matrix& b, int64_t tiles) {
  if (g.sums) return launchTiles<T, true, true>(launch, g, a, b, tiles);
  if (g.product.b.row == 1) return launchTiles<T, false, false>(launch, g, a, b, tiles);
  return launchTiles<T, false, true>(launch, g, a, b, tiles);
}

}  // namespace

bool multiplyGroupsOnHopper(const Launch& launch, const Grouped& g) {
  const Product& p = g.product;
  // a map has at least a row, and numbers rows and columns, as tiles are numbered, in 32 bits
  constexpr int64_t most = int64_t{1} << 30;
  if (!wgmmaHere() || g.rows == 0) return false;
  const int64_t weightRows = g.groups * (p.b.row == 1 ? p.n : p.k);
  const int64_t weightColumns = p.b.row == 1 ? p.k : p.n;
  const Matrix a = {p.a.view, g.rows, g.sums ? p.m : p.k, 0};
  const Matrix b = {p.b.view, g.sums ? g.rows : weightRows, g.sums ? p.n : weightColumns, 0};
  // rows, and matrices of groups, lie one right after another
  const int64_t aStride = g.sums ? p.a.column : p.a.row;
  const int64_t bStride = p.b.row == 1 ? p.b.column : p.b.row;
  if (aStride != a.columns || bStride != b.columns || (!g.sums && g.groupStride != p.n * p.k)) return false;
  const int64_t down = g.sums ? g.groups * ceilDiv(p.m, hopper::tileRows) : ceilDiv(g.rows, hopper::tileRows) + g.groups;
  const int64_t across = ceilDiv(p.n, hopper::tileColumns);
  if (std::max({a.rows, a.columns, b.rows, b.columns, down}) > most || down * across > most) return false;
  return p.a.view.dtype == Dtype::float16 ? launchAs<__half>(launch, g, a, b, down * across)
                                          : launchAs<__nv_bfloat16>(launch, g, a, b, down * across);
}

}  // namespace tandem::cuda
