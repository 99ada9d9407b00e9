// What tests of the transport share: meshes of one process, and tensors as the cpu backend stores them.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../../backend.h"
#include "../../transport/mesh.h"

namespace tandem {

extern std::atomic<int> checks;

void check(bool holds, const std::string& what);

/** What is on trial: the transport of `meshesOf`. */
extern Transport transport;

using Meshes = std::vector<std::unique_ptr<Mesh>>;

Meshes meshesOf(int size, int streams, const std::function<void(MeshOptions&)>& change = [](MeshOptions&) {});

/** Where others can read what is long enough, as the cpu backend's tensors lie where ranks lend them. */
template <class Value>
struct Lending {
  using value_type = Value;
  Lending() = default;
  template <class Other>
  explicit Lending(const Lending<Other>&) {}
  Value* allocate(size_t count) {
    LentMemory* const memory = LentMemory::here();
    void* const lent = count * sizeof(Value) < lentBytesMin || memory == nullptr ? nullptr : memory->allocate(count * sizeof(Value));
    return static_cast<Value*>(lent != nullptr ? lent : ::operator new(count * sizeof(Value)));
  }
  void deallocate(Value* data, size_t) {
    if (LentMemory::here() == nullptr || !LentMemory::here()->deallocate(data)) ::operator delete(data);
  }
  bool operator==(const Lending&) const { return true; }
  bool operator!=(const Lending&) const { return false; }
};
using Floats = std::vector<float, Lending<float>>;

/** A tensor of one rank, stored as the cpu backend does. */
struct Tensor {
  Dtype dtype;
  Floats floats;
  std::vector<int32_t, Lending<int32_t>> integers;
  void* data() { return isInteger(dtype) ? static_cast<void*>(integers.data()) : floats.data(); }
  int64_t elements() const { return static_cast<int64_t>(isInteger(dtype) ? integers.size() : floats.size()); }
  double at(int64_t i) const {
    return isInteger(dtype) ? integers[static_cast<size_t>(i)] : static_cast<double>(floats[static_cast<size_t>(i)]);
  }
  Operand operand() {
    Operand one;
    one.data = data();
    one.dtype = dtype;
    one.shape = {elements()};
    one.elements = elements();
    one.sizeBytes = elements() * 4;
    return one;
  }
};

Tensor tensorOf(Dtype dtype, int64_t count, std::mt19937& random);

// What is tested, a file each.

/** Collectives held to their definition (collectives.cc). */
void collectives();
/** What members must say alike, and how calls that cannot be are refused (plans.cc). */
void plans();
/** Notes, peers that vanish or contradict each other, strangers (peers.cc). */
void notes();
void neighbours();
void failures();
void strangers();
/** Machines that follow each other on one mesh (sessions.cc). */
void sessions();
/** More than 32 bits count, and how fast (sizes.cc). */
void largePlans();
void staging();
void large(size_t gibibytes);
void throughput();

}  // namespace tandem
