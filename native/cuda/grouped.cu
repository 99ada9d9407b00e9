// Products of groups of rows on tensor cores: what gemm.cu computes on the ordinary cores, of 16-bit values.
#include <cstdlib>
#include <cstring>

#include "gemm.h"

#include "grouped.cuh"

namespace tandem::cuda {

namespace {

using namespace grouped;

template <class T, bool leftColumns, bool rightColumns>
__global__ void __launch_bounds__(threads, 2) groupedTiles(Grouped g, Reporter reporter) {
  extern __shared__ __align__(128) uint8_t memory[];
  blockTile<T, leftColumns, rightColumns>(g, reporter, sharedAddress(memory));
}

template <class T, bool leftColumns, bool rightColumns>
void launchTiles(const Launch& launch, const Grouped& g) {
  const auto kernel = groupedTiles<T, leftColumns, rightColumns>;
  allowShared(kernel, sharedBytes);
  const auto tiles = [](int64_t extent) { return static_cast<unsigned>(ceilDiv(extent, tile)); };
  const Product& p = g.product;
  // a group's last tile may be a part of one
  const dim3 grid = g.sums ? dim3(tiles(p.n), tiles(p.m), static_cast<unsigned>(g.groups))
                           : dim3(tiles(p.n), tiles(g.rows) + static_cast<unsigned>(g.groups));
  kernel<<<grid, threads, sharedBytes, launch.stream>>>(g, launch.reporter);
}

template <class T>
void launchAs(const Launch& launch, const Grouped& g) {
  if (g.sums) return launchTiles<T, true, true>(launch, g);
  if (g.product.b.row == 1) return launchTiles<T, false, false>(launch, g);
  launchTiles<T, false, true>(launch, g);
}

/** Whether a factor's rows, `stride` apart, are such that each has pieces of 16 bytes on 16 bytes. */
bool inPieces(const View& view, int64_t stride) {
  return stride % 8 == 0 && reinterpret_cast<uintptr_t>(view.data) % 16 == 0;
}

/** Whether a result's elements are such that a lane writes 16 bytes of them at once. */
bool inPieces(const View& view) {
  return (isFloat32(view) || storedBytes(view.dtype) == 2) && reinterpret_cast<uintptr_t>(view.data) % 16 == 0;
}

bool wished() {
  const char* wish = std::getenv("TANDEM_CUDA_GROUPED");
  return wish == nullptr || std::strcmp(wish, "0") != 0;
}

}  // namespace

bool multiplyGroupsOnTensorCores(const Launch& launch, const Grouped& g) {
  const Product& p = g.product;
  const Dtype dtype = p.a.view.dtype;
  if (!wished() || storedBytes(dtype) != 2 || p.b.view.dtype != dtype || p.hasBias) return false;
  // what is summed over has any length where it is a group's rows; all other extents are whole stretches of 64
  if (p.n % 64 != 0 || (g.sums ? p.m : p.k) % 64 != 0) return false;
  const bool known = g.sums ? p.a.row == 1 && p.b.column == 1 : p.a.column == 1 && (p.b.row == 1 || p.b.column == 1);
  if (!known || !inPieces(p.a.view, g.sums ? p.a.column : p.a.row) || !inPieces(p.b.view, p.b.row == 1 ? p.b.column : p.b.row)) {
    return false;
  }
  if (!inPieces(p.c) || (p.hasAdd && !inPieces(p.add))) return false;
  if (multiplyGroupsOnHopper(launch, g)) return true;
  if (dtype == Dtype::float16) {
    launchAs<__half>(launch, g);
  } else {
    launchAs<__nv_bfloat16>(launch, g);
  }
  return true;
}

}  // namespace tandem::cuda
