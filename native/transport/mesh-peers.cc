#include "mesh-peers.h"

#include <utility>
#include <vector>

#include "collective-plan.h"

namespace tandem {

namespace {

/** Names ranks that come together, and what for. */
uint32_t nameOf(const Circle& circle, uint32_t what, uint32_t session) {
  uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&](uint64_t number) { hash = (hash ^ number) * 0x100000001b3u; };
  add(what);
  add(session);
  add(static_cast<uint64_t>(circle.lane));
  for (const char letter : circle.group.name) add(static_cast<uint8_t>(letter));
  for (const int member : circle.group.members) add(static_cast<uint64_t>(member));
  return static_cast<uint32_t>(hash ^ hash >> 32);
}

constexpr uint32_t joining = 1;
constexpr uint32_t telling = 2;
constexpr uint32_t carrying = 3;
constexpr size_t textBytes = 1024;

[[noreturn]] void gone(const Mesh& mesh) {
  const auto fault = mesh.fault();
  throw OpFault(FaultKind::peer, fault ? fault->message : "the transport has ended", fault ? fault->rank : -1);
}

/** Nothing is sent but that this rank has come, and with what; its end waits until all have. */
class Told : public Announcement {
 public:
  Told(Mesh& mesh, uint32_t name, uint32_t position, const Meaning& meaning, const std::vector<int>& members)
      : exchange_(mesh, name, position, meaning, members) {
    exchange_.announce();
  }

 private:
  Exchange exchange_;
};

}  // namespace

void MeshPeers::link(Shared& shared) {
  onFault_ = mesh_.onFault([this, &shared](const MeshFault& fault) {
    // What failed here first has told the mesh.
    if (shared.faulted()) return;
    const bool clash = fault.kind == MeshFault::Kind::mismatch;
    shared.fail({clash ? FaultKind::collective : FaultKind::peer, mesh_.rank(), -1, fault.rank, fault.message});
  });
  shared.onFault([this, &shared] { failed(shared); });
}

void MeshPeers::unlink() {
  if (onFault_) mesh_.forgetFault(*onFault_);
  onFault_.reset();
}

/** Something failed here: others must not wait for this rank. */
void MeshPeers::failed(Shared& shared) {
  const auto fault = shared.fault();
  if (!fault || mesh_.failed()) return;
  std::string message = "rank " + std::to_string(mesh_.rank()) + ": " + fault->message;
  if (fault->kind == FaultKind::closed) {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    // A machine that is closed between collectives is nobody's loss.
    if (inside_ == 0) return;
    message = "rank " + std::to_string(mesh_.rank()) + " has stopped";
  }
  mesh_.fail({MeshFault::Kind::told, mesh_.rank(), std::move(message)});
}

bool MeshPeers::enter() {
  const std::lock_guard lock(mutex_);
  if (!closing_) inside_++;
  return !closing_;
}

void MeshPeers::leave() {
  const std::lock_guard lock(mutex_);
  inside_--;
}

std::string MeshPeers::fromFirst(const Circle& circle, const std::string& own) {
  const int first = circle.group.members.front();
  std::string text = first == mesh_.rank() ? own : std::string();
  text.resize(textBytes);
  Exchange exchange(mesh_, nameOf(circle, joining, session_), 0, {0, "joining a communicator"});
  for (size_t i = 1; i < circle.group.members.size(); i++) {
    const int member = circle.group.members[i];
    if (first == mesh_.rank()) {
      exchange.send(member, 0, text.data(), textBytes, 0);
    } else if (member == mesh_.rank()) {
      exchange.receive(first, 0, text.data(), textBytes, 0);
    }
  }
  if (!exchange.waitAll()) gone(mesh_);
  return text;
}

uint32_t MeshPeers::communicator(const Group& group) const { return nameOf({group, 0}, carrying, session_); }

Meaning MeshPeers::meaningOf(const Call& call, size_t member) const { return CollectivePlan(call, member).meaning; }

std::unique_ptr<Announcement> MeshPeers::announce(const Circle& circle, uint32_t position, const Meaning& meaning) {
  return std::make_unique<Told>(mesh_, nameOf(circle, telling, session_), position, meaning, circle.group.members);
}

}  // namespace tandem
