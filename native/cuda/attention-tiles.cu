// Attention in tiles on the ordinary cores: which calls it takes, and its blocks.
#include "attention.h"

#include "attention-tiles.cuh"

namespace tandem::cuda {

namespace {

using namespace tiled;

template <int width, bool pieces>
__global__ void __launch_bounds__(threads, width > 64 ? 2 : 3) forwardTiles(Attention a) {
  extern __shared__ __align__(128) float memory[];
  forwardTile<width, pieces>(a, memory);
}

template <int width, bool pieces>
__global__ void __launch_bounds__(threads, width > 64 ? 2 : 3) queryTiles(Attention a, const float* delta) {
  extern __shared__ __align__(128) float memory[];
  queryTile<width, pieces>(a, delta, memory);
}

template <int width, bool pieces>
__global__ void __launch_bounds__(threads, 2) keyTiles(Attention a, const float* delta) {
  extern __shared__ __align__(128) float memory[];
  keyTile<width, pieces>(a, delta, memory);
}

/** Some devices have less shared memory than the widest tiles take. */
bool fits(const Attention& a, size_t narrowBytes, size_t wideBytes) {
  if (a.headWidth > 128 || a.headWidth == 0 || a.batch == 0 || a.time == 0 || a.context == 0 || a.heads == 0) return false;
  int device = 0, most = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
  return static_cast<size_t>(most) >= (a.headWidth > 64 ? wideBytes : narrowBytes);
}

/** Whether all of these are float32 rows on 16 bytes, so many as a head is wide. */
bool inPieces(const Attention& a, std::initializer_list<const Heads*> tensors) {
  if (a.headWidth % 4 != 0) return false;
  for (const Heads* heads : tensors) {
    if (!isFloat32(heads->view) || heads->stride % 4 != 0 || reinterpret_cast<uintptr_t>(heads->view.data) % 16 != 0) return false;
  }
  return true;
}

/** of(width of tiles, whether they are copied in pieces), as types. */
template <class Of>
auto forKind(const Attention& a, bool pieces, const Of& of) {
  using Narrow = std::integral_constant<int, 64>;
  using Wide = std::integral_constant<int, 128>;
  if (a.headWidth <= Narrow::value) return pieces ? of(Narrow{}, std::true_type{}) : of(Narrow{}, std::false_type{});
  return pieces ? of(Wide{}, std::true_type{}) : of(Wide{}, std::false_type{});
}

unsigned blocksOf(int64_t tokens, int64_t heads, int64_t batch) {
  return static_cast<unsigned>(ceilDiv(tokens, rows) * heads * batch);
}

template <int width, bool pieces>
Work forwardWork(const Attention& a) {
  allowShared(forwardTiles<width, pieces>, forwardBytes<width>);
  return [=](const Launch& launch) {
    forwardTiles<width, pieces><<<blocksOf(a.time, a.heads, a.batch), threads, forwardBytes<width>, launch.stream>>>(a);
  };
}

template <int width, bool pieces>
Gradients gradientWork(const Attention& a) {
  allowShared(queryTiles<width, pieces>, queryBytes<width>);
  allowShared(keyTiles<width, pieces>, keyBytes<width>);
  return [=](cudaStream_t stream, const float* delta) {
    queryTiles<width, pieces><<<blocksOf(a.time, a.heads, a.batch), threads, queryBytes<width>, stream>>>(a, delta);
    keyTiles<width, pieces><<<blocksOf(a.context, a.kvHeads, a.batch), threads, keyBytes<width>, stream>>>(a, delta);
  };
}

}  // namespace

bool tiledForward(const Attention& a, Work& work) {
  if (!fits(a, forwardBytes<64>, forwardBytes<128>)) return false;
  work = forKind(a, inPieces(a, {&a.q, &a.k, &a.v, &a.out}),
                 [&](auto width, auto pieces) { return forwardWork<decltype(width)::value, decltype(pieces)::value>(a); });
  return true;
}

Gradients tiledGradients(const Attention& a) {
  if (!fits(a, std::max(queryBytes<64>, keyBytes<64>), std::max(queryBytes<128>, keyBytes<128>))) return nullptr;
  return forKind(a, inPieces(a, {&a.q, &a.k, &a.v, &a.dout, &a.dq, &a.dk, &a.dv}),
                 [&](auto width, auto pieces) { return gradientWork<decltype(width)::value, decltype(pieces)::value>(a); });
}

}  // namespace tandem::cuda
