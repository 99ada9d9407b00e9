// The part of cuDNN's graph interface that attention needs: graphs of products, elementwise operations and reductions over tensors of four
// axes, and plans to run them. The library (version 9) is opened at run time, and nothing of it is needed to build. Knows neither
// attention nor CUDA's headers, so that a test without either can hold it to a library of its own (native/test/cudnn).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace tandem::cuda {

/** Why there is no cuDNN; empty when there is. */
std::string cudnnMissing();
/** "9.19.0", where there is one. */
std::string cudnnVersion();
/** As cuDNN counts: 91900. */
size_t cudnnVersionNumber();
/** The file that was opened. */
std::string cudnnPath();

namespace cudnn {

/** What cuDNN does not do: what was asked of it, the status and its own words. */
class Refusal : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Numbers of cuDNN's header, as its documentation has them.
/** cudnnDataType_t */
enum class Type : int { float32 = 0, float16 = 2, int32 = 4, bfloat16 = 9, boolean = 11 };
/** cudnnPointwiseMode_t */
enum class Pointwise : int {
  add = 0,
  multiply = 1,
  divide = 6,
  subtract = 9,
  exponential = 13,
  logarithm = 15,
  identity = 21,
  greaterOrEqual = 303,
  index = 501,
  /** x where t, else b. */
  select = 601
};
/** cudnnReduceTensorOp_t */
enum class Reduce : int { sum = 0, largest = 3 };

using Extents = std::array<int64_t, 4>;

/** Strides of a tensor whose last axis is the innermost. */
inline Extents rowMajor(const Extents& extents) {
  return {extents[1] * extents[2] * extents[3], extents[2] * extents[3], extents[3], 1};
}

/** Of one device: may be used from one thread at a time. */
struct Context {
  void* handle = nullptr;
  std::mutex mutex;
};

/** That of the current device, which is `device`. Throws Refusal. */
Context& contextOf(int device);

/** A descriptor of cuDNN's. */
class Descriptor {
 public:
  explicit Descriptor(int kind);
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Descriptor& operator=(Descriptor&&) = delete;

  void set(int attribute, int type, int64_t count, const void* values);
  void set(int attribute, const Descriptor& of);
  void finalize(const char* what);
  void* get() const { return data_; }

 private:
  void* data_ = nullptr;
};

/** A graph that cuDNN has found a way for. */
class Plan {
 public:
  size_t workspaceBytes() const { return workspaceBytes_; }
  /** `memory`: of every given tensor, in the order in which they were given. From any thread, on the plan's device. Throws Refusal. */
  void run(void* stream, const std::vector<void*>& memory, void* workspace) const;

 private:
  friend class Graph;
  explicit Plan(Context& context) : context_(context) {}

  /** What a tensor holds that has no memory. */
  union Scalar {
    float real;
    int32_t whole;
  };

  Context& context_;
  /** Of given tensors, then of values. */
  std::vector<int64_t> ids_;
  std::vector<Scalar> values_;
  /** A plan needs what it was made of. */
  std::vector<Descriptor> parts_;
  void* plan_ = nullptr;
  size_t workspaceBytes_ = 0;
};

/** Builds one graph. Every call throws Refusal where cuDNN refuses. */
class Graph {
 public:
  explicit Graph(Context& context);

  /** A tensor of the graph. */
  struct Tensor {
    int64_t id;
    size_t part;
    Extents extents;
  };

  /** Lies in memory that comes with each run, at a multiple of 16 bytes; strides count elements. */
  Tensor given(Type type, const Extents& extents, const Extents& strides);
  /** Never leaves the chip. */
  Tensor between(Type type, const Extents& extents) { return between(type, extents, rowMajor(extents)); }
  Tensor between(Type type, const Extents& extents, const Extents& strides);
  Tensor value(float value);
  Tensor value(int32_t value);

  /** out = left right, of the last two axes; where one has fewer along an axis before them, neighbours of the other share it. */
  void multiply(const Tensor& left, const Tensor& right, const Tensor& out);
  /** out = mode(x); of Pointwise::index the position along `axis`. */
  void apply(Pointwise mode, const Tensor& x, const Tensor& out, int64_t axis = -1);
  void apply(Pointwise mode, const Tensor& x, const Tensor& b, const Tensor& out, Type compute = Type::float32);
  /** out = x where t, else b. */
  void select(const Tensor& x, const Tensor& b, const Tensor& t, const Tensor& out);
  /** Over every axis along which `out` has fewer: neighbours make one. */
  void reduce(Reduce mode, const Tensor& x, const Tensor& out);
  /** out is x by other extents and strides: an element is that at its offset. */
  void reshape(const Tensor& x, const Tensor& out);

  /** Ends the graph: of the ways that cuDNN names the first that it can prepare. */
  std::shared_ptr<const Plan> plan();

 private:
  Tensor tensor(Type type, const Extents& extents, const Extents& strides, bool isVirtual, bool isValue);
  void pointwise(Pointwise mode, Type compute, int64_t axis, const std::vector<std::pair<int, const Tensor*>>& operands);
  size_t keep(Descriptor&& descriptor);
  Descriptor& part(const Tensor& tensor) { return plan_->parts_[tensor.part]; }
  std::vector<Descriptor> waysBy(int mode, const Descriptor& graph);

  std::shared_ptr<Plan> plan_;
  std::vector<int64_t> valueIds_;
  std::vector<void*> operations_;
  int64_t lastId_ = 0;
};

}  // namespace cudnn

}  // namespace tandem::cuda
