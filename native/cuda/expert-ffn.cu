// One expert's feed-forward layer over its own rows; argument order as core/kernels/expert-ffn.ts.
#include <map>

#include "cublaslt.h"
#include "gemm.h"
#include "map.cuh"

namespace tandem::cuda {

namespace {

/** Of one element of a row's non-linearity: it and, of a gated expert, the up projection beside it, as they are kept. */
struct Activate {
  const float* sums;
  View hidden;
  int64_t ffn, hiddenWidth;
  bool gated;
  __device__ void operator()(int64_t i) const {
    const int64_t at = i / ffn * hiddenWidth + i % ffn;
    const float x = sums[at];
    if (!gated) return set(hidden, at, x > 0 ? x : 0.0f);
    const float up = sums[at + ffn];
    set(hidden, at, x / (1.0f + expf(-x)) * up);
    set(hidden, at + ffn, up);
  }
};

struct Expert {
  View inp, weights, hidden, out;
  int64_t width, ffn, hiddenWidth;
  bool gated;

  View down() const { return weights.at(hiddenWidth * width); }
};

/** Both products; the first in float32, for what lies between them is rounded but once. Null where cuBLASLt has none. */
struct Products {
  std::shared_ptr<const LtProduct> up, down;
};

/** Columns of tensors that begin where cuBLASLt takes them to begin, whatever row they begin at. */
bool rowsAligned(const View& view, int64_t stride) {
  constexpr int64_t alignment = 256;
  return stride * storedBytes(view.dtype) % alignment == 0 && reinterpret_cast<uintptr_t>(view.data) % alignment == 0;
}

/** Whether cuBLASLt may have products of more than a few rows: of 16-bit values or float32, whose sums it has in float32. */
bool inLibrary(const Expert& e) {
  const Dtype dtype = e.inp.dtype;
  const bool alike = e.weights.dtype == dtype && e.hidden.dtype == dtype;
  return (storedBytes(dtype) == 2 || dtype == Dtype::float32) && alike && rowsAligned(e.inp, e.width) &&
         rowsAligned(e.hidden, e.hiddenWidth) && rowsAligned(e.out, e.width) && rowsAligned(e.down(), e.ffn);
}

/** Of so many rows; which, is said at the launch. */
Products productsOf(const Expert& e, const View& sums, int64_t count) {
  LtCall up{{e.inp, count, e.width}, {e.weights, e.hiddenWidth, e.width}, {sums, count, e.hiddenWidth}};
  LtCall down{{e.hidden, count, e.ffn, e.hiddenWidth}, {e.down(), e.width, e.ffn}, {e.out, count, e.width}};
  up.transposeRight = down.transposeRight = true;
  return {ltProduct(up), ltProduct(down)};
}

/** Other rows of `hidden` and `out` stay as they are. */
Work expertFfn(const Call& call) {
  const bool gated = call.flag("gated");
  const int64_t assignments = input(call, 0).shape.at(0);
  const int64_t width = input(call, 0).shape.at(1);
  const int64_t hiddenWidth = output(call, 0).shape.at(1);
  const Scalar firstRow = call.scalar("first");
  const Scalar rowCount = call.scalar("count");
  const Expert e = {floatsIn(call, 0),  floatsIn(call, 1),
                    floatsOut(call, 0), floatsOut(call, 1),
                    width,              gated ? hiddenWidth / 2 : hiddenWidth,
                    hiddenWidth,        gated};
  // by the number of rows, which launches say; all launches of an op come from one lane's thread
  const auto known = inLibrary(e) ? std::make_shared<std::map<int64_t, Products>>() : nullptr;
  return [=](const Launch& launch) {
    const auto first = static_cast<int64_t>(firstRow(launch.scalars));
    const auto count = static_cast<int64_t>(rowCount(launch.scalars));
    if (first < 0 || count < 0 || first + count > assignments) {
      throw BadCall("expert_ffn.forward: rows " + std::to_string(first) + " to " + std::to_string(first + count) + " of " +
                    std::to_string(assignments));
    }
    if (count == 0) return;
    const Scratch scratch(launch, static_cast<size_t>(count * e.hiddenWidth) * sizeof(float));
    const View sums = {scratch.as<float>(), Dtype::float32};
    Products lt;
    if (known != nullptr && count > fewRows) {
      auto found = known->find(count);
      if (found == known->end()) found = known->emplace(count, productsOf(e, sums, count)).first;
      lt = found->second;
    }
    const View rows = e.inp.at(first * e.width);
    const View out = e.out.at(first * e.width);
    const View hidden = e.hidden.at(first * e.hiddenWidth);
    if (lt.up != nullptr) {
      lt.up->run(launch, rows, sums);
    } else {
      multiply(launch, {count, e.hiddenWidth, e.width, {rows, e.width, 1}, {e.weights, 1, e.width}, sums, {}, false, {}, false});
    }
    each(launch, count * e.ffn, Activate{scratch.as<float>(), hidden, e.ffn, e.hiddenWidth, e.gated});
    if (lt.down != nullptr) {
      lt.down->run(launch, hidden, out);
    } else {
      multiply(launch, {count, e.width, e.ffn, {hidden, e.hiddenWidth, 1}, {e.down(), 1, e.ffn}, out, {}, false, {}, false});
    }
  };
}

}  // namespace

const KernelTable expertFfnKernels = {{"expert_ffn.forward", expertFfn, false}};

}  // namespace tandem::cuda
