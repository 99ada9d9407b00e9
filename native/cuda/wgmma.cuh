// Products on Hopper's tensor cores (wgmma, sm_90a alone): four warps multiply 64 rows by 64 columns, sums in registers as Mma
// has them, factors in shared memory; or by 256 columns. Knows no kernel. native/test/tiles stands in for this file on a processor.
#ifndef TANDEM_WGMMA
#define TANDEM_WGMMA

#include "mma.cuh"

// Where the code for it is compiled, a device of compute capability 9.0 takes it.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define TANDEM_HAS_WGMMA 1
#endif

namespace tandem::cuda {

/** Whether kernels of this build that use wgmma may run on the current device. TANDEM_CUDA_WGMMA=0 says no. */
bool wgmmaHere();

#ifdef TANDEM_HAS_WGMMA

/** Before the first product that reads or adds to registers that were written since. */
__device__ inline void openProducts() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void closeProducts() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/** Until at most `open` of the groups closed by these warps are under way. */
template <int open>
__device__ inline void awaitProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(open) : "memory");
}
/** Sums are read after what stands before this, and not earlier; written before what stands after it, and not later. */
template <int count>
__device__ inline void settle(float (&d)[count][4]) {
#pragma unroll
  for (int n = 0; n < count; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) asm volatile("" : "+f"(d[n][i])::"memory");
  }
}
/** Left factors in registers are written before what stands after this, and not later: `openProducts` must see them written. */
template <int count>
__device__ inline void settle(uint32_t (&left)[count][4]) {
#pragma unroll
  for (int k = 0; k < count; k++) {
#pragma unroll
    for (int i = 0; i < 4; i++) asm volatile("" : "+r"(left[k][i])::"memory");
  }
}
/** What this thread has written into shared memory is seen by products; a barrier must follow. */
__device__ inline void showProducts() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/**
 * d += left right, or d = left right where not `onto`: 64 rows by 64 columns over 16. add(d, left, right, onto) takes both factors
 * from shared memory, or the left one from registers, as Mma has it; `transposed`: the right one's rows are what is summed over.
 */
template <class T>
struct Wgmma;

// The text of an instruction must be a literal, so types come by a macro: what differs is their name in it.
#define TANDEM_WGMMA_SUMS \
  "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), \
      "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]), "+f"(d[1][3]), \
      "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]), \
      "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), \
      "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]), \
      "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]), \
      "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), \
      "+f"(d[7][0]), "+f"(d[7][1]), "+f"(d[7][2]), "+f"(d[7][3])
#define TANDEM_WGMMA_OF(Type, name)                                                                                            \
  template <>                                                                                                                  \
  struct Wgmma<Type> {                                                                                                         \
    template <int transposed>                                                                                                  \
    static __device__ inline void add(float (&d)[8][4], uint64_t left, uint64_t right, bool onto) {                            \
      asm volatile(                                                                                                            \
          "{\n.reg .pred onto;\nsetp.ne.b32 onto, %34, 0;\n"                                                                   \
          "wgmma.mma_async.sync.aligned.m64n64k16.f32." name "." name " "                                                      \
          "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                            \
          "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "                                  \
          "%32, %33, onto, 1, 1, 0, %35;\n}"                                                                                  \
          : TANDEM_WGMMA_SUMS                                                                                                  \
          : "l"(left), "l"(right), "r"(static_cast<int>(onto)), "n"(transposed));                                              \
    }                                                                                                                          \
    template <int transposed>                                                                                                  \
    static __device__ inline void add(float (&d)[8][4], const uint32_t (&left)[4], uint64_t right, bool onto) {                \
      asm volatile(                                                                                                            \
          "{\n.reg .pred onto;\nsetp.ne.b32 onto, %37, 0;\n"                                                                   \
          "wgmma.mma_async.sync.aligned.m64n64k16.f32." name "." name " "                                                      \
          "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                            \
          "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "                                  \
          "{%32, %33, %34, %35}, %36, onto, 1, 1, %38;\n}"                                                                   \
          : TANDEM_WGMMA_SUMS                                                                                                  \
          : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right), "r"(static_cast<int>(onto)), "n"(transposed)); \
    }                                                                                                                          \
  }

TANDEM_WGMMA_OF(__nv_bfloat16, "bf16");
TANDEM_WGMMA_OF(__half, "f16");
#undef TANDEM_WGMMA_OF
#undef TANDEM_WGMMA_SUMS

/**
 * d += left right, both from shared memory: 64 rows by 256 columns over 16. `leftTransposed`, `rightTransposed`: the rows of the factor's
 * tile are what is summed over.
 */
template <class T>
struct WideWgmma;

#define TANDEM_WGMMA_FOUR(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define TANDEM_WGMMA_SIXTEEN(n) \
  TANDEM_WGMMA_FOUR(n), TANDEM_WGMMA_FOUR(n + 1), TANDEM_WGMMA_FOUR(n + 2), TANDEM_WGMMA_FOUR(n + 3)
#define TANDEM_WGMMA_SUMS \
  TANDEM_WGMMA_SIXTEEN(0), TANDEM_WGMMA_SIXTEEN(4), TANDEM_WGMMA_SIXTEEN(8), TANDEM_WGMMA_SIXTEEN(12), \
      TANDEM_WGMMA_SIXTEEN(16), TANDEM_WGMMA_SIXTEEN(20), TANDEM_WGMMA_SIXTEEN(24), TANDEM_WGMMA_SIXTEEN(28)
#define TANDEM_WGMMA_OF(Type, name)                                                                    \
  template <>                                                                                          \
  struct WideWgmma<Type> {                                                                             \
    template <int leftTransposed, int rightTransposed>                                                 \
    static __device__ inline void add(float (&d)[32][4], uint64_t left, uint64_t right) {              \
      asm volatile(                                                                                    \
          "{\n.reg .pred onto;\nsetp.ne.b32 onto, %130, 0;\n"                                          \
          "wgmma.mma_async.sync.aligned.m64n256k16.f32." name "." name " "                             \
          "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                  \
          "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "         \
          "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "         \
          "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "         \
          "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "         \
          "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "         \
          "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "\
          "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "\
          "%128, %129, onto, 1, 1, %131, %132;\n}"                                                     \
          : TANDEM_WGMMA_SUMS                                                                          \
          : "l"(left), "l"(right), "r"(1), "n"(leftTransposed), "n"(rightTransposed));                 \
    }                                                                                                  \
  }

TANDEM_WGMMA_OF(__nv_bfloat16, "bf16");
TANDEM_WGMMA_OF(__half, "f16");
#undef TANDEM_WGMMA_OF
#undef TANDEM_WGMMA_SUMS
#undef TANDEM_WGMMA_SIXTEEN
#undef TANDEM_WGMMA_FOUR

#endif

}  // namespace tandem::cuda

#endif
