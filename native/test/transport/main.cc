// Exercises the transport without Node: collectives between meshes of one process, held to their definition; peers that vanish,
// contradict each other, or are strangers. Built and run under sanitizers by native/test/run.sh; with the argument "large" it sends
// more than 32 bits count, with "throughput" it says how fast.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <thread>

#include "../../cpu/rounding.h"
#include "../../transport/handshake.h"
#include "../../transport/mesh.h"
#include "../../transport/remote.h"
#include "../../transport/sha256.h"

using namespace tandem;

namespace {

std::atomic<int> checks{0};

void check(bool holds, const std::string& what) {
  checks++;
  if (holds) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

std::string hex(const Digest256& digest) {
  std::string text;
  char two[3];
  for (const uint8_t byte : digest) {
    std::snprintf(two, sizeof two, "%02x", byte);
    text += two;
  }
  return text;
}

void digests() {
  // FIPS 180-4's examples, and RFC 4231's test case 2.
  check(hex(sha256("abc", 3)) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "sha256 abc");
  const std::string two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  check(hex(sha256(two.data(), two.size())) == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        "sha256 of two blocks");
  check(hex(hmacSha256("Jefe", "what do ya want for nothing?")) ==
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        "hmac");
}

using Meshes = std::vector<std::unique_ptr<Mesh>>;

Meshes meshesOf(int size, int streams, const std::function<void(MeshOptions&)>& change = [](MeshOptions&) {}) {
  Meshes meshes;
  std::vector<Address> addresses;
  for (int rank = 0; rank < size; rank++) {
    MeshOptions options;
    options.rank = rank;
    options.size = size;
    options.streams = streams;
    options.heartbeatSeconds = 0.1;
    change(options);
    meshes.push_back(std::make_unique<Mesh>(options));
    addresses.push_back({"127.0.0.1", meshes.back()->port()});
  }
  std::vector<std::thread> threads;
  for (auto& mesh : meshes) threads.emplace_back([&] { mesh->connect(addresses, "a key", 10); });
  for (auto& thread : threads) thread.join();
  return meshes;
}

/** A tensor of one rank, stored as the cpu backend does. */
struct Tensor {
  Dtype dtype;
  std::vector<float> floats;
  std::vector<int32_t> integers;
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

Tensor tensorOf(Dtype dtype, int64_t count, std::mt19937& random) {
  Tensor tensor{dtype, {}, {}};
  std::normal_distribution<float> normal(0, 3);
  for (int64_t i = 0; i < count; i++) {
    if (isInteger(dtype)) {
      tensor.integers.push_back(static_cast<int32_t>(normal(random) * 30));
    } else {
      tensor.floats.push_back(random() % 17 == 0 ? 0.0f : normal(random));
    }
  }
  if (isInteger(dtype)) {
    roundInPlace(tensor.integers.data(), count, dtype);
  } else {
    roundInPlace(tensor.floats.data(), count, dtype);
  }
  return tensor;
}

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
    const auto code = static_cast<float>(codeOf(static_cast<double>(value), scale, format));
    value = static_cast<float>(static_cast<double>(code) * static_cast<double>(scale));
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
      RemoteCollective(call, r).run(*meshes[r], position);
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
      one.average = random() % 2 == 0;
      one.root = static_cast<int>(random() % static_cast<unsigned>(size));
      const size_t tensors = 1 + random() % 3;
      for (size_t t = 0; t < tensors; t++) {
        one.dtypes.push_back(dtypes[random() % dtypes.size()]);
        // Now and then several chunks, and once more than are awaited at a time.
        const bool large = position == 0 && t == 0;
        one.units.push_back(large ? 2'500'001 : random() % 40 == 0 ? 400'001 : static_cast<int64_t>(random() % 300));
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

void notes() {
  const Meshes meshes = meshesOf(3, 1);
  std::mutex mutex;
  std::vector<std::string> heard;
  for (int i = 0; i < 100; i++) meshes[0]->note(1, "note " + std::to_string(i));
  const std::string large(5'000'000, 'x');
  meshes[0]->note(1, large);
  std::atomic<bool> done{false};
  meshes[1]->onNote([&](int peer, const std::string& text) {
    const std::lock_guard lock(mutex);
    check(peer == 0, "who wrote");
    heard.push_back(text);
    done = heard.size() == 101;
  });
  for (int i = 0; i < 1000 && !done; i++) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  check(done, "all notes came");
  for (size_t i = 0; i < 100; i++) check(heard[i] == "note " + std::to_string(i), "notes in order");
  check(heard[100] == large, "a large note");
}

/** What a receive on `mesh` from `peer` ends with. */
MeshFault awaited(Mesh& mesh, int peer) {
  float value = 0;
  Exchange exchange(mesh, 1, 1, {1, "a test"});
  exchange.receive(peer, 0, &value, 4, 0);
  check(!exchange.wait(0), "nothing came");
  return *mesh.fault();
}

void failures() {
  {
    // Goes away without a word: what a killed process looks like to others.
    Meshes meshes = meshesOf(3, 1);
    std::thread waiting([&] {
      const MeshFault fault = awaited(*meshes[0], 2);
      check(fault.rank == 2, "names the lost rank: " + fault.message);
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    meshes[2]->fail({MeshFault::Kind::told, 2, "rank 2: made up"});
    waiting.join();
    const MeshFault other = awaited(*meshes[1], 0);
    check(other.rank == 2, "the other one knows too: " + other.message);
  }
  {
    // Ends as it should, while another still wants something of it.
    Meshes meshes = meshesOf(2, 2);
    std::thread waiting([&] {
      const MeshFault fault = awaited(*meshes[0], 1);
      check(fault.kind == MeshFault::Kind::lost && fault.rank == 1, "ended early: " + fault.message);
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    meshes[1].reset();
    waiting.join();
  }
  {
    // All end, one after the other, owing nothing: no fault.
    Meshes meshes = meshesOf(3, 1);
    meshes[1].reset();
    std::this_thread::sleep_for(std::chrono::milliseconds(800));
    check(!meshes[0]->failed() && !meshes[2]->failed(), "a goodbye is no fault");
  }
  {
    // Contradictions.
    Meshes meshes = meshesOf(2, 1);
    std::vector<std::string> heard(2);
    std::vector<std::thread> threads;
    for (size_t r = 0; r < 2; r++) {
      threads.emplace_back([&, r] {
        Tensor tensor{Dtype::float32, std::vector<float>(8, 1.0f), {}};
        Call call;
        call.kernel = r == 0 ? "all_reduce" : "broadcast";
        call.group = Group{"world", {0, 1}};
        call.attributes["wire"] = std::string();
        call.attributes["reduce"] = std::string("sum");
        call.attributes["root"] = 0.0;
        call.inputs = {tensor.operand()};
        call.outputs = {tensor.operand()};
        try {
          RemoteCollective(call, r).run(*meshes[r], 5);
        } catch (const OpFault& fault) {
          heard[r] = fault.what();
          check(fault.kind == FaultKind::collective, "kind of fault");
        }
      });
    }
    for (auto& thread : threads) thread.join();
    for (const std::string& text : heard) {
      check(text.find("all_reduce of 32 B") != std::string::npos && text.find("broadcast of 32 B") != std::string::npos,
            "says what each submitted: " + text);
    }
  }
}

int connectTo(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
  return fd;
}

void strangers() {
  // Garbage, a slow one and one with another key do not keep the right one out.
  MeshOptions options;
  options.size = 2;
  options.streams = 1;
  Mesh first(options);
  options.rank = 1;
  Mesh second(options);
  Mesh thief(options);
  const std::vector<Address> addresses = {{"127.0.0.1", first.port()}, {"127.0.0.1", second.port()}};
  std::vector<int> fds;
  std::mt19937 random(3);
  for (int i = 0; i < 40; i++) {
    fds.push_back(connectTo(first.port()));
    std::string noise(random() % 80, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    [[maybe_unused]] const ssize_t sent = ::send(fds.back(), noise.data(), noise.size(), MSG_NOSIGNAL);
  }
  std::thread accepting([&] { first.connect(addresses, "right", 10); });
  try {
    thief.connect(addresses, "wrong", 0.5);
    check(false, "a wrong key must not do");
  } catch (const NoMesh& error) {
    check(std::string(error.what()).find("key") != std::string::npos, error.what());
  }
  second.connect(addresses, "right", 10);
  accepting.join();
  for (const int fd : fds) ::close(fd);
  // Nobody comes.
  MeshOptions alone;
  alone.size = 3;
  Mesh waiting(alone);
  try {
    waiting.connect({{"127.0.0.1", waiting.port()}, {"127.0.0.1", 1}, {"127.0.0.1", 1}}, "", 0.3);
    check(false, "nobody came");
  } catch (const NoMesh& error) {
    check(std::string(error.what()).find("rank 1 did not connect") != std::string::npos, error.what());
  }
}

/** What goes to whom of more values than 32 bits count; no memory stands behind them. */
void largePlans() {
  for (const int64_t elements : {(int64_t{1} << 31) - 1, (int64_t{1} << 31) + 1, (int64_t{1} << 32) - 1,
                                 (int64_t{1} << 32) + 7, (int64_t{1} << 34) + 3}) {
    Operand one;
    one.dtype = Dtype::float32;
    one.elements = elements;
    one.shape = {elements};
    one.sizeBytes = elements * 4;
    Call call;
    call.kernel = "all_reduce";
    call.group = Group{"world", {0, 1, 2}};
    call.attributes["wire"] = std::string();
    call.attributes["reduce"] = std::string("sum");
    call.inputs = {one, one};
    call.outputs = {one, one};
    const CollectivePlan plan(call, 1);
    int64_t next[] = {0, 0};
    for (size_t member = 0; member < 3; member++) {
      for (const Span& span : plan.share(plan.inputs, member)) {
        check(span.from == next[span.tensor] && span.count > 0, "shares follow each other");
        next[span.tensor] += span.count;
      }
    }
    check(next[0] == elements && next[1] == elements, "shares are all there is");
    check(packedBytes(Packing::words, elements) == static_cast<size_t>(elements) * 4, "bytes of words");
    check(packedBytes(Packing::scaledFloat4, elements) == 4 + (static_cast<size_t>(elements) + 1) / 2, "bytes of float4");
  }
}

/** So many bytes of address space over one small piece of memory, again and again, and a page of their own at the end. */
class Folded {
 public:
  explicit Folded(size_t bytes) : bytes_(bytes) {
    const int fd = ::memfd_create("folded", MFD_CLOEXEC);
    check(fd >= 0 && ::ftruncate(fd, windowBytes) == 0, "memory to fold");
    start_ = static_cast<char*>(::mmap(nullptr, bytes + windowBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (size_t at = 0; at < bytes; at += windowBytes) {
      ::mmap(start_ + at, windowBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    }
    ::mmap(last(), pageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    ::close(fd);
  }
  ~Folded() { ::munmap(start_, bytes_ + windowBytes); }
  char* data() const { return start_; }
  char* last() const { return start_ + bytes_ - pageBytes; }
  static constexpr size_t pageBytes = 4096;

 private:
  static constexpr size_t windowBytes = size_t{16} << 20;
  const size_t bytes_;
  char* start_;
};

/** A message of more than 4 GiB, of which 32 MiB are real. */
void large() {
  const size_t bytes = (size_t{1} << 32) + Folded::pageBytes;
  const Folded from(bytes);
  const Folded to(bytes);
  std::memset(from.last(), 7, Folded::pageBytes);
  const Meshes meshes = meshesOf(2, 2);
  std::thread sender([&] {
    Exchange exchange(*meshes[0], 1, 0, {1, "large"}, {0, 1});
    exchange.send(1, 0, from.data(), bytes, 0);
    check(exchange.waitAll(), "a large message leaves");
  });
  Exchange exchange(*meshes[1], 1, 0, {1, "large"}, {0, 1});
  exchange.receive(0, 0, to.data(), bytes, 0);
  check(exchange.waitAll(), "a large message comes");
  sender.join();
  check(std::memcmp(from.last(), to.last(), Folded::pageBytes) == 0, "the end of a large message");
  check(to.data()[0] == 0 && to.last()[-1] == 0, "what is before its end");
  check(meshes[0]->sentBytes(1) == bytes, "bytes are counted in 64 bits");
}

void throughput() {
  const int64_t count = int64_t{1} << 24;
  for (const int streams : {1, 2, 4}) {
    const Meshes meshes = meshesOf(2, streams);
    std::vector<float> from(count, 1.0f);
    std::vector<float> to(count);
    double best = 1e9;
    for (uint32_t round = 0; round < 10; round++) {
      const auto start = std::chrono::steady_clock::now();
      std::thread sender([&] {
        Exchange exchange(*meshes[0], 1, round, {1, "copy"});
        exchange.send(1, 0, from.data(), from.size() * 4, 0);
        exchange.wait(0);
      });
      Exchange exchange(*meshes[1], 1, round, {1, "copy"});
      exchange.receive(0, 0, to.data(), to.size() * 4, 0);
      exchange.wait(0);
      sender.join();
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      best = std::min(best, seconds);
    }
    std::printf("one way, %d streams: %.2f GB/s\n", streams, static_cast<double>(count) * 4 / best / 1e9);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "throughput") {
    throughput();
    return 0;
  }
  if (argc > 1 && std::string(argv[1]) == "large") {
    large();
    std::printf("transport: a message of 4 GiB and a page arrives\n");
    return 0;
  }
  digests();
  notes();
  strangers();
  failures();
  largePlans();
  collectives();
  std::printf("transport: %d checks hold\n", checks.load());
  return 0;
}
