// Machines that follow each other on one mesh: each begins its positions anew, and must not take the last one's words for its own.
#include <thread>

#include "../../cpu/machine.h"
#include "../../rank.h"
#include "../../transport/mesh-peers.h"
#include "meshes.h"

namespace tandem {

namespace {

/** A message from rank 0 to rank 1, again and again: rank 1 only says that it is ready, rank 0 only that it has come. */
void follow(Mesh& mesh, int rank, uint32_t session) {
  MeshPeers peers(mesh, session);
  MachineOptions options;
  options.mesh = &peers;
  options.peers = &peers;
  options.firstRank = rank;
  const auto machine = openBackend("cpu", options);
  Device& device = machine->device(0);
  const Block block = device.allocate(Place::device, 4, 1);
  Operand value;
  value.data = block.data;
  value.shape = {1};
  value.elements = 1;
  value.sizeBytes = 4;
  const auto sent = static_cast<float>(session + 1);
  if (rank == 0) device.upload(1, value, &sent, 1, noEvents);
  Call call;
  call.kernel = "send_recv";
  call.lane = 1;
  call.group = Group{"pair", {0, 1}};
  call.attributes["wire"] = std::string();
  call.attributes["source"] = rank == 0;
  (rank == 0 ? call.inputs : call.outputs).push_back(value);
  const auto task = device.prepare(call);
  device.submit(1, *task, pointOf(0), noEvents, nullptr);
  device.wait(1, pointOf(0));
  check(!machine->fault(), "session " + std::to_string(session) + ": " + (machine->fault() ? machine->fault()->message : ""));
  float got = 0;
  if (!device.download(1, value, &got, pointOf(0) + 1, noEvents)) device.wait(1, pointOf(0) + 1);
  check(got == sent, "session " + std::to_string(session) + " receives its own");
}

}  // namespace

void sessions() {
  const Meshes meshes = meshesOf(2, 1);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; rank++) {
    threads.emplace_back([&, rank] {
      for (uint32_t session = 0; session < 300; session++) follow(*meshes[static_cast<size_t>(rank)], rank, session);
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace tandem
