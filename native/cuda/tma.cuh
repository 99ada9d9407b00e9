// Tiles of matrices that Hopper's copy engine (TMA) brings into shared memory, and barriers there that count what has arrived: sm_90 and
// later. Knows no kernel. native/test/tiles stands in for this file on a processor.
#ifndef TANDEM_TMA
#define TANDEM_TMA

#include <cuda.h>

#include <cstdint>

namespace tandem::cuda {

/** A matrix of 16-bit values as the copy engine is told of it; on the device a parameter of the kernel (`__grid_constant__`). */
using TensorMap = CUtensorMap;

/** By one thread, before any other sees the barrier: a phase of it ends after so many arrivals, and the bytes that they expect. */
__device__ inline void openBarrier(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
/** The barriers that this thread has opened are seen by copies; a barrier of all threads must follow. */
__device__ inline void showBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/** The same, and the phase does not end before so many bytes have come. */
__device__ inline void arriveExpecting(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/** Until the phase of that parity has ended: 0 is that of the first; with 1, a barrier in its first phase is not waited for. */
__device__ inline void awaitPhase(uint32_t barrier, uint32_t parity) {
  uint32_t ended;
  do {
    asm volatile("{\n.reg .pred ended;\nmbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\nselp.u32 %0, 1, 0, ended;\n}"
                 : "=r"(ended)
                 : "r"(barrier), "r"(parity)
                 : "memory");
  } while (ended == 0);
}

/** A box of the matrix from that column and row on, later, whose bytes are told to the barrier; zeros beyond the matrix. */
__device__ inline void copyBox(uint32_t to, const TensorMap& from, uint32_t barrier, int32_t column, int32_t row) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
               "l"(reinterpret_cast<uint64_t>(&from)), "r"(barrier), "r"(column), "r"(row)
               : "memory");
}

/** Until `threads` threads, whole warps, are at the named barrier, which is not 0. */
template <int name, int threads>
__device__ inline void meet() {
  asm volatile("bar.sync %0, %1;" ::"n"(name), "n"(threads) : "memory");
}
__device__ inline void clearPiece(uint32_t at) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(at), "r"(0) : "memory");
}

}  // namespace tandem::cuda

#endif
