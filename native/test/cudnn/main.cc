// Attention by cuDNN's graphs (native/cuda/cudnn-attention.cu), forward and backward, beside plain loops. Without a GPU on a library that
// computes a graph as it is described (library.cc); compiled by nvcc, on the real one.
//   native/test/run.sh cudnn              30 cases on that library, and what is refused
//   native/test/run.sh cudnn-gpu          the same on the GPU and the cuDNN that is found, with sizes of models; tells each case
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "../../cuda/cudnn-attention.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#endif

using namespace tandem::cuda;

namespace {

#ifdef __CUDACC__
constexpr bool onGpu = true;

void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  std::printf("cudnn: CUDA: %s\n", cudaGetErrorString(status));
  std::exit(1);
}
void* take(size_t bytes) {
  void* data = nullptr;
  check(cudaMalloc(&data, bytes));
  return data;
}
void give(void* data) { check(cudaFree(data)); }
void copy(void* to, const void* from, size_t bytes) { check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault)); }
void finish() { check(cudaDeviceSynchronize()); }
#else
constexpr bool onGpu = false;

void* take(size_t bytes) { return std::aligned_alloc(256, (bytes + 255) / 256 * 256); }
void give(void* data) { std::free(data); }
void copy(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
void finish() {}
#endif

using cudnn::Type;

uint16_t narrow(float value, Type type) {
  if (type == Type::float16) {
    int exponent = 0;
    const float size = std::fabs(value);
    std::frexp(size, &exponent);
    // steps of the value's own grid, whose finest has 24 digits
    const int grid = std::max(exponent - 11, -24);
    const auto steps = static_cast<int>(std::nearbyint(std::ldexp(size, -grid)));
    const int code = steps + (grid + 24) * 1024;
    return static_cast<uint16_t>(code | (value < 0 ? 0x8000 : 0));
  }
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float wide(uint16_t stored, Type type) {
  if (type == Type::float16) {
    const int exponent = stored >> 10 & 31;
    const float digits = static_cast<float>(stored & 1023) / 1024;
    const float size = exponent == 0 ? std::ldexp(digits, -14) : std::ldexp(1 + digits, exponent - 15);
    return stored & 0x8000 ? -size : size;
  }
  const uint32_t bits = static_cast<uint32_t>(stored) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

enum Place { atQ, atK, atV, atOut, atDout, atDq, atDk, atDv };
constexpr const char* placeNames[] = {"q", "k", "v", "out", "dout", "dq", "dk", "dv"};

struct Case {
  Type type;
  int64_t batch, time, context, heads, kvHeads, width;
  bool packed, causal;

  std::string text() const {
    char line[200];
    std::snprintf(line, sizeof line, "%s, %lld x %lld on %lld, %lld heads on %lld, %lld wide%s%s",
                  type == Type::float16 ? "float16" : "bfloat16", static_cast<long long>(batch), static_cast<long long>(time),
                  static_cast<long long>(context), static_cast<long long>(heads), static_cast<long long>(kvHeads),
                  static_cast<long long>(width), packed ? ", packed" : "", causal ? ", causal" : "");
    return line;
  }

  bool ofKeys(int place) const { return place == atK || place == atV || place == atDk || place == atDv; }
  int64_t tokensOf(int place) const { return ofKeys(place) ? context : time; }
  int64_t headsOf(int place) const { return ofKeys(place) ? kvHeads : heads; }
  int64_t strideOf(int place) const {
    const bool side = packed && place != atOut && place != atDout;
    return side ? (heads + 2 * kvHeads) * width : headsOf(place) * width;
  }
};

/** A tensor's numbers as [batch, heads, tokens, width]. */
struct Numbers {
  int64_t heads, tokens, width;
  std::vector<double> data;
  Numbers(const Case& c, int place)
      : heads(c.headsOf(place)), tokens(c.tokensOf(place)), width(c.width),
        data(static_cast<size_t>(c.batch * heads * tokens * width)) {}
  double* row(int64_t b, int64_t h, int64_t t) { return &data[static_cast<size_t>(((b * heads + h) * tokens + t) * width)]; }
};

struct Tensors {
  std::vector<Numbers> of;
  std::vector<double> lse;
  explicit Tensors(const Case& c) : lse(static_cast<size_t>(c.batch * c.heads * c.time)) {
    for (int place = atQ; place <= atDv; place++) of.emplace_back(c, place);
  }
};

/** What attention is, in float64. */
void attend(const Case& c, Tensors& t, double scale) {
  std::vector<double> weights(static_cast<size_t>(c.context));
  for (int64_t b = 0; b < c.batch; b++) {
    for (int64_t h = 0; h < c.heads; h++) {
      const int64_t kv = h / (c.heads / c.kvHeads);
      for (int64_t i = 0; i < c.time; i++) {
        const double* q = t.of[atQ].row(b, h, i);
        const double* dout = t.of[atDout].row(b, h, i);
        double* out = t.of[atOut].row(b, h, i);
        const int64_t seen = c.causal ? c.context - c.time + i + 1 : c.context;
        double sum = 0;
        for (int64_t j = 0; j < seen; j++) {
          const double* k = t.of[atK].row(b, kv, j);
          double score = 0;
          for (int64_t w = 0; w < c.width; w++) score += q[w] * k[w];
          weights[static_cast<size_t>(j)] = std::exp(score * scale);
          sum += weights[static_cast<size_t>(j)];
        }
        t.lse[static_cast<size_t>((b * c.heads + h) * c.time + i)] = std::log(sum);
        double delta = 0;
        for (int64_t w = 0; w < c.width; w++) {
          double all = 0;
          for (int64_t j = 0; j < seen; j++) all += weights[static_cast<size_t>(j)] / sum * t.of[atV].row(b, kv, j)[w];
          out[w] = all;
          delta += all * dout[w];
        }
        double* dq = t.of[atDq].row(b, h, i);
        for (int64_t j = 0; j < seen; j++) {
          const double weight = weights[static_cast<size_t>(j)] / sum;
          const double* k = t.of[atK].row(b, kv, j);
          const double* v = t.of[atV].row(b, kv, j);
          double* dk = t.of[atDk].row(b, kv, j);
          double* dv = t.of[atDv].row(b, kv, j);
          double change = 0;
          for (int64_t w = 0; w < c.width; w++) change += dout[w] * v[w];
          change = scale * weight * (change - delta);
          for (int64_t w = 0; w < c.width; w++) {
            dv[w] += weight * dout[w];
            dk[w] += change * q[w];
            dq[w] += change * k[w];
          }
        }
      }
    }
  }
}

/** Tensors in the device's memory, each alone or q, k and v (and their gradients) side by side. */
class Memory {
 public:
  explicit Memory(const Case& c) : case_(c) {
    for (int place = atQ; place <= atDv; place++) {
      const bool within = c.packed && (place == atK || place == atV || place == atDk || place == atDv);
      const int first = place < atOut ? atQ : atDq;
      const int64_t offset = !within ? 0 : (c.heads + (place == atV || place == atDv ? c.kvHeads : 0)) * c.width;
      owner_[place] = within ? first : place;
      offset_[place] = offset;
      if (!within) {
        bytes_[place] = static_cast<size_t>(c.batch * c.tokensOf(place) * c.strideOf(place)) * 2;
        memory.tensors[static_cast<size_t>(place)] = take(bytes_[place]);
      } else {
        memory.tensors[static_cast<size_t>(place)] =
            static_cast<char*>(memory.tensors[static_cast<size_t>(first)]) + static_cast<size_t>(offset) * 2;
      }
    }
    memory.lse = take(lseBytes());
  }

  ~Memory() {
    for (int place = atQ; place <= atDv; place++) {
      if (owner_[place] == place) give(memory.tensors[static_cast<size_t>(place)]);
    }
    give(memory.lse);
  }
  Memory(const Memory&) = delete;

  void write(const Tensors& t) {
    for (int place = atQ; place <= atDv; place++) {
      auto stored = fetch(place);
      const std::vector<double>& numbers = t.of[static_cast<size_t>(place)].data;
      each(place, [&](size_t at, size_t number) { stored[at] = narrow(static_cast<float>(numbers[number]), case_.type); });
      copy(base(place), stored.data(), stored.size() * 2);
    }
    const std::vector<float> lse(t.lse.begin(), t.lse.end());
    copy(memory.lse, lse.data(), lseBytes());
  }

  std::vector<double> read(int place) {
    const auto stored = fetch(place);
    std::vector<double> numbers(static_cast<size_t>(case_.batch * case_.headsOf(place) * case_.tokensOf(place) * case_.width));
    each(place, [&](size_t at, size_t number) { numbers[number] = wide(stored[at], case_.type); });
    return numbers;
  }

  std::vector<double> readLse() {
    std::vector<float> lse(lseBytes() / sizeof(float));
    copy(lse.data(), memory.lse, lseBytes());
    return {lse.begin(), lse.end()};
  }

  cudnn::AttentionMemory memory{};

 private:
  size_t lseBytes() const { return static_cast<size_t>(case_.batch * case_.heads * case_.time) * sizeof(float); }
  void* base(int place) { return memory.tensors[static_cast<size_t>(owner_[place])]; }

  std::vector<uint16_t> fetch(int place) {
    std::vector<uint16_t> stored(bytes_[owner_[place]] / 2);
    copy(stored.data(), base(place), stored.size() * 2);
    return stored;
  }

  /** of(where it lies, its position as [batch, heads, tokens, width]) */
  template <class Of>
  void each(int place, const Of& of) {
    size_t number = 0;
    for (int64_t b = 0; b < case_.batch; b++) {
      for (int64_t h = 0; h < case_.headsOf(place); h++) {
        for (int64_t i = 0; i < case_.tokensOf(place); i++) {
          const int64_t at = offset_[place] + (b * case_.tokensOf(place) + i) * case_.strideOf(place) + h * case_.width;
          for (int64_t w = 0; w < case_.width; w++) of(static_cast<size_t>(at + w), number++);
        }
      }
    }
  }

  const Case case_;
  int owner_[8] = {};
  int64_t offset_[8] = {};
  size_t bytes_[8] = {};
};

cudnn::AttentionShape shapeOf(const Case& c, bool backward) {
  cudnn::AttentionShape shape{backward,  c.type,  c.batch,  c.time, c.context, c.heads,
                              c.kvHeads, c.width, c.causal, static_cast<float>(1 / std::sqrt(static_cast<double>(c.width))), {}};
  for (int place = atQ; place <= (backward ? atDv : atOut); place++) shape.strides[static_cast<size_t>(place)] = c.strideOf(place);
  return shape;
}

/**
 * Whether all numbers are those of plain loops, but for rounding: weights and their gradients have 16 bits before they multiply. Relative
 * to the largest, or to a quarter: gradients that are zero are a difference of rounded numbers.
 */
bool same(const char* what, const std::vector<double>& got, const std::vector<double>& wanted, double step) {
  double size = 0.25;
  for (const double value : wanted) size = std::fmax(size, std::fabs(value));
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < wanted.size(); i++) {
    const double off = std::fabs(got[i] - wanted[i]);
    if (off <= worst) continue;
    worst = off;
    at = i;
    if (std::isnan(off)) break;
  }
  const bool good = worst <= step * size;
  if (onGpu || !good) std::printf("    %-4s off by %.2e of %.2e\n", what, worst, size);
  if (!good) std::printf("cudnn: %s, number %zu: %g, plain loops have %g\n", what, at, got[at], wanted[at]);
  return good;
}

void runPlan(const Case& c, bool backward, Memory& memory) {
  const auto began = std::chrono::steady_clock::now();
  const auto plan = cudnn::AttentionPlan::of(0, shapeOf(c, backward));
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - began;
  void* const workspace = take(plan->workspaceBytes() + 256);
  plan->run(nullptr, memory.memory, workspace);
  finish();
  give(workspace);
  if (onGpu) {
    std::printf("    %s: prepared in %.0f ms, workspace of %zu bytes\n", backward ? "backward" : "forward", took.count(),
                plan->workspaceBytes());
  }
}

bool refuses(const Case& c, bool backward, const char* says) {
  try {
    cudnn::AttentionPlan::of(0, shapeOf(c, backward));
  } catch (const cudnn::Refusal& refusal) {
    if (std::strstr(refusal.what(), says) != nullptr) return true;
    std::printf("cudnn: %s: \"%s\", expected \"%s\"\n", c.text().c_str(), refusal.what(), says);
    return false;
  }
  std::printf("cudnn: %s: not refused\n", c.text().c_str());
  return false;
}

/** How many cases had their gradients, and how many have none in this version, which says so. */
int gradients = 0, refused = 0;

bool holds(const Case& c, std::mt19937& random) {
  if (onGpu) std::printf("  %s\n", c.text().c_str());
  std::uniform_real_distribution<float> uniform(-1, 1);
  Tensors expected(c);
  for (const int place : {atQ, atK, atV, atDout}) {
    for (double& value : expected.of[static_cast<size_t>(place)].data) value = wide(narrow(uniform(random), c.type), c.type);
  }
  Tensors given = expected;
  attend(c, expected, 1 / std::sqrt(static_cast<double>(c.width)));
  Memory memory(c);
  memory.write(given);
  bool good = true;
  const double step = c.type == Type::float16 ? 0x1p-9 : 0x1p-6;
  try {
    runPlan(c, false, memory);
    good = same("out", memory.read(atOut), expected.of[atOut].data, step) && same("lse", memory.readLse(), expected.lse, 1e-4);
    if (!cudnn::hasGradients(c.context)) {
      good = refuses(c, true, "keys; before 9.15.1 it has gradients for multiples of 128 alone") && good;
      refused++;
    } else if (c.time > 1 || c.context > 1) {
      gradients++;
      runPlan(c, true, memory);
      for (const int place : {atDq, atDk, atDv}) {
        good = same(placeNames[place], memory.read(place), expected.of[static_cast<size_t>(place)].data, step) && good;
      }
    }
  } catch (const cudnn::Refusal& refusal) {
    std::printf("cudnn: %s: %s\n", c.text().c_str(), refusal.what());
    return false;
  }
  if (!good) std::printf("cudnn: %s: not what plain loops have\n", c.text().c_str());
  return good;
}

Case drawn(std::mt19937& random) {
  const auto integer = [&](int64_t from, int64_t to) { return std::uniform_int_distribution<int64_t>(from, to)(random); };
  Case c{};
  c.type = integer(0, 1) == 1 ? Type::float16 : Type::bfloat16;
  c.packed = integer(0, 1) == 1;
  c.causal = integer(0, 1) == 1;
  c.batch = integer(1, 2);
  c.kvHeads = integer(1, 2);
  c.heads = c.kvHeads * integer(1, 3);
  c.width = onGpu ? 64 * integer(1, 2) : 8 * integer(1, 3);
  c.time = integer(1, onGpu ? 300 : 20);
  const int64_t more = integer(0, onGpu ? 140 : 12);
  c.context = c.packed ? c.time : c.causal ? c.time + more : integer(1, onGpu ? 300 : 20);
  // Every other has as many keys as every version takes.
  if (!cudnn::hasGradients(c.context) && integer(0, 1) == 1) {
    c.context = 128 * ((c.context + 127) / 128);
    if (c.packed) c.time = c.context;
  }
  return c;
}

}  // namespace

int main(int argc, char** argv) {
  if (!cudnnMissing().empty()) {
    std::printf("cudnn: there is no %s\n", cudnnMissing().c_str());
    return 2;
  }
  std::printf("cuDNN %s (%s)\n", cudnnVersion().c_str(), cudnnPath().c_str());
#ifdef __CUDACC__
  check(cudaSetDevice(0));
#endif
  const int count = argc > 1 ? std::atoi(argv[1]) : 30;
  std::mt19937 random(argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 1u);
  constexpr Type b16 = Type::bfloat16;
  std::vector<Case> cases = {{b16, 1, 16, 16, 2, 2, 64, true, true},
                             {Type::float16, 2, 5, 9, 4, 2, 64, false, true},
                             {b16, 1, 7, 3, 2, 1, 128, false, false}};
  if (onGpu) {
    cases = {{b16, 1, 128, 128, 2, 2, 64, true, true},   {b16, 1, 128, 128, 2, 2, 64, false, false},
             {b16, 2, 1024, 1024, 2, 2, 64, true, true}, {b16, 1, 512, 512, 8, 2, 128, false, true},
             {Type::float16, 1, 100, 170, 4, 2, 64, false, true}, {b16, 1, 77, 203, 2, 1, 128, false, false}};
  }
  for (int i = 0; i < count; i++) cases.push_back(drawn(random));
  int wrong = 0;
  for (const Case& c : cases) wrong += holds(c, random) ? 0 : 1;
  const Case narrowHeads = {b16, 1, 8, 8, 1, 1, 12, true, true};
  const Case one = {b16, 1, 1, 1, 1, 1, 64, true, true};
  wrong += refuses(narrowHeads, false, "heads 12 wide; expected a multiple of 8") ? 0 : 1;
  wrong += refuses(one, true, "no gradients of one query and one key") ? 0 : 1;
  const Case wideHeads = {b16, 1, 8, 8, 1, 1, 136, true, true};
  const char* const tooWide = "ways to run the graph: CUDNN_STATUS_NOT_SUPPORTED (heads wider than 128)";
  if (!onGpu) wrong += refuses(wideHeads, false, tooWide) ? 0 : 1;
  std::printf("cudnn: %zu cases, %d wrong; gradients of %d, refused of %d\n", cases.size(), wrong, gradients, refused);
  return wrong == 0 ? 0 : 1;
}
