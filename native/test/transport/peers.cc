// Words between programs; peers that vanish, leave or contradict each other; strangers at the door.
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "../../transport/remote.h"
#include "../loopback.h"
#include "../mesh-pair.h"
#include "meshes.h"

namespace tandem {

namespace {

/** What a receive on `mesh` from `peer` ends with. */
MeshFault awaited(Mesh& mesh, int peer) {
  float value = 0;
  Exchange exchange(mesh, 1, 1, {1, "a test"});
  exchange.receive(peer, 0, &value, 4, 0);
  check(!exchange.wait(0), "nothing came");
  return *mesh.fault();
}

}  // namespace

void notes() {
  Meshes meshes = meshesOf(3, 1);
  std::mutex mutex;
  std::vector<std::string> heard;
  for (int i = 0; i < 100; i++) meshes[0]->note(1, "note " + std::to_string(i));
  const std::string large(5'000'000, 'x');
  meshes[0]->note(1, large);
  meshes[0].reset();
  std::atomic<bool> done{false};
  meshes[1]->onNote([&](int peer, const std::optional<std::string>& text) {
    const std::lock_guard lock(mutex);
    check(peer == 0, "who wrote");
    heard.push_back(text.value_or("a goodbye"));
    done = heard.size() == 102;
  });
  for (int i = 0; i < 1000 && !done; i++) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  check(done, "all notes came");
  for (size_t i = 0; i < 100; i++) check(heard[i] == "note " + std::to_string(i), "notes in order");
  check(heard[100] == large && heard[101] == "a goodbye", "a large note, and the goodbye after all of them");
}

void neighbours() {
  check(!Mesh(oneOfTwo(0)).areApart({0, 1}), "nobody is known before all have met");
  const auto place = [](MeshOptions& options) {
    options.host = options.rank < 2 ? "127.0.0.1" : options.rank == 2 ? "127.0.0.2" : "127.0.0.3";
  };
  const Meshes meshes = meshesOf(4, 1, place);
  for (const auto& mesh : meshes) {
    check(mesh->areApart({3, 0, 2}) && mesh->areApart({1}) && mesh->areApart({}), "each at an address of its own");
    check(!mesh->areApart({0, 1}) && !mesh->areApart({2, 1, 3, 0}), "two at one");
  }
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
        Tensor tensor{Dtype::float32, Floats(8, 1.0f), {}};
        Call call;
        call.kernel = r == 0 ? "all_reduce" : "broadcast";
        call.group = Group{"world", {0, 1}};
        call.attributes["wire"] = std::string();
        call.attributes["reduce"] = std::string("sum");
        call.attributes["root"] = 0.0;
        call.inputs = {tensor.operand()};
        call.outputs = {tensor.operand()};
        try {
          RemoteCollective(call, r).run(*meshes[r], 1, 5);
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

void strangers() {
  // Garbage, a slow one and one with another key do not keep the right one out.
  MeshPair pair;
  Mesh thief(oneOfTwo(1));
  std::vector<int> fds;
  std::mt19937 random(3);
  for (int i = 0; i < 40; i++) {
    fds.push_back(connectTo(pair.first.port()));
    std::string noise(random() % 80, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    [[maybe_unused]] const ssize_t sent = ::send(fds.back(), noise.data(), noise.size(), MSG_NOSIGNAL);
  }
  std::thread accepting([&] { pair.first.connect(pair.addresses, "right", 10); });
  try {
    thief.connect(pair.addresses, "wrong", 0.5);
    check(false, "a wrong key must not do");
  } catch (const NoMesh& error) {
    check(std::string(error.what()).find("key") != std::string::npos, error.what());
  }
  pair.second.connect(pair.addresses, "right", 10);
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

}  // namespace tandem
