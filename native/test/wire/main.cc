// What a mesh takes from a peer that does not keep to the protocol: it ends with a fault that names the peer, and touches nothing.
// Only the connections are linked here, so that the suite can build it under AddressSanitizer in seconds.
//   native/test/run.sh wire          these, and 2,000 frames at random
//   TANDEM_FUZZ=100000 TANDEM_SEED=3 native/test/run.sh wire
#include <mutex>
#include <optional>
#include <stdexcept>

#include "../../transport/sha256.h"
#include "../loopback.h"
#include "../mesh-pair.h"
#include "raw-peer.h"

using namespace tandem;

namespace {

/** After a frame that is none nothing more is read of that connection, and the peer learns why. */
void headers() {
  struct Bad {
    const char* what;
    RawFrame frame;
    size_t connection;
    const char* says;
  };
  const auto of = [](RawType type, auto change) {
    RawFrame frame;
    frame.type = type;
    change(frame);
    return frame;
  };
  const auto nothing = [](RawFrame&) {};
  const std::vector<Bad> bads = {
      {"no magic", of(rawNote, [](RawFrame& f) { f.magic = 7; }), 0, "no frame"},
      {"no type", of(static_cast<RawType>(9), nothing), 0, "no frame"},
      {"a text without end", of(rawReady, [](RawFrame& f) { f.textBytes = UINT64_MAX; }), 0, "no frame"},
      {"a text too long", of(rawFault, [](RawFrame& f) { f.textBytes = 4097; }), 0, "no frame"},
      {"a note too long", of(rawNote, [](RawFrame& f) { f.textBytes = (uint64_t{1} << 30) + 1; }), 0, "no frame"},
      {"data among words", of(rawData, [](RawFrame& f) { f.length = 4; }), 0, "no frame"},
      {"words among data", of(rawNote, nothing), 1, "no frame"},
      {"data with a text", of(rawData, [](RawFrame& f) { f.textBytes = 8; }), 1, "no frame"},
      {"memory of who is no neighbour", of(rawLent, [](RawFrame& f) { f.textBytes = 8; }), 1, "no frame"},
      {"what no neighbour takes", of(rawTaken, nothing), 1, "no frame"},
      {"memory among words", of(rawLent, [](RawFrame& f) { f.textBytes = 8; }), 0, "no frame"},
      {"data for nobody", of(rawData, [](RawFrame& f) { f.length = 4; }), 1, "nobody awaits"},
      {"a fault of no kind", of(rawFault, [](RawFrame& f) { f.kind = 200; }), 0, "no kind"},
      {"a fault of no rank", of(rawFault, [](RawFrame& f) { f.offset = 2; }), 0, "no rank"},
      {"a fault of rank -1", of(rawFault, [](RawFrame& f) { f.offset = UINT64_MAX; }), 0, "no rank"},
  };
  for (const Bad& bad : bads) {
    Besieged besieged;
    // What comes behind is not taken for its text.
    besieged.write(bad.connection, bytesOf(bad.frame, std::string(200'000, 'x')));
    const MeshFault fault = besieged.fault(bad.what);
    check(fault.kind == MeshFault::Kind::protocol && fault.rank == 1, std::string(bad.what) + ": whose");
    check(fault.message.find(bad.says) != std::string::npos, std::string(bad.what) + ": " + fault.message);
    const std::string told = besieged.heard(rawFault);
    check(told.find(bad.says) != std::string::npos, std::string(bad.what) + ": the peer is told");
    // Its threads look at the connection once more before they end.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

/** A transfer takes each of its segments once, and no byte beyond. */
void segments() {
  const size_t bytes = 2 * segment + 100;
  const auto data = [&](uint64_t offset, uint64_t length) {
    RawFrame frame;
    frame.type = rawData;
    frame.communicator = 1;
    frame.position = 1;
    frame.offset = offset;
    frame.length = length;
    return bytesOf(frame, std::string(length, 'd'));
  };
  struct Sent {
    uint64_t offset;
    uint64_t length;
  };
  const std::vector<std::vector<Sent>> wrong = {
      {{0, segment}, {0, segment}},      {{0, 4}},           {{segment, segment + 4}}, {{2 * segment, 101}},
      {{bytes, 1}},                      {{0, 0}},           {{4, segment}},           {{UINT64_MAX - 3, 8}},
      {{0, segment}, {segment, segment}, {segment, segment}},
  };
  for (const auto& frames : wrong) {
    Besieged besieged;
    std::vector<char> to(bytes);
    Exchange exchange(*besieged.mesh, 1, 1, {7, "a test"});
    exchange.receive(1, 0, to.data(), bytes, 0);
    for (const Sent& sent : frames) besieged.write(1, data(sent.offset, std::min<uint64_t>(sent.length, 2 * segment)));
    check(!exchange.waitAll(), "what was sent twice, or not whole, does not do");
    check(besieged.mesh->fault()->message.find("nobody awaits") != std::string::npos, "says so");
  }
  Besieged besieged;
  std::vector<char> to(bytes);
  Exchange exchange(*besieged.mesh, 1, 1, {7, "a test"});
  exchange.receive(1, 0, to.data(), bytes, 0);
  besieged.write(2, data(2 * segment, 100));
  besieged.write(1, data(segment, segment) + data(0, segment));
  check(exchange.waitAll() && to.front() == 'd' && to.back() == 'd', "in any order, by any connection");
}

template <class Body>
void refused(const std::string& what, const std::string& says, Body body) {
  try {
    body();
  } catch (const std::invalid_argument& error) {
    check(std::string(error.what()).find(says) != std::string::npos, what + ": " + error.what());
    return;
  }
  check(false, what + " is refused");
}

/** What a program asks of its own mesh. */
void requests() {
  MeshOptions options;
  options.size = 2;
  Mesh alone(options);
  refused("a note before connecting", "not connected", [&] { alone.note(1, "x"); });
  check(alone.sentBytes(1) == 0, "nothing is sent before connecting");
  Besieged besieged;
  Mesh& mesh = *besieged.mesh;
  for (const int peer : {-1, 2, 1 << 30}) {
    refused("a note to nobody", "ranks 0 to 1", [&] { mesh.note(peer, "x"); });
    refused("traffic of nobody", "ranks 0 to 1", [&] { mesh.sentBytes(peer); });
    refused("a member that is nobody", "ranks 0 to 1", [&] { Exchange(mesh, 1, 1, {1, "a test"}, {0, peer}); });
  }
  {
    Exchange exchange(mesh, 1, 1, {1, "a test"});
    char byte = 0;
    refused("a message to oneself", "itself", [&] { exchange.send(0, 0, &byte, 1, 0); });
    refused("a message of nobody", "ranks 0 to 1", [&] { exchange.receive(3, 0, &byte, 1, 0); });
    refused("the same collective twice", "under way", [&] { Exchange(mesh, 1, 1, {1, "a test"}); });
  }
  // A message that is longer than a fault may be arrives cut, not as what is no frame.
  mesh.fail({MeshFault::Kind::told, 0, std::string(10'000, 'm')});
  const std::string told = besieged.heard(rawFault);
  check(told.size() == sizeof(RawFrame) + 4096, "of a long message, the first 4 KiB");
}

/** Whoever leaves because another has failed says so: its end may be heard before that other is. */
void leaving() {
  Besieged besieged;
  RawFrame fault;
  fault.type = rawFault;
  fault.kind = static_cast<uint8_t>(MeshFault::Kind::told);
  fault.offset = 1;
  check(besieged.write(0, textFrame(fault, "the disk is full")), "a fault is told");
  besieged.fault("of another");
  std::thread leaves([&] { besieged.mesh.reset(); });
  const std::string told = besieged.heard(rawFault);
  leaves.join();
  check(told.size() > sizeof(RawFrame) && told.substr(sizeof(RawFrame)) == "the disk is full", "on leaving, what failed");
  RawFrame said;
  std::memcpy(&said, told.data(), sizeof said);
  check(said.offset == 1, "and whose fault it is");
}

/** Whoever leaves waits until its goodbye has come, as far as a second allows: what is on its way to a connection that is closed is lost
 * as soon as the peer says anything more. */
void slowGoodbye() {
  Besieged besieged;
  // A peer that does not read for a while, and has little room.
  const int room = 16384;
  ::setsockopt(besieged.fds[0], SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  besieged.mesh->note(1, std::string(60'000, 'n'));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  std::thread leaves([&] { besieged.mesh.reset(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  std::string heard;
  char buffer[1 << 14];
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  ssize_t n = 1;
  while (n != 0 && std::chrono::steady_clock::now() < deadline) {
    // It lives, and says so.
    [[maybe_unused]] const ssize_t sent = ::send(besieged.fds[0], bytesOf(RawFrame()).data(), sizeof(RawFrame), MSG_NOSIGNAL);
    n = ::recv(besieged.fds[0], buffer, sizeof buffer, 0);
    if (n > 0) heard.append(buffer, static_cast<size_t>(n));
    if (n < 0 && errno != EAGAIN) break;
    if (n < 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  leaves.join();
  check(heard.size() > 60'000, "all that was said before a goodbye comes, of 60,000 B " + std::to_string(heard.size()));
  RawFrame last;
  std::memcpy(&last, heard.data() + heard.size() - sizeof last, sizeof last);
  check(last.type == rawBye, "and the goodbye");
}

/** The program's thread may ask for anything while another connects. */
void early() {
  for (int i = 0; i < 20; i++) {
    MeshPair pair(2);
    Mesh& first = pair.first;
    Mesh& second = pair.second;
    std::thread one([&] { first.connect(pair.addresses, "key", 10); });
    std::thread other([&] { second.connect(pair.addresses, "key", 10); });
    bool said = false;
    while (!said) {
      try {
        if (first.sentBytes(1) > 0) break;
        first.note(1, "early");
        said = true;
      } catch (const std::invalid_argument&) {
      }
      if (i % 2 == 0) first.fail({MeshFault::Kind::told, 0, "given up while connecting"});
    }
    one.join();
    other.join();
    if (i % 2 != 0) continue;
    for (int waits = 0; waits < 500 && !second.failed(); waits++) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    check(second.failed() && second.fault()->message == "given up while connecting", "a fault from before reaches the others");
  }
}

/** A peer proves itself, gives up before it hears that it is welcome, and comes again: the newer connection counts. */
void again() {
  std::string heard;
  std::mutex mutex;
  Mesh mesh(oneOfTwo(0));
  const std::vector<Address> addresses = {{"127.0.0.1", mesh.port()}, {"127.0.0.1", 1}};
  std::thread accepting([&] { mesh.connect(addresses, "key", 10); });
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  // A hello and its proof as handshake.cc has them.
  const auto come = [&](uint32_t connection) {
    const int fd = connectTo(mesh.port());
    const uint32_t numbers[] = {1, 0, connection};
    const std::string ends(reinterpret_cast<const char*>(numbers), sizeof numbers);
    const std::string own = freshMark();
    std::string challenge(16 + 32, '\0');
    check(sendWhole(fd, "TANDEM01" + ends + own, deadline) && receiveWhole(fd, challenge, deadline), "a challenge");
    const Digest256 proof = hmacSha256("key", "connect" + own + challenge.substr(0, 16) + ends);
    std::string welcome(1, '\0');
    check(sendWhole(fd, std::string(proof.begin(), proof.end()), deadline), "a proof is taken");
    check(receiveWhole(fd, welcome, deadline) && welcome == "+", "whoever comes again is welcome");
    return fd;
  };
  ::close(come(0));
  const int words = come(0);
  const int data = come(1);
  accepting.join();
  RawFrame note;
  note.type = rawNote;
  const std::string bytes = textFrame(note, "by the newer");
  check(sendWhole(words, bytes, deadline), "words go by the newer connection");
  mesh.onNote([&](int, const std::optional<std::string>& text) {
    const std::lock_guard lock(mutex);
    heard = text.value_or("a goodbye");
  });
  for (int waits = 0; waits < 500; waits++) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    const std::lock_guard lock(mutex);
    if (!heard.empty()) break;
  }
  check(heard == "by the newer" && !mesh.failed(), "and arrive");
  ::close(words);
  ::close(data);
}

/** Many that connect and say nothing do not hold up whoever is awaited. */
void crowd() {
  MeshPair pair;
  std::vector<int> silent;
  for (int i = 0; i < 200; i++) silent.push_back(connectTo(pair.first.port()));
  const auto began = std::chrono::steady_clock::now();
  std::thread accepting([&] { pair.first.connect(pair.addresses, "key", 30); });
  pair.second.connect(pair.addresses, "key", 30);
  accepting.join();
  check(std::chrono::steady_clock::now() - began < std::chrono::seconds(4), "a crowd holds nobody up");
  for (const int fd : silent) ::close(fd);
}

/** Whoever connects can be told to give up, wherever it waits. */
void givingUp() {
  const auto gaveUp = [](const std::string& where, Mesh& mesh, const std::vector<Address>& addresses) {
    std::string why;
    std::thread connecting([&] {
      try {
        mesh.connect(addresses, "key", 60);
      } catch (const NoMesh& error) {
        why = error.what();
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    const auto began = std::chrono::steady_clock::now();
    mesh.giveUp();
    connecting.join();
    check(std::chrono::steady_clock::now() - began < std::chrono::seconds(3), where + ": soon");
    check(why.find("given up") != std::string::npos, where + ": " + why);
  };
  {
    Mesh mesh(oneOfTwo(0));
    gaveUp("waiting for who does not come", mesh, {{"127.0.0.1", mesh.port()}, {"127.0.0.1", 1}});
  }
  int port = 0;
  const Fd silent(listenOn("127.0.0.1", port));
  {
    Mesh mesh(oneOfTwo(1));
    gaveUp("waiting for who says nothing", mesh, {{"127.0.0.1", port}, {"127.0.0.1", mesh.port()}});
  }
  {
    Mesh mesh(oneOfTwo(1));
    gaveUp("trying where nobody listens", mesh, {{"127.0.0.1", 1}, {"127.0.0.1", mesh.port()}});
  }
  // A peer that has proved itself, and says nothing of transports.
  MeshOptions options = oneOfTwo(0);
  options.transport = Transport::automatic;
  Mesh mesh(options);
  const std::vector<Address> addresses = {{"127.0.0.1", mesh.port()}, {"127.0.0.1", port}};
  std::vector<int> fds;
  std::thread peer([&] {
    MeshOptions theirs = options;
    theirs.rank = 1;
    int own = 0;
    fds = joinPeers(listenOn("127.0.0.1", own), theirs, "key", 2, addresses, 10)[0];
  });
  gaveUp("waiting for what a peer has", mesh, addresses);
  peer.join();
  for (const int fd : fds) ::close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  headers();
  segments();
  requests();
  early();
  leaving();
  slowGoodbye();
  again();
  crowd();
  givingUp();
  lending();
  overUcx();
  const int frames = argc > 1 ? std::atoi(argv[1]) : 2000;
  const unsigned seed = argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 1;
  fuzz(frames, seed);
  std::printf("wire: %d checks hold\n", checks.load());
  return 0;
}
