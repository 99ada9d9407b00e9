// Frames and hellos at random. Most are right ones that were changed a little, so that they are taken for more than noise before
// they are found out. Whatever comes, a mesh goes on or ends with a fault that names the peer; whoever waits is let go; and
// nothing outside the memory that was lent is written.

#include <algorithm>
#include <map>
#include <random>

#include "../loopback.h"
#include "raw-peer.h"

namespace tandem {

namespace {

constexpr char guard = 0x5a;

class Fuzz {
 public:
  explicit Fuzz(unsigned seed) : random_(seed) {}

  /** One mesh, until it has ended or some frames have gone; returns how many went. */
  int siege() {
    const int most = 1 + static_cast<int>(random_() % 40);
    // Before the mesh, which hands notes over until its end.
    std::vector<std::pair<int, std::string>> notes;
    std::mutex mutex;
    Besieged besieged;
    besieged.mesh->onNote([&](int peer, const std::optional<std::string>& text) {
      const std::lock_guard lock(mutex);
      notes.emplace_back(peer, text.value_or("a goodbye"));
    });
    // What the mesh awaits, and what it has for others, of several sizes; around it what must stay as it is.
    const std::vector<size_t> sizes = {1, 4096, segment, segment + 1, 2 * segment + 100};
    std::vector<std::vector<char>> memory;
    std::vector<char> out(2 * segment + 100, 'o');
    int sent = 0;
    bool whole = false;
    {
      Exchange exchange(*besieged.mesh, 1, 1, {7, "at random"}, random_() % 2 == 0 ? std::vector<int>{0, 1} : std::vector<int>{});
      for (size_t part = 0; part < sizes.size(); part++) {
        memory.emplace_back(sizes[part] + 128, guard);
        exchange.receive(1, static_cast<uint32_t>(part), memory.back().data() + 64, sizes[part], part);
        exchange.send(1, static_cast<uint32_t>(part), out.data(), sizes[part], 10 + part);
      }
      while (sent < most && !besieged.mesh->failed()) {
        send(besieged, sizes);
        sent++;
      }
      // The peer goes away; a mesh that has not failed by then does.
      for (const int fd : besieged.fds) ::shutdown(fd, SHUT_RDWR);
      whole = exchange.waitAll();
    }
    if (besieged.mesh->failed()) {
      const MeshFault fault = *besieged.mesh->fault();
      check(fault.rank == 0 || fault.rank == 1, "a fault of a rank that there is");
      ends_[nameOf(fault)]++;
    } else {
      check(whole, "without a fault, everything has come and gone");
      ends_["none"]++;
    }
    for (size_t part = 0; part < sizes.size(); part++) {
      for (size_t i = 0; i < 64; i++) {
        check(memory[part][i] == guard && memory[part][64 + sizes[part] + i] == guard, "memory beside what was lent");
      }
    }
    const std::lock_guard lock(mutex);
    for (const auto& [peer, text] : notes) check(peer == 1, "a note comes from whoever wrote it");
    return sent;
  }

  /** Strangers at a door that the right one comes through as well. */
  int door() {
    MeshOptions options;
    options.size = 2;
    options.streams = 1;
    Mesh mesh(options);
    int port = 0;
    const int listener = listenOn("127.0.0.1", port);
    const std::vector<Address> addresses = {{"127.0.0.1", mesh.port()}, {"127.0.0.1", port}};
    std::thread accepting([&] { mesh.connect(addresses, "key", 10); });
    std::vector<int> strangers;
    for (int i = 0; i < 20; i++) strangers.push_back(stranger(mesh.port()));
    options.rank = 1;
    const auto fds = joinPeers(listener, options, "key", 2, addresses, 10)[0];
    accepting.join();
    for (const int fd : fds) ::close(fd);
    for (const int fd : strangers) ::close(fd);
    return static_cast<int>(strangers.size());
  }

  /** How meshes ended; a generator that reaches too little tests too little. */
  void covered(int meshes) const {
    size_t kinds = 0;
    for (const auto& [how, times] : ends_) {
      std::printf("  %6d  %s\n", times, how.c_str());
      kinds++;
    }
    if (meshes < 60) return;
    for (const char* const how : {"rank 1 sent what is no frame", "rank 1 sent data that nobody awaits",
                                  "rank 1 sent a fault of no kind, or of no rank", "rank 1 has gone away", "told", "mismatch"}) {
      check(ends_.count(how) > 0, std::string("some meshes end so: ") + how);
    }
  }

 private:
  /** What the mesh found itself, or "told". */
  static std::string nameOf(const MeshFault& fault) {
    if (fault.message.rfind("rank 1 sent", 0) == 0 || fault.message.rfind("rank 1 has ", 0) == 0) return fault.message;
    const bool contradicts = fault.message.find(" submitted ") != std::string::npos || fault.message.find(" awaits ") != std::string::npos;
    return contradicts ? "mismatch" : "told";
  }

  bool one(unsigned of) { return random_() % of == 0; }

  /** A number that somebody might have forgotten. */
  uint64_t odd() {
    const uint64_t numbers[] = {0, 1, 2, 63, 64, 4095, 4096, 4097, segment - 1, segment, segment + 1, uint64_t{1} << 30,
                                (uint64_t{1} << 30) + 1, INT32_MAX, UINT32_MAX, uint64_t{1} << 32, INT64_MAX, UINT64_MAX,
                                UINT64_MAX - segment, uint64_t{1} << 63};
    return one(4) ? (static_cast<uint64_t>(random_()) << 32 | random_()) >> random_() % 64 : numbers[random_() % std::size(numbers)];
  }

  /** A frame that the mesh would take, and where it belongs. */
  RawFrame right(const std::vector<size_t>& sizes, size_t& connection, std::string& behind) {
    RawFrame frame;
    frame.type = static_cast<uint8_t>(random_() % 5);
    frame.communicator = 1;
    frame.position = 1;
    frame.part = random_() % sizes.size();
    connection = frame.type == rawData ? 1 + random_() % Besieged::streams : 0;
    const size_t bytes = sizes[frame.part];
    if (frame.type == rawData) {
      frame.offset = random_() % ((bytes + segment - 1) / segment) * segment;
      frame.length = std::min<uint64_t>(segment, bytes - frame.offset);
      behind.assign(frame.length, 'd');
    } else if (frame.type == rawReady) {
      frame.offset = 7;
      frame.length = bytes;
      if (one(6)) frame.part = UINT32_MAX;
    } else if (frame.type == rawFault) {
      // Ends everything, so not too often.
      if (!one(8)) frame.type = rawHeartbeat;
      frame.kind = static_cast<uint8_t>(random_() % 4);
      frame.offset = random_() % 2;
    }
    if (frame.type != rawData && one(3)) behind.assign(random_() % 300, 't');
    if (frame.type != rawData) frame.textBytes = behind.size();
    return frame;
  }

  void send(Besieged& besieged, const std::vector<size_t>& sizes) {
    size_t connection = 0;
    std::string behind;
    RawFrame frame = right(sizes, connection, behind);
    if (one(3)) {
      switch (random_() % 10) {
        case 0: frame.magic ^= 1u << random_() % 32; break;
        case 1: frame.type = static_cast<uint8_t>(one(2) ? random_() % 7 : random_()); break;
        case 2:
          frame.type = rawFault;
          connection = 0;
          (one(2) ? frame.offset : frame.length) = odd();
          frame.kind = static_cast<uint8_t>(one(2) ? random_() : random_() % 4);
          break;
        case 3: frame.communicator = static_cast<uint32_t>(odd()); break;
        case 4: frame.position = static_cast<uint32_t>(odd()); break;
        case 5: frame.part = static_cast<uint32_t>(odd()); break;
        case 6: frame.offset = odd(); break;
        case 7: frame.length = odd(); break;
        case 8: frame.textBytes = odd(); break;
        default: connection = random_() % (1 + Besieged::streams); break;
      }
    }
    std::string bytes = bytesOf(frame, behind);
    if (one(20)) bytes[random_() % bytes.size()] ^= static_cast<char>(1u << random_() % 8);
    if (one(60)) bytes.resize(random_() % bytes.size());
    besieged.write(connection, bytes);
  }

  int stranger(int port) {
    const int fd = connectTo(port);
    // A hello as handshake.cc has it: whose it is, who connects to whom by which connection, and a number used once.
    std::string hello = hello_;
    const uint32_t ends[] = {one(8) ? static_cast<uint32_t>(odd()) : 1, one(8) ? static_cast<uint32_t>(odd()) : 0,
                             one(8) ? static_cast<uint32_t>(odd()) : static_cast<uint32_t>(random_() % 2)};
    hello.append(reinterpret_cast<const char*>(ends), sizeof ends);
    for (int i = 0; i < 200; i++) hello += static_cast<char>(random_());
    if (one(3)) hello[random_() % hello.size()] ^= static_cast<char>(1u << random_() % 8);
    hello.resize(one(2) ? hello.size() : random_() % hello.size());
    [[maybe_unused]] const ssize_t sent = ::send(fd, hello.data(), hello.size(), MSG_NOSIGNAL);
    return fd;
  }

  const std::string hello_ = "TANDEM01";
  std::mt19937 random_;
  std::map<std::string, int> ends_;
};

}  // namespace

void fuzz(int frames, unsigned seed) {
  Fuzz fuzz(seed);
  int sent = 0;
  int meshes = 0;
  auto said = std::chrono::steady_clock::now();
  while (sent < frames) {
    sent += meshes % 50 == 0 ? fuzz.door() : fuzz.siege();
    meshes++;
    if (std::chrono::steady_clock::now() - said < std::chrono::seconds(10)) continue;
    said = std::chrono::steady_clock::now();
    std::printf("  %d of %d frames\n", sent, frames);
    std::fflush(stdout);
  }
  std::printf("wire: %d frames and hellos at random, at %d meshes, which ended so:\n", sent, meshes);
  fuzz.covered(meshes);
}

}  // namespace tandem
