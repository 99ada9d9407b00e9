// Exercises the transport without Node. Built and run under sanitizers by native/test/run.sh; with the argument "large" it sends
// more than 32 bits count, 4 GiB or as many as the next argument says, with "throughput" it says how fast.
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "../../cpu/rounding.h"
#include "../../transport/sha256.h"
#include "../../transport/ucx-api.h"
#include "meshes.h"

namespace tandem {

std::atomic<int> checks{0};
Transport transport = Transport::tcp;

void check(bool holds, const std::string& what) {
  checks++;
  if (holds) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

Meshes meshesOf(int size, int streams, const std::function<void(MeshOptions&)>& change) {
  Meshes meshes;
  std::vector<Address> addresses;
  for (int rank = 0; rank < size; rank++) {
    MeshOptions options;
    options.rank = rank;
    options.size = size;
    options.streams = streams;
    options.heartbeatSeconds = 0.1;
    options.transport = transport;
    change(options);
    meshes.push_back(std::make_unique<Mesh>(options));
    addresses.push_back({options.host, meshes.back()->port()});
  }
  std::vector<std::thread> threads;
  for (auto& mesh : meshes) threads.emplace_back([&] { mesh->connect(addresses, "a key", 10); });
  for (auto& thread : threads) thread.join();
  for (const auto& mesh : meshes) {
    const std::string by = mesh->carriedBy().name;
    const std::string asked = transport == Transport::tcp ? "tcp" : transport == Transport::ucx ? "ucx" : "memory";
    check(size == 1 || by == asked, "carried by " + asked + ", not by " + by + ": " + mesh->carriedBy().because);
  }
  return meshes;
}

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

}  // namespace tandem

namespace {

using namespace tandem;

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

/** Runs `act` over every transport that there is. */
void overEach(const std::function<void(const char* name)>& act) {
  act("tcp");
  transport = Transport::automatic;
  act("memory");
  if (!ucx::library().missing.empty()) {
    check(std::getenv("TANDEM_REQUIRE_UCX") == nullptr, "TANDEM_REQUIRE_UCX is set: " + ucx::library().missing);
    std::printf("transport ucx: left out: %s\n", ucx::library().missing.c_str());
    return;
  }
  transport = Transport::ucx;
  act("ucx");
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "throughput") {
    overEach([](const char* name) {
      std::printf("%s\n", name);
      throughput();
    });
    return 0;
  }
  if (what == "large") {
    const size_t gibibytes = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 4;
    overEach([&](const char* name) {
      large(gibibytes);
      std::printf("transport %s: a message of %zu GiB and a page arrives\n", name, gibibytes);
    });
    return 0;
  }
  digests();
  strangers();
  plans();
  largePlans();
  staging();
  overEach([](const char* name) {
    notes();
    neighbours();
    failures();
    sessions();
    collectives();
    std::printf("transport %s: %d checks hold\n", name, checks.load());
  });
  return 0;
}
