// Collectives between meshes of one process, of every kind, wire and dtype, held to their definition.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>

#include "../../cpu/rounding.h"
#include "../../transport/remote.h"
#include "meshes.h"

namespace tandem {

namespace {

/** What arrives of a tensor, by definition: core/kernels/collectives.ts. */
Tensor throughWire(const Tensor& tensor, const std::string& wire) {
  Tensor out = tensor;
  if (wire.empty() || isInteger(tensor.dtype)) return out;
  const auto count = static_cast<int64_t>(out.floats.size());
  out.dtype = Dtype::float32;
  if (wire == "bfloat16" || wire == "float16") {
    roundInPlace(out.floats.data(), count, dtypeNamed(wire));
    return out;
  }
  const Scaled format = wire == "float8" ? Scaled::float8 : wire == "float4" ? Scaled::float4 : Scaled::int8;
  const float scale = scaleOf(out.floats.data(), count, format);
  for (float& value : out.floats) {
    const double code = scale > 0 ? roundTo(dtypeNamed(wire), static_cast<double>(value) / static_cast<double>(scale)) : 0;
    const double held = format == Scaled::int8 ? std::clamp(code, -127.0, 127.0) : code;
    value = static_cast<float>(held * static_cast<double>(scale));
  }
  return out;
}

void put(Tensor& to, int64_t i, double value) {
  if (isInteger(to.dtype)) {
    int32_t one = toInt32(value);
    roundInPlace(&one, 1, to.dtype);
    to.integers[static_cast<size_t>(i)] = one;
  } else {
    auto one = static_cast<float>(value);
    roundInPlace(&one, 1, to.dtype);
    to.floats[static_cast<size_t>(i)] = one;
  }
}

bool sameBits(const Tensor& a, const Tensor& b) {
  if (a.floats.size() != b.floats.size() || a.integers != b.integers) return false;
  return a.floats.empty() || std::memcmp(a.floats.data(), b.floats.data(), a.floats.size() * 4) == 0;
}

struct Case {
  std::string kernel;
  std::string wire;
  bool average;
  bool inPlace;
  std::vector<Dtype> dtypes;
  std::vector<int64_t> units;
  std::vector<int64_t> counts;
  std::vector<std::vector<int64_t>> matrix;
  int root;
};

std::string textOf(const std::vector<int64_t>& counts) {
  std::string text;
  for (const int64_t count : counts) text += (text.empty() ? "" : ",") + std::to_string(count);
  return text;
}

/** Runs a collective on all meshes, and holds what comes out to its definition. */
void collective(const Meshes& meshes, const Case& one, uint32_t position, std::mt19937& random) {
  const size_t n = meshes.size();
  std::vector<std::vector<Tensor>> ins(n), outs(n), expected(n);
  const auto rowsOf = [](const std::vector<int64_t>& counts) {
    int64_t rows = 0;
    for (const int64_t count : counts) rows += count;
    return rows;
  };
  for (size_t r = 0; r < n; r++) {
    for (size_t t = 0; t < one.dtypes.size(); t++) {
      int64_t in = one.units[t];
      int64_t out = one.units[t];
      if (one.kernel == "all_gather") {
        in *= one.counts[r];
        out *= rowsOf(one.counts);
      } else if (one.kernel == "reduce_scatter") {
        in *= rowsOf(one.counts);
        out *= one.counts[r];
      } else if (one.kernel == "all_to_all") {
        in *= rowsOf(one.matrix[r]);
        int64_t receives = 0;
        for (size_t from = 0; from < n; from++) receives += one.matrix[from][r];
        out *= receives;
      }
      ins[r].push_back(tensorOf(one.dtypes[t], in, random));
      outs[r].push_back(tensorOf(one.dtypes[t], out, random));
    }
    expected[r] = outs[r];
  }
  for (size_t t = 0; t < one.dtypes.size(); t++) {
    std::vector<Tensor> sent;
    for (size_t r = 0; r < n; r++) sent.push_back(throughWire(ins[r][t], one.wire));
    const double over = one.average ? static_cast<double>(n) : 1;
    const auto total = [&](int64_t i) {
      double sum = 0;
      for (const Tensor& tensor : sent) sum += tensor.at(i);
      return sum / over;
    };
    for (size_t r = 0; r < n; r++) {
      Tensor& out = expected[r][t];
      int64_t at = 0;
      if (one.kernel == "all_reduce") {
        for (int64_t i = 0; i < out.elements(); i++) put(out, i, total(i));
      } else if (one.kernel == "reduce_scatter") {
        for (size_t before = 0; before < r; before++) at += one.counts[before] * one.units[t];
        for (int64_t i = 0; i < out.elements(); i++) put(out, i, total(at + i));
      } else if (one.kernel == "all_gather") {
        for (const Tensor& tensor : sent) {
          for (int64_t i = 0; i < tensor.elements(); i++) put(out, at++, tensor.at(i));
        }
      } else if (one.kernel == "broadcast") {
        for (int64_t i = 0; i < out.elements(); i++) put(out, i, sent[static_cast<size_t>(one.root)].at(i));
      } else {
        for (size_t from = 0; from < n; from++) {
          int64_t start = 0;
          for (size_t to = 0; to < r; to++) start += one.matrix[from][to] * one.units[t];
          for (int64_t i = 0; i < one.matrix[from][r] * one.units[t]; i++) put(out, at++, sent[from].at(start + i));
        }
      }
    }
  }
  Group group{"world", {}};
  for (size_t r = 0; r < n; r++) group.members.push_back(static_cast<int>(r));
  std::vector<std::thread> threads;
  const size_t late = random() % n;
  int64_t came = 0;
  std::vector<int64_t> left(n);
  for (size_t r = 0; r < n; r++) {
    threads.emplace_back([&, r] {
      Call call;
      call.kernel = one.kernel;
      call.group = group;
      call.attributes["wire"] = one.wire;
      if (one.kernel == "all_reduce" || one.kernel == "reduce_scatter") {
        call.attributes["reduce"] = std::string(one.average ? "avg" : "sum");
      }
      if (one.kernel == "all_gather" || one.kernel == "reduce_scatter") call.attributes["counts"] = textOf(one.counts);
      if (one.kernel == "all_to_all") {
        std::vector<int64_t> receives;
        for (size_t from = 0; from < n; from++) receives.push_back(one.matrix[from][r]);
        call.attributes["sendCounts"] = textOf(one.matrix[r]);
        call.attributes["receiveCounts"] = textOf(receives);
      }
      if (one.kernel == "broadcast") call.attributes["root"] = static_cast<double>(one.root);
      for (size_t t = 0; t < one.dtypes.size(); t++) {
        if (one.inPlace) outs[r][t] = ins[r][t];
        call.inputs.push_back(one.inPlace ? outs[r][t].operand() : ins[r][t].operand());
        call.outputs.push_back(outs[r][t].operand());
      }
      // One who comes late keeps all: none leaves before.
      if (r == late) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      if (r == late) came = Mesh::nowNanoseconds();
      RemoteCollective(call, r).run(*meshes[r], 1, position);
      left[r] = Mesh::nowNanoseconds();
    });
  }
  for (auto& thread : threads) thread.join();
  for (const int64_t when : left) check(when >= came, one.kernel + ": nobody leaves before the last has come");
  for (size_t r = 0; r < n; r++) {
    for (size_t t = 0; t < one.dtypes.size(); t++) {
      check(sameBits(outs[r][t], expected[r][t]),
            one.kernel + " wire \"" + one.wire + "\" of " + std::to_string(n) + " ranks, rank " + std::to_string(r) +
                ", tensor " + std::to_string(t) + (one.inPlace ? ", in place" : ""));
    }
  }
}

}  // namespace

void collectives() {
  std::mt19937 random(7);
  const std::vector<std::string> kernels = {"all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"};
  const std::vector<std::string> wires = {"", "", "bfloat16", "float16", "float8", "float4", "int8"};
  const std::vector<Dtype> dtypes = {Dtype::float32, Dtype::float32, Dtype::bfloat16, Dtype::float16,
                                     Dtype::float8,  Dtype::float4,  Dtype::int32,    Dtype::int8};
  for (const int size : {2, 3, 5}) {
    const Meshes meshes = meshesOf(size, size == 3 ? 3 : 1);
    for (uint32_t position = 0; position < 60; position++) {
      Case one;
      one.kernel = position == 0 ? "all_reduce" : kernels[random() % kernels.size()];
      one.wire = wires[random() % wires.size()];
      // The largest goes by shares, of two too.
      if (position == 0) one.wire.clear();
      one.average = random() % 2 == 0;
      one.root = static_cast<int>(random() % static_cast<unsigned>(size));
      const size_t tensors = 1 + random() % 3;
      for (size_t t = 0; t < tensors; t++) {
        one.dtypes.push_back(dtypes[random() % dtypes.size()]);
        // Now and then several chunks, and once more than are awaited at a time.
        const bool large = position == 0 && t == 0;
        if (large) one.dtypes.back() = Dtype::float32;
        const int64_t several = size == 2 ? 4'400'001 : 2'500'001;
        one.units.push_back(large ? several : random() % 40 == 0 ? 400'001 : static_cast<int64_t>(random() % 300));
      }
      const bool even = random() % 2 == 0;
      for (int r = 0; r < size; r++) {
        one.counts.push_back(even ? 1 : static_cast<int64_t>(random() % 4));
        one.matrix.emplace_back();
        for (int to = 0; to < size; to++) one.matrix.back().push_back(even ? 1 : static_cast<int64_t>(random() % 3));
      }
      // Now and then one member gets nothing, not even of itself.
      const auto poor = static_cast<size_t>(random() % static_cast<unsigned>(size));
      for (auto& rows : one.matrix) {
        if (!even && position % 3 == 0) rows[poor] = 0;
      }
      one.inPlace = random() % 3 == 0 && (one.kernel == "all_reduce" || one.kernel == "broadcast" ||
                                          (one.kernel == "all_to_all" && even));
      collective(meshes, one, position, random);
    }
    for (auto& mesh : meshes) check(!mesh->failed(), "no fault");
  }
}

}  // namespace tandem
