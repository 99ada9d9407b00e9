// A block of a GPU on a processor: each thread is a fiber, barriers and instructions that a warp does together wait for all who take
// part, and who goes on is drawn. Copies into shared memory happen when they are waited for, or at once, as early or as late as they
// may. Matrices and products of tensor cores lie among a warp's registers as the PTX manual has it ("Matrix Fragments for mma.m16n8k16",
// "ldmatrix"). Stands in for native/cuda/ptx.cuh, and for what of CUDA's language tiles use.
#pragma once

// longjmp between stacks is what fibers are: not to be held for a mistake
#undef _FORTIFY_SOURCE

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <random>
#include <vector>

#define TANDEM_PTX
#define __device__
#define __host__

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
inline Index blockIdx, threadIdx, gridDim;

struct alignas(16) float4 {
  float x, y, z, w;
};

using std::max;
using std::min;

namespace tandem::cuda {

/** Of the largest block, in whole warps. */
constexpr int mostThreads = 288;

struct Copy {
  uint32_t to;
  const void* from;
  bool valid;
};

class Block {
 public:
  /** Runs `body` on each of so many threads, with so much shared memory, full of numbers that spoil every sum at first. */
  void run(int threads, size_t sharedBytes, bool copiesAtOnce, const std::function<void()>& body) {
    threads_ = threads;
    shared.assign(sharedBytes, 0x7f);
    atOnce_ = copiesAtOnce;
    body_ = body;
    left_.assign(mostThreads, {});
    std::vector<int> order(static_cast<size_t>(threads));
    for (int i = 0; i < threads; i++) {
      order[static_cast<size_t>(i)] = i;
      Fiber& fiber = fibers_[i];
      fiber.stack.resize(size_t{256} << 10);
      fiber.begun = fiber.ended = false;
      fiber.groups.clear();
      fiber.round = nullptr;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.data();
      fiber.context.uc_stack.ss_size = fiber.stack.size();
      fiber.context.uc_link = nullptr;
      makecontext(&fiber.context, &Block::enter, 0);
    }
    // one warp is held back for a while: others may be far ahead of it, as far as barriers let them
    int held = -1;
    unsigned rounds = 0;
    int still = 0;
    for (int running = threads; running > 0;) {
      std::shuffle(order.begin(), order.end(), random);
      moved_ = false;
      for (const int i : order) {
        if (fibers_[i].ended || i / 32 == held || fibers_[i].waits()) continue;
        current = i;
        threadIdx.x = static_cast<unsigned>(i);
        resume(fibers_[i]);
        if (fibers_[i].ended) running--;
      }
      still = moved_ ? 0 : still + 1;
      if (still > 2) fail("threads that wait for ever, so many of them running", static_cast<uint32_t>(running));
      if (!moved_) {
        held = -1;
      } else if (rounds-- == 0) {
        held = static_cast<int>(random() % static_cast<unsigned>(threads / 32));
        rounds = random() % 256;
      }
    }
  }

  /** Until all of the block, or all of this thread's warp, are here. */
  void together(bool warp) {
    Barrier& barrier = warp ? warps_[current / 32] : all_;
    const int round = barrier.round;
    moved_ = true;
    if (++barrier.waiting == (warp ? 32 : threads_)) {
      barrier.waiting = 0;
      barrier.round++;
      return;
    }
    awaitNext(barrier.round, round);
  }

  /** Until `round` is another. This thread is not resumed before: most that there are stand at barriers. */
  void awaitNext(const int& round, int before) {
    if (round != before) return;
    Fiber& fiber = fibers_[current];
    fiber.round = &round;
    fiber.before = before;
    pause();
    fiber.round = nullptr;
  }
  /** Lets others go on. */
  [[gnu::noinline]] void pause() {
    if (_setjmp(fibers_[current].here) == 0) _longjmp(scheduler_, 1);
  }
  /** This thread, or what it waits for, got further: who never does waits for ever. */
  void moved() { moved_ = true; }

  [[noreturn]] void fail(const char* what, uint32_t value) const {
    std::fprintf(stderr, "%s: %u\n", what, value);
    std::abort();
  }

  /** 16 bytes of shared memory. */
  void write(uint32_t to, const void* from) {
    if (to % 16 != 0 || to + 16 > shared.size()) fail("a copy to byte", to);
    std::memcpy(shared.data() + to, from, 16);
  }

  void copyLater(const Copy& copy) {
    if (atOnce_) return take(copy);
    left_[static_cast<size_t>(current)].push_back(copy);
  }
  void commitCopies() {
    std::vector<Copy>& open = left_[static_cast<size_t>(current)];
    fibers_[current].groups.push_back(std::move(open));
    open.clear();
  }
  void awaitCopies(size_t open) {
    for (auto& groups = fibers_[current].groups; groups.size() > open; groups.pop_front()) {
      for (const Copy& copy : groups.front()) take(copy);
    }
  }

  int current = 0;
  std::vector<uint8_t> shared;
  std::mt19937 random{1};
  uint32_t addresses[mostThreads] = {};
  uint32_t left[mostThreads][4] = {};
  uint32_t right[mostThreads][2] = {};
  uint32_t passed[mostThreads] = {};

 private:
  struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    std::deque<std::vector<Copy>> groups;
    /** Where it goes on, once begun: `context` does it with a call of the kernel, many times as slow. */
    jmp_buf here;
    bool begun = false, ended = false;
    /** That it waits to see change from what it was; none where it does not wait so. */
    const int* round = nullptr;
    int before = 0;
    bool waits() const { return round != nullptr && *round == before; }
  };
  struct Barrier {
    int waiting = 0, round = 0;
  };

  static void enter();

  /** Until it pauses or ends. */
  [[gnu::noinline]] void resume(Fiber& fiber) {
    if (_setjmp(scheduler_) != 0) return;
    if (fiber.begun) _longjmp(fiber.here, 1);
    fiber.begun = true;
    setcontext(&fiber.context);
  }

  void take(const Copy& copy) {
    static const uint8_t zeros[16] = {};
    write(copy.to, copy.valid ? copy.from : zeros);
  }

  int threads_ = 0;
  bool moved_ = false;
  jmp_buf scheduler_;
  std::function<void()> body_;
  std::vector<std::vector<Copy>> left_;
  bool atOnce_ = false;
  Fiber fibers_[mostThreads];
  Barrier all_, warps_[mostThreads / 32];
};

inline Block block;

inline void Block::enter() {
  block.body_();
  block.moved_ = true;
  block.fibers_[block.current].ended = true;
  _longjmp(block.scheduler_, 1);
}

inline void __syncthreads() { block.together(false); }
inline void __syncwarp() { block.together(true); }

/** All of the warp take part. */
template <class T>
T __shfl_xor_sync(uint32_t, T value, int offset) {
  std::memcpy(&block.passed[block.current], &value, sizeof value);
  block.together(true);
  T other;
  std::memcpy(&other, &block.passed[block.current ^ offset], sizeof other);
  block.together(true);
  return other;
}

inline uint32_t sharedAddress(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const uint8_t*>(pointer) - block.shared.data());
}

inline void copyLater(uint32_t to, const void* from, bool valid) { block.copyLater({to, from, valid}); }
inline void commitCopies() { block.commitCopies(); }
template <int open>
inline void awaitCopies() {
  block.awaitCopies(open);
}

/** Lane i of eight names a row of matrix i / 8; each lane gets two neighbours of row lane / 4, or of column lane / 4. */
inline void loadFour(uint32_t address, uint32_t (&r)[4], bool transposed) {
  const int lane = block.current % 32;
  const int warp = block.current - lane;
  block.addresses[block.current] = address;
  block.together(true);
  const auto element = [&](int matrix, int row, int column) {
    uint16_t bits;
    std::memcpy(&bits, block.shared.data() + block.addresses[warp + matrix * 8 + row] + 2 * column, sizeof bits);
    return static_cast<uint32_t>(bits);
  };
  const int one = lane / 4;
  const int two = lane % 4 * 2;
  for (int i = 0; i < 4; i++) {
    r[i] = transposed ? element(i, two, one) | element(i, two + 1, one) << 16 : element(i, one, two) | element(i, one, two + 1) << 16;
  }
  block.together(true);
}
inline void loadMatrices(uint32_t address, uint32_t (&r)[4]) { loadFour(address, r, false); }
inline void loadTransposed(uint32_t address, uint32_t (&r)[4]) { loadFour(address, r, true); }

inline float bfloat16Of(uint32_t bits) {
  const uint32_t word = bits << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

struct Bfloat16 {};

template <class T>
struct Mma {
  static void add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const int lane = block.current % 32;
    const int warp = block.current - lane;
    std::memcpy(block.left[block.current], a, sizeof a);
    block.right[block.current][0] = b0;
    block.right[block.current][1] = b1;
    block.together(true);
    const auto half = [](uint32_t word, int k) { return bfloat16Of(k % 2 == 0 ? word & 0xffffu : word >> 16); };
    const auto leftAt = [&](int row, int k) { return half(block.left[warp + row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2], k); };
    const auto rightAt = [&](int k, int n) { return half(block.right[warp + n * 4 + k % 8 / 2][k / 8], k); };
    for (int part = 0; part < 4; part++) {
      for (int k = 0; k < 16; k++) c[part] += leftAt(lane / 4 + part / 2 * 8, k) * rightAt(k, lane % 4 * 2 + part % 2);
    }
    block.together(true);
  }
};

}  // namespace tandem::cuda
