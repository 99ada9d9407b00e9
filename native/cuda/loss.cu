// Softmax over the last axis, and the mean cross-entropy of logits; argument order as core/kernels/loss.ts. A block per row,
// which reads the row twice: once for its maximum and sum together, once to write. What shared memory holds is read from there.
#include "map.cuh"
#include "mma.cuh"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {

struct Rows {
  int64_t rows, width;
  bool whole;
};

Rows shapeOf(const Operand& operand) {
  const int64_t width = widthOf(operand);
  return {rowsOf(operand), width, width % pack == 0};
}

/** Eight elements for each thread of a narrow row, more of a wide one. The bounds are assumed, not measured. */
unsigned threadsFor(int64_t width) { return width <= 1024 ? 128 : width <= 8192 ? 256 : 1024; }

/** e^x by way of 2^x: off by x / 2^24 at most, which shows only where e^x is next to nothing. */
__device__ inline float expFast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.4426950408889634f));
  return y;
}

struct Peak {
  float max, sum;
};

/** Of what a thread has seen of a row: the maximum, and the sum of exponentials below it. */
struct Seen {
  float max = -INFINITY;
  float sum = 0;

  /** Every blockDim.x-th eight of the elements from `from`, which is this thread's own, to before `to`. */
  __device__ void take(const View& x, const Rows& s, int64_t from, int64_t to) {
    for (int64_t c = from; c < to; c += blockDim.x * pack) {
      float values[pack];
      getSome(x, c, s.width, s.whole && c + pack <= s.width, values, -INFINITY);
      float highest = max;
      bool nan = false;
#pragma unroll
      for (int j = 0; j < pack; j++) {
        highest = fmaxf(highest, values[j]);
        nan |= values[j] != values[j];
      }
      if (nan) highest = NAN;
      if (highest != max) {
        sum *= expFast(max - highest);
        max = highest;
      }
#pragma unroll
      for (int j = 0; j < pack; j++) sum += expFast(values[j] - (max == -INFINITY ? 0.0f : max));
    }
  }

  /** Of the whole row: the same in every thread. */
  __device__ Peak together() const {
    const float highest = blockReduce(max, Larger{}, -INFINITY);
    return {highest, blockSum(max == -INFINITY ? 0.0f : sum * expFast(max - highest))};
  }
};

__device__ Peak peakOf(const View& x, const Rows& s) {
  Seen seen;
  seen.take(x, s, threadIdx.x * pack, s.width);
  return seen.together();
}

__global__ void softmaxRows(Rows s, View inp, View probs) {
  const View x = inp.at(blockIdx.x * s.width);
  const View p = probs.at(blockIdx.x * s.width);
  const Peak peak = peakOf(x, s);
  const float over = 1.0f / peak.sum;
  for (int64_t c = threadIdx.x * pack; c < s.width; c += blockDim.x * pack) {
    float values[pack];
    getSome(x, c, s.width, s.whole, values);
#pragma unroll
    for (int j = 0; j < pack; j++) values[j] = expFast(values[j] - peak.max) * over;
    setSome(p, c, s.width, s.whole, values);
  }
}

Work softmaxForward(const Call& call) {
  const Rows s = shapeOf(input(call, 0));
  const View inp = floatsIn(call, 0);
  const View probs = floatsOut(call, 0);
  return [=](const Launch& launch) {
    if (s.rows > 0) softmaxRows<<<static_cast<unsigned>(s.rows), threadsFor(s.width), 0, launch.stream>>>(s, inp, probs);
  };
}

__global__ void softmaxBackwardRows(Rows s, View dout, View probs, View dinp) {
  const View dy = dout.at(blockIdx.x * s.width);
  const View p = probs.at(blockIdx.x * s.width);
  const View dx = dinp.at(blockIdx.x * s.width);
  float gradient[pack], weight[pack];
  float sum = 0;
  for (int64_t c = threadIdx.x * pack; c < s.width; c += blockDim.x * pack) {
    getSome(dy, c, s.width, s.whole, gradient);
    getSome(p, c, s.width, s.whole, weight);
#pragma unroll
    for (int j = 0; j < pack; j++) sum += gradient[j] * weight[j];
  }
  const float mean = blockSum(sum);
  for (int64_t c = threadIdx.x * pack; c < s.width; c += blockDim.x * pack) {
    getSome(dy, c, s.width, s.whole, gradient);
    getSome(p, c, s.width, s.whole, weight);
#pragma unroll
    for (int j = 0; j < pack; j++) gradient[j] = weight[j] * (gradient[j] - mean);
    setSome(dx, c, s.width, s.whole, gradient);
  }
}

Work softmaxBackward(const Call& call) {
  const Rows s = shapeOf(input(call, 0));
  const View dout = floatsIn(call, 0);
  const View probs = floatsIn(call, 1);
  const View dinp = floatsOut(call, 0);
  return [=](const Launch& launch) {
    if (s.rows == 0) return;
    softmaxBackwardRows<<<static_cast<unsigned>(s.rows), threadsFor(s.width), 0, launch.stream>>>(s, dout, probs, dinp);
  };
}

struct CrossEntropy {
  /** `width` is how many logits of a row are classes; those behind them, up to `stride`, pad the vocabulary. */
  Rows s;
  int64_t stride;
  View logits, targets, dlogits;
  bool gradients;
  int32_t ignoreIndex;
  double scale;
  /** What `loss_scale` keeps; null where the loss is not scaled. */
  const float* scaling;
  Reporter reporter;
};

/** How many rows count. One block. */
__global__ void countTargets(CrossEntropy e, int32_t* counted) {
  int own = 0;
  for (int64_t row = threadIdx.x; row < e.s.rows; row += blockDim.x) {
    const int32_t target = getInteger(e.targets, row);
    if (target == e.ignoreIndex) continue;
    if (target < 0 || target >= e.s.width) {
      e.reporter.fail(Wrong::target, target, e.s.width);
    } else {
      own++;
    }
  }
  const int total = blockSum(own);
  if (threadIdx.x == 0) *counted = total;
}

/** A row's loss and its part of the gradient, from its peak; `x` is where its logits are read. */
__device__ void crossEntropyOf(const CrossEntropy& e, const View& x, const View& dx, int32_t target, const Peak& peak,
                               const int32_t* counted, double* losses) {
  const float atTarget = get(x, target);
  if (threadIdx.x == 0) {
    losses[blockIdx.x] = static_cast<double>(peak.max) + log(static_cast<double>(peak.sum)) - static_cast<double>(atTarget);
  }
  if (!e.gradients) return;
  // the loss in place: what is at the target is read by every thread before one of them writes there
  __syncthreads();
  const double scale = e.scaling == nullptr ? e.scale : e.scale * static_cast<double>(e.scaling[0]);
  const double factor = scale / static_cast<double>(*counted);
  const auto over = static_cast<float>(factor / static_cast<double>(peak.sum));
  // the target's own gradient is a difference, which must not lose its digits
  const auto own = static_cast<float>(
      (static_cast<double>(expf(atTarget - peak.max)) / static_cast<double>(peak.sum) - 1) * factor);
  for (int64_t c = threadIdx.x * pack; c < e.stride; c += blockDim.x * pack) {
    const bool whole = e.s.whole && c + pack <= e.stride;
    float values[pack];
    getSome(x, c, e.stride, whole, values);
#pragma unroll
    for (int j = 0; j < pack; j++) {
      const float gradient = c + j == target ? own : expFast(values[j] - peak.max) * over;
      values[j] = c + j < e.s.width ? gradient : 0.0f;
    }
    setSome(dx, c, e.stride, whole, values);
  }
}

/** The target of this block's row; a row that does not count is done with here, and has none. */
__device__ int32_t targetOf(const CrossEntropy& e, const View& dx, double* losses) {
  const int32_t target = getInteger(e.targets, blockIdx.x);
  if (target != e.ignoreIndex && target >= 0 && target < e.s.width) return target;
  if (threadIdx.x == 0) losses[blockIdx.x] = 0;
  const float zeros[pack] = {};
  for (int64_t c = threadIdx.x * pack; e.gradients && c < e.stride; c += blockDim.x * pack) {
    setSome(dx, c, e.stride, e.s.whole && c + pack <= e.stride, zeros);
  }
  return -1;
}

__global__ void crossEntropyRows(CrossEntropy e, const int32_t* counted, double* losses) {
  const View x = e.logits.at(blockIdx.x * e.stride);
  const View dx = e.dlogits.at(blockIdx.x * e.stride);
  const int32_t target = targetOf(e, dx, losses);
  if (target >= 0) crossEntropyOf(e, x, dx, target, peakOf(x, e.s), counted, losses);
}

constexpr unsigned keptThreads = 512;

/** The same for 16-bit logits whose row shared memory holds: it comes from memory once, all of it at a time. */
__global__ void __launch_bounds__(keptThreads) crossEntropyKept(CrossEntropy e, const int32_t* counted, double* losses) {
  extern __shared__ __align__(16) uint16_t row[];
  const View from = e.logits.at(blockIdx.x * e.stride);
  const View dx = e.dlogits.at(blockIdx.x * e.stride);
  const View x = {row, e.logits.dtype};
  // each thread reads later what it copies now, but for the target
  constexpr int64_t step = keptThreads * pack;
  const int64_t first = threadIdx.x * pack;
  const int64_t middle = e.stride / 2 / step * step;
  const auto copy = [&](int64_t begin, int64_t end) {
    for (int64_t c = begin + first; c < end; c += step) {
      copyLater(sharedAddress(row + c), static_cast<const uint16_t*>(from.data) + c, true);
    }
    commitCopies();
  };
  copy(0, middle);
  copy(middle, e.stride);
  const int32_t target = targetOf(e, dx, losses);
  if (target < 0) {
    awaitCopies<0>();
    return;
  }
  Seen seen;
  awaitCopies<1>();
  seen.take(x, e.s, first, min(middle, e.s.width));
  awaitCopies<0>();
  seen.take(x, e.s, middle + first, e.s.width);
  // its barriers also show every thread the target's logit
  crossEntropyOf(e, x, dx, target, seen.together(), counted, losses);
}

/** How much shared memory a block may have for a row; two blocks of a multiprocessor, or three, hide each other's waits. */
size_t mostSharedBytes() {
  int device = 0;
  int bytes = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
  return static_cast<size_t>(bytes);
}

/** The mean of the rows that count. One block. */
__global__ void meanLoss(int64_t rows, const double* losses, const int32_t* counted, View loss) {
  double own = 0;
  for (int64_t row = threadIdx.x; row < rows; row += blockDim.x) own += losses[row];
  const double total = blockSum(own);
  if (threadIdx.x == 0) set(loss, 0, static_cast<float>(total / static_cast<double>(*counted)));
}

Work crossEntropy(const Call& call, const View* loss, const View* dlogits) {
  CrossEntropy e{};
  const int64_t width = widthOf(input(call, 0));
  const int64_t classes = call.integer("classes");
  if (classes < 0 || classes > width) {
    throw BadCall(call.kernel + ": " + std::to_string(classes) + " classes of " + std::to_string(width) + " logits");
  }
  e.s = {input(call, 1).elements, classes == 0 ? width : classes, width % pack == 0};
  e.stride = width;
  e.logits = floatsIn(call, 0);
  e.targets = integersIn(call, 1);
  e.gradients = dlogits != nullptr;
  if (e.gradients) e.dlogits = *dlogits;
  e.ignoreIndex = static_cast<int32_t>(call.integer("ignoreIndex"));
  e.scale = e.gradients ? call.number("scale") : 1;
  e.scaling = e.gradients && call.flag("scaled") ? static_cast<const float*>(floatsIn(call, 2).data) : nullptr;
  // Narrow rows are in the cache when they are read again; from which width on they are not is assumed: rows of 50,304 alone were
  // measured (docs/performance.md). What lies in shared memory besides the row is less than `othersBytes`.
  constexpr int64_t keptFrom = 8192;
  constexpr size_t othersBytes = 2048;
  const size_t rowBytes = static_cast<size_t>(width) * 2;
  const bool halves = e.logits.dtype == Dtype::bfloat16 || e.logits.dtype == Dtype::float16;
  const bool kept = e.gradients && halves && e.s.whole && width >= keptFrom && rowBytes + othersBytes <= mostSharedBytes();
  if (kept) {
    const size_t most = mostSharedBytes() - othersBytes;
    check(cudaFuncSetAttribute(crossEntropyKept, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(most)),
          "cudaFuncSetAttribute");
  }
  const bool wanted = loss != nullptr;
  const View to = wanted ? *loss : View{};
  return [=](const Launch& launch) {
    CrossEntropy with = e;
    with.reporter = launch.reporter;
    const Scratch scratch(launch, static_cast<size_t>(e.s.rows + 2) * sizeof(double));
    auto* counted = scratch.as<int32_t>();
    auto* losses = scratch.as<double>(sizeof(double));
    countTargets<<<1, 1024, 0, launch.stream>>>(with, counted);
    if (e.s.rows > 0 && kept) {
      crossEntropyKept<<<static_cast<unsigned>(e.s.rows), keptThreads, rowBytes, launch.stream>>>(with, counted, losses);
    } else if (e.s.rows > 0) {
      crossEntropyRows<<<static_cast<unsigned>(e.s.rows), threadsFor(width), 0, launch.stream>>>(with, counted, losses);
    }
    if (wanted) meanLoss<<<1, 1024, 0, launch.stream>>>(e.s.rows, losses, counted, to);
  };
}

Work crossEntropyForward(const Call& call) {
  const View loss = floatsOut(call, 0);
  return crossEntropy(call, &loss, nullptr);
}

Work crossEntropyBackward(const Call& call) {
  const View dlogits = floatsOut(call, 0);
  return crossEntropy(call, nullptr, &dlogits);
}

Work crossEntropyFused(const Call& call) {
  const View loss = floatsOut(call, 0);
  const View dlogits = floatsOut(call, 1);
  return crossEntropy(call, &loss, &dlogits);
}

}  // namespace

const KernelTable lossKernels = {{"softmax.forward", softmaxForward},
                                 {"softmax.backward", softmaxBackward},
                                 {"softmax_cross_entropy.forward", crossEntropyForward},
                                 {"softmax_cross_entropy.backward", crossEntropyBackward},
                                 {"softmax_cross_entropy.fused", crossEntropyFused}};

}  // namespace tandem::cuda
