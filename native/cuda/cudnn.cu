#include "cudnn.h"

#include <dlfcn.h>

#include <map>

#include "library.h"

namespace tandem::cuda {

namespace {

// Names and values of cuDNN's own header, version 9, as its documentation has them.
/** cudnnBackendDescriptorType_t */
enum Kind {
  pointwiseKind = 0,
  configKind = 3,
  heuristicsKind = 4,
  planKind = 5,
  pointwiseOperation = 13,
  graphKind = 15,
  packKind = 16,
  tensorKind = 17,
  productKind = 18,
  productOperation = 19,
  reductionKind = 21,
  reductionOperation = 22,
  reshapeOperation = 31
};

/** cudnnBackendAttributeName_t */
enum Attribute {
  pointwiseMode = 0,
  pointwisePrecision = 1,
  pointwiseAxis = 9,
  heuristicsMode = 200,
  heuristicsGraph = 201,
  heuristicsResults = 202,
  planConfig = 401,
  planWorkspace = 402,
  pointwiseDescriptor = 750,
  pointwiseX = 751,
  pointwiseB = 752,
  pointwiseOut = 753,
  pointwiseFactor1 = 754,
  pointwiseFactor2 = 755,
  pointwiseT = 758,
  graphHandle = 800,
  graphOperations = 801,
  tensorAlignment = 900,
  tensorType = 901,
  tensorExtents = 902,
  tensorStrides = 903,
  tensorId = 906,
  tensorIsVirtual = 907,
  tensorIsValue = 908,
  packIds = 1000,
  packMemory = 1001,
  packWorkspace = 1003,
  productPrecision = 1500,
  productLeft = 1520,
  productRight = 1521,
  productOut = 1522,
  productDescriptor = 1523,
  reductionMode = 1600,
  reductionPrecision = 1601,
  reductionX = 1610,
  reductionOut = 1611,
  reductionDescriptor = 1612,
  reshapeX = 2200,
  reshapeOut = 2201
};

/** cudnnBackendAttributeType_t */
enum AttributeType {
  isHandle = 0,
  isType = 1,
  isBoolean = 2,
  isInt64 = 3,
  isFloat = 4,
  isPointer = 6,
  isHeuristicsMode = 8,
  isPointwiseMode = 14,
  isDescriptor = 15,
  isReductionMode = 18
};

/** cudnnBackendHeurMode_t: the ways for this graph, and those that work anyhow. */
enum Heuristics { byGraph = 3, fallback = 2 };

/** 9.10.0 and 9.10.1 attend wrongly, and older ones want other graphs. */
constexpr size_t leastVersion = 91002;
constexpr size_t nextMajor = 100000;
constexpr int64_t alignment = 16;

struct Functions {
  size_t (*version)();
  const char* (*errorString)(int);
  void (*lastError)(char*, size_t);
  int (*create)(void**);
  int (*setStream)(void*, void*);
  int (*descriptorCreate)(int, void**);
  int (*descriptorDestroy)(void*);
  int (*descriptorSet)(void*, int, int, int64_t, const void*);
  int (*descriptorGet)(void*, int, int, int64_t, int64_t*, void*);
  int (*descriptorFinalize)(void*);
  int (*execute)(void*, void*, void*);
};

std::string told(size_t version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." + std::to_string(version % 100);
}

struct Cudnn {
  Functions call{};
  std::string missing;
  std::string path;
  size_t version = 0;

  Cudnn() {
    const Library library("TANDEM_CUDNN", {"libcudnn.so.9", "libcudnn.so"});
    if (!library.found()) {
      missing = "cuDNN, for its attention (" + library.error() +
                "); put its folder into LD_LIBRARY_PATH, or its path into TANDEM_CUDNN";
      return;
    }
    const bool known = library.bind(call.version, "cudnnGetVersion");
    if (known) version = call.version();
    Dl_info own{};
    if (known && dladdr(reinterpret_cast<const void*>(call.version), &own) != 0 && own.dli_fname != nullptr) path = own.dli_fname;
    const bool all = known && library.bind(call.errorString, "cudnnGetErrorString") &&
                     library.bind(call.lastError, "cudnnGetLastErrorString") && library.bind(call.create, "cudnnCreate") &&
                     library.bind(call.setStream, "cudnnSetStream") &&
                     library.bind(call.descriptorCreate, "cudnnBackendCreateDescriptor") &&
                     library.bind(call.descriptorDestroy, "cudnnBackendDestroyDescriptor") &&
                     library.bind(call.descriptorSet, "cudnnBackendSetAttribute") &&
                     library.bind(call.descriptorGet, "cudnnBackendGetAttribute") &&
                     library.bind(call.descriptorFinalize, "cudnnBackendFinalize") &&
                     library.bind(call.execute, "cudnnBackendExecute");
    if (!all || version < leastVersion || version >= nextMajor) {
      missing = "cuDNN, for its attention: the library that was found" + (path.empty() ? "" : " (" + path + ")") +
                (known ? " has version " + told(version) : " has no cudnnGetVersion") + "; expected " + told(leastVersion) +
                " or later of 9";
    }
  }
};

const Cudnn& library() {
  static const Cudnn instance;
  return instance;
}

/** Status 0 is success. */
void expect(int status, const std::string& what) {
  if (status == 0) return;
  const Functions& f = library().call;
  // cuDNN tells of every step on the way to an error
  std::string words(4096, 0);
  f.lastError(words.data(), words.size() - 1);
  words.resize(std::char_traits<char>::length(words.c_str()));
  while (!words.empty() && (words.back() == '\n' || words.back() == ' ')) words.pop_back();
  throw cudnn::Refusal(what + ": " + f.errorString(status) + (words.empty() ? "" : " (" + words + ")"));
}

}  // namespace

std::string cudnnMissing() { return library().missing; }
std::string cudnnVersion() { return library().missing.empty() ? told(library().version) : ""; }
size_t cudnnVersionNumber() { return library().version; }
std::string cudnnPath() { return library().path; }

namespace cudnn {

Context& contextOf(int device) {
  if (!library().missing.empty()) throw Refusal("there is no " + library().missing);
  static std::mutex mutex;
  // contexts stay where they are, and are never destroyed: that would wait for the GPU when a process ends
  static std::map<int, Context>& contexts = *new std::map<int, Context>;
  const std::lock_guard lock(mutex);
  Context& context = contexts[device];
  if (context.handle == nullptr) expect(library().call.create(&context.handle), "cudnnCreate");
  return context;
}

Descriptor::Descriptor(int kind) {
  expect(library().call.descriptorCreate(kind, &data_), "a descriptor of kind " + std::to_string(kind));
}

Descriptor::~Descriptor() {
  if (data_ != nullptr) library().call.descriptorDestroy(data_);
}

void Descriptor::set(int attribute, int type, int64_t count, const void* values) {
  expect(library().call.descriptorSet(data_, attribute, type, count, values), "attribute " + std::to_string(attribute));
}

void Descriptor::set(int attribute, const Descriptor& of) {
  void* const other = of.get();
  set(attribute, isDescriptor, 1, &other);
}

void Descriptor::finalize(const char* what) { expect(library().call.descriptorFinalize(data_), what); }

void Plan::run(void* stream, const std::vector<void*>& memory, void* workspace) const {
  std::vector<void*> all = memory;
  // cuDNN reads values while it launches
  for (const Scalar& value : values_) all.push_back(const_cast<Scalar*>(&value));
  if (all.size() != ids_.size()) {
    throw Refusal("a plan of " + std::to_string(ids_.size() - values_.size()) + " given tensors: memory of " +
                  std::to_string(memory.size()));
  }
  Descriptor pack(packKind);
  pack.set(packMemory, isPointer, static_cast<int64_t>(all.size()), all.data());
  pack.set(packIds, isInt64, static_cast<int64_t>(ids_.size()), ids_.data());
  pack.set(packWorkspace, isPointer, 1, &workspace);
  pack.finalize("what a plan is run with");
  const std::lock_guard lock(context_.mutex);
  expect(library().call.setStream(context_.handle, stream), "cudnnSetStream");
  expect(library().call.execute(context_.handle, plan_, pack.get()), "cudnnBackendExecute");
}

Graph::Graph(Context& context) : plan_(new Plan(context)) {}

size_t Graph::keep(Descriptor&& descriptor) {
  plan_->parts_.push_back(std::move(descriptor));
  return plan_->parts_.size() - 1;
}

Graph::Tensor Graph::tensor(Type type, const Extents& extents, const Extents& strides, bool isVirtual, bool isValue) {
  Descriptor made(tensorKind);
  const int typeNumber = static_cast<int>(type);
  const int64_t id = ++lastId_;
  const bool yes = true;
  made.set(tensorType, isType, 1, &typeNumber);
  made.set(tensorExtents, isInt64, 4, extents.data());
  made.set(tensorStrides, isInt64, 4, strides.data());
  made.set(tensorId, isInt64, 1, &id);
  made.set(tensorAlignment, isInt64, 1, &alignment);
  if (isVirtual) made.set(tensorIsVirtual, isBoolean, 1, &yes);
  if (isValue) made.set(tensorIsValue, isBoolean, 1, &yes);
  made.finalize("a tensor");
  return {id, keep(std::move(made)), extents};
}

Graph::Tensor Graph::given(Type type, const Extents& extents, const Extents& strides) {
  const Tensor made = tensor(type, extents, strides, false, false);
  plan_->ids_.push_back(made.id);
  return made;
}

Graph::Tensor Graph::between(Type type, const Extents& extents, const Extents& strides) {
  return tensor(type, extents, strides, true, false);
}

Graph::Tensor Graph::value(float value) {
  const Tensor made = tensor(Type::float32, {1, 1, 1, 1}, {1, 1, 1, 1}, false, true);
  Plan::Scalar scalar{};
  scalar.real = value;
  plan_->values_.push_back(scalar);
  valueIds_.push_back(made.id);
  return made;
}

Graph::Tensor Graph::value(int32_t value) {
  const Tensor made = tensor(Type::int32, {1, 1, 1, 1}, {1, 1, 1, 1}, false, true);
  Plan::Scalar scalar{};
  scalar.whole = value;
  plan_->values_.push_back(scalar);
  valueIds_.push_back(made.id);
  return made;
}

void Graph::multiply(const Tensor& left, const Tensor& right, const Tensor& out) {
  const int precision = static_cast<int>(Type::float32);
  Descriptor how(productKind);
  how.set(productPrecision, isType, 1, &precision);
  how.finalize("how to multiply");
  Descriptor operation(productOperation);
  operation.set(productLeft, part(left));
  operation.set(productRight, part(right));
  operation.set(productOut, part(out));
  operation.set(productDescriptor, how);
  operation.finalize("a product");
  keep(std::move(how));
  operations_.push_back(operation.get());
  keep(std::move(operation));
}

void Graph::pointwise(Pointwise mode, Type compute, int64_t axis, const std::vector<std::pair<int, const Tensor*>>& operands) {
  const int modeNumber = static_cast<int>(mode);
  const int precision = static_cast<int>(compute);
  const float one = 1;
  Descriptor how(pointwiseKind);
  how.set(pointwiseMode, isPointwiseMode, 1, &modeNumber);
  how.set(pointwisePrecision, isType, 1, &precision);
  if (mode == Pointwise::index) how.set(pointwiseAxis, isInt64, 1, &axis);
  how.finalize("how to do an elementwise operation");
  Descriptor operation(pointwiseOperation);
  operation.set(pointwiseDescriptor, how);
  for (const auto& [attribute, tensor] : operands) operation.set(attribute, part(*tensor));
  operation.set(pointwiseFactor1, isFloat, 1, &one);
  operation.set(pointwiseFactor2, isFloat, 1, &one);
  operation.finalize("an elementwise operation");
  keep(std::move(how));
  operations_.push_back(operation.get());
  keep(std::move(operation));
}

void Graph::apply(Pointwise mode, const Tensor& x, const Tensor& out, int64_t axis) {
  pointwise(mode, Type::float32, axis, {{pointwiseX, &x}, {pointwiseOut, &out}});
}

void Graph::apply(Pointwise mode, const Tensor& x, const Tensor& b, const Tensor& out, Type compute) {
  pointwise(mode, compute, -1, {{pointwiseX, &x}, {pointwiseOut, &out}, {pointwiseB, &b}});
}

void Graph::select(const Tensor& x, const Tensor& b, const Tensor& t, const Tensor& out) {
  pointwise(Pointwise::select, Type::float32, -1, {{pointwiseX, &x}, {pointwiseOut, &out}, {pointwiseB, &b}, {pointwiseT, &t}});
}

void Graph::reduce(Reduce mode, const Tensor& x, const Tensor& out) {
  const int modeNumber = static_cast<int>(mode);
  const int precision = static_cast<int>(Type::float32);
  Descriptor how(reductionKind);
  how.set(reductionPrecision, isType, 1, &precision);
  how.set(reductionMode, isReductionMode, 1, &modeNumber);
  how.finalize("how to reduce");
  Descriptor operation(reductionOperation);
  operation.set(reductionDescriptor, how);
  operation.set(reductionX, part(x));
  operation.set(reductionOut, part(out));
  operation.finalize("a reduction");
  keep(std::move(how));
  operations_.push_back(operation.get());
  keep(std::move(operation));
}

void Graph::reshape(const Tensor& x, const Tensor& out) {
  Descriptor operation(reshapeOperation);
  operation.set(reshapeX, part(x));
  operation.set(reshapeOut, part(out));
  operation.finalize("a reshape");
  operations_.push_back(operation.get());
  keep(std::move(operation));
}

std::vector<Descriptor> Graph::waysBy(int mode, const Descriptor& graph) {
  const Functions& f = library().call;
  Descriptor heuristics(heuristicsKind);
  heuristics.set(heuristicsGraph, graph);
  heuristics.set(heuristicsMode, isHeuristicsMode, 1, &mode);
  heuristics.finalize("ways to run the graph");
  int64_t count = 0;
  expect(f.descriptorGet(heuristics.get(), heuristicsResults, isDescriptor, 0, &count, nullptr), "how many ways there are");
  std::vector<Descriptor> ways;
  std::vector<void*> raw;
  for (int64_t i = 0; i < count; i++) {
    ways.emplace_back(configKind);
    raw.push_back(ways.back().get());
  }
  int64_t found = 0;
  expect(f.descriptorGet(heuristics.get(), heuristicsResults, isDescriptor, count, &found, raw.data()), "the ways there are");
  while (static_cast<int64_t>(ways.size()) > found) ways.pop_back();
  return ways;
}

std::shared_ptr<const Plan> Graph::plan() {
  const Functions& f = library().call;
  Plan& plan = *plan_;
  plan.ids_.insert(plan.ids_.end(), valueIds_.begin(), valueIds_.end());
  const std::lock_guard lock(plan.context_.mutex);
  Descriptor graph(graphKind);
  graph.set(graphOperations, isDescriptor, static_cast<int64_t>(operations_.size()), operations_.data());
  graph.set(graphHandle, isHandle, 1, &plan.context_.handle);
  graph.finalize("the graph");
  std::string why;
  for (const int mode : {byGraph, fallback}) {
    try {
      for (Descriptor& way : waysBy(mode, graph)) {
        Descriptor made(planKind);
        made.set(planConfig, way);
        try {
          made.finalize("a plan");
        } catch (const Refusal& refusal) {
          if (why.empty()) why = refusal.what();
          continue;
        }
        int64_t bytes = 0;
        int64_t count = 0;
        expect(f.descriptorGet(made.get(), planWorkspace, isInt64, 1, &count, &bytes), "a plan's workspace");
        plan.workspaceBytes_ = static_cast<size_t>(bytes);
        plan.plan_ = made.get();
        keep(std::move(made));
        keep(std::move(way));
        keep(std::move(graph));
        return plan_;
      }
    } catch (const Refusal& refusal) {
      if (why.empty()) why = refusal.what();
    }
  }
  throw Refusal(why.empty() ? "it has no way to run the graph" : why);
}

}  // namespace cudnn

}  // namespace tandem::cuda
