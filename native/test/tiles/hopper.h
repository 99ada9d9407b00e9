// What a block of a Hopper has besides (block.h): barriers that count arrivals and bytes, boxes of matrices that come into shared
// memory on their own, and products of four warps that read it. Boxes and products happen when they are waited for, or at once, as
// early or as late as they may. Factors lie in shared memory as the PTX manual has it ("Shared Memory Matrix Layout" of wgmma,
// swizzle of 128 bytes). Stands in for native/cuda/tma.cuh and native/cuda/wgmma.cuh.
#pragma once

#include <map>

#include "block.h"

#define TANDEM_TMA
#define TANDEM_WGMMA
#define TANDEM_HAS_WGMMA 1

namespace tandem::cuda {

/** Rows of 16-bit values, one right after another, of which boxes 64 wide are copied. */
struct TensorMap {
  const uint16_t* data;
  int64_t rows, columns;
  unsigned boxRows;
};

class Hopper {
 public:
  /** Before a block runs. */
  void begin(bool boxesAtOnce, bool productsAtOnce) {
    boxesAtOnce_ = boxesAtOnce;
    productsAtOnce_ = productsAtOnce;
    barriers_.clear();
    boxes_.clear();
    meetings_.clear();
    products_.assign(mostThreads, {});
  }

  void openBarrier(uint32_t barrier, uint32_t arrivals) { barriers_[barrier] = {arrivals, arrivals, 0, 0}; }
  void arrive(uint32_t barrier, uint32_t bytes) {
    Barrier& b = known(barrier);
    b.bytes += bytes;
    b.missing--;
    turn(b);
  }
  void awaitPhase(uint32_t barrier, uint32_t parity) {
    while ((known(barrier).phase & 1) == parity) {
      copyBoxes(barrier);
      if ((known(barrier).phase & 1) == parity) block.pause();
    }
    block.moved();
  }

  void copyBox(uint32_t to, const TensorMap& from, uint32_t barrier, int64_t column, int64_t row) {
    const Box box = {to, &from, barrier, column, row};
    if (boxesAtOnce_) return take(box);
    boxes_.push_back(box);
  }

  void multiply(const std::function<void()>& product) {
    if (productsAtOnce_) return product();
    products_[static_cast<size_t>(block.current)].open.push_back(product);
  }
  void closeProducts() {
    Products& own = products_[static_cast<size_t>(block.current)];
    own.closed.push_back(std::move(own.open));
    own.open.clear();
  }
  void awaitProducts(size_t open) {
    for (auto& closed = products_[static_cast<size_t>(block.current)].closed; closed.size() > open; closed.pop_front()) {
      for (const auto& product : closed.front()) product();
    }
  }

  void meet(int name, int threads) {
    Meeting& meeting = meetings_[name];
    const int round = meeting.round;
    block.moved();
    if (++meeting.waiting == threads) {
      meeting.waiting = 0;
      meeting.round++;
      return;
    }
    block.awaitNext(meeting.round, round);
  }

 private:
  struct Barrier {
    uint32_t arrivals, missing, phase;
    int64_t bytes;
  };
  struct Box {
    uint32_t to;
    const TensorMap* from;
    uint32_t barrier;
    int64_t column, row;
  };
  struct Products {
    std::vector<std::function<void()>> open;
    std::deque<std::vector<std::function<void()>>> closed;
  };
  struct Meeting {
    int waiting = 0, round = 0;
  };

  Barrier& known(uint32_t barrier) {
    const auto found = barriers_.find(barrier);
    if (found == barriers_.end()) block.fail("a barrier that nobody opened", barrier);
    return found->second;
  }
  void turn(Barrier& b) {
    block.moved();
    if (b.missing != 0 || b.bytes != 0) return;
    b.missing = b.arrivals;
    b.phase++;
  }
  void take(const Box& box) {
    if (box.to % 1024 != 0) block.fail("a box to byte", box.to);
    for (unsigned row = 0; row < box.from->boxRows; row++) {
      for (unsigned piece = 0; piece < 8; piece++) {
        uint16_t values[8] = {};
        for (unsigned i = 0; i < 8; i++) {
          const int64_t column = box.column + piece * 8 + i;
          const int64_t at = box.row + row;
          if (column < box.from->columns && at < box.from->rows) values[i] = box.from->data[at * box.from->columns + column];
        }
        block.write(box.to + row * 128 + ((piece ^ (row % 8)) << 4), values);
      }
    }
    Barrier& b = known(box.barrier);
    b.bytes -= box.from->boxRows * 128;
    turn(b);
  }
  /** Those that a barrier is told of, in any order. */
  void copyBoxes(uint32_t barrier) {
    std::vector<Box> now, later;
    for (const Box& box : boxes_) (box.barrier == barrier ? now : later).push_back(box);
    boxes_ = later;
    std::shuffle(now.begin(), now.end(), block.random);
    for (const Box& box : now) take(box);
  }

  bool boxesAtOnce_ = false, productsAtOnce_ = false;
  std::map<uint32_t, Barrier> barriers_;
  std::vector<Box> boxes_;
  std::vector<Products> products_;
  std::map<int, Meeting> meetings_;
};

inline Hopper hopperBlock;

inline void openBarrier(uint32_t barrier, uint32_t arrivals) { hopperBlock.openBarrier(barrier, arrivals); }
inline void showBarriers() {}
inline void arrive(uint32_t barrier) { hopperBlock.arrive(barrier, 0); }
inline void arriveExpecting(uint32_t barrier, uint32_t bytes) { hopperBlock.arrive(barrier, bytes); }
inline void awaitPhase(uint32_t barrier, uint32_t parity) { hopperBlock.awaitPhase(barrier, parity); }
inline void copyBox(uint32_t to, const TensorMap& from, uint32_t barrier, int32_t column, int32_t row) {
  hopperBlock.copyBox(to, from, barrier, column, row);
}
template <int name, int threads>
inline void meet() {
  hopperBlock.meet(name, threads);
}
inline void clearPiece(uint32_t at) {
  const uint16_t zeros[8] = {};
  block.write(at, zeros);
}

// all of a warp take part
inline void openProducts() { block.together(true); }
inline void closeProducts() { hopperBlock.closeProducts(); }
template <int open>
inline void awaitProducts() {
  hopperBlock.awaitProducts(open);
  block.together(true);
}
template <int count>
inline void settle(float (&)[count][4]) {}
inline void showProducts() {}

/** Element `mn` of 64 or more, term `k` of 16, of a factor in shared memory; `columns`: its rows are the terms. */
inline float factorAt(uint64_t described, bool columns, int mn, int k) {
  const auto field = [&](int bit) { return static_cast<uint32_t>(described >> bit & 0x3fff) << 4; };
  const uint32_t leading = field(16);
  const uint32_t stride = field(32);
  if (described >> 62 != 1) block.fail("another swizzle than that of 128 bytes", static_cast<uint32_t>(described >> 62));
  const auto at = columns ? static_cast<uint32_t>(mn % 64 * 2 + k % 8 * 128) + static_cast<uint32_t>(mn / 64) * leading +
                                static_cast<uint32_t>(k / 8) * stride
                          : static_cast<uint32_t>(mn % 8 * 128 + k * 2) + static_cast<uint32_t>(mn / 8) * stride;
  const uint32_t plain = field(0) + at;
  uint16_t bits;
  std::memcpy(&bits, block.shared.data() + (plain ^ (plain >> 7 & 7) << 4), sizeof bits);
  return bfloat16Of(bits);
}

template <class T>
struct WideWgmma {
  template <int leftTransposed, int rightTransposed>
  static void add(float (&d)[32][4], uint64_t left, uint64_t right) {
    const int thread = block.current % 128;
    float(*sums)[4] = d;
    hopperBlock.multiply([=] {
      const int row = thread / 32 * 16 + thread % 32 / 4;
      for (int k = 0; k < 16; k++) {
        const float terms[2] = {factorAt(left, leftTransposed, row, k), factorAt(left, leftTransposed, row + 8, k)};
        for (int n = thread % 4 * 2; n < 256; n += n % 2 == 0 ? 1 : 7) {
          const float other = factorAt(right, rightTransposed, n, k);
          for (int half = 0; half < 2; half++) sums[n / 8][half * 2 + n % 2] += terms[half] * other;
        }
      }
    });
  }
};

}  // namespace tandem::cuda
