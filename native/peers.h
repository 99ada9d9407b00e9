// The ranks of other processes, as a backend with a transport of its own needs them: to come together, to hold everybody to one
// order, and to learn that somebody is gone. Knows nothing of how they are reached.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "backend.h"
#include "cpu/shared.h"

namespace tandem {

/** What a rank says of a collective that it submits; all members must say the same. */
struct Meaning {
  uint64_t digest = 0;
  /** For people: "all_reduce of 4096 B". */
  std::string text;
};

/** A group's ranks, in group order, as they communicate in one lane. */
struct Circle {
  Group group;
  int lane = 0;
  bool operator<(const Circle& other) const {
    return std::tie(lane, group.name, group.members) < std::tie(other.lane, other.group.name, other.group.members);
  }
};

/** A collective that the other members are told of. Its end waits until all have told of theirs, or somebody is gone. */
class Announcement {
 public:
  virtual ~Announcement() = default;
};

class Peers {
 public:
  virtual ~Peers() = default;

  virtual int rank() const = 0;
  /** Ranks of the world. */
  virtual int size() const = 0;
  /** One that is silent for so long is lost, and a fault here. */
  virtual double lostAfterSeconds() const = 0;

  /** No two of these are reached at one host's address: what goes between them shares no adapter. All ranks say the same. */
  virtual bool areApart(const std::vector<int>& ranks) const = 0;

  /** From now on a fault here is one of the others, and theirs is one here. `shared` outlives this, or the next `unlink`. */
  virtual void link(Shared& shared) = 0;
  virtual void unlink() = 0;
  /** A lane's thread begins what others take part in; false when the machine is closing. */
  virtual bool enter() = 0;
  virtual void leave() = 0;

  /** What the first member says, at every one of them. Waits for it; throws OpFault when somebody is gone. */
  virtual std::string fromFirst(const Circle& circle, const std::string& own) = 0;
  /** What others would be told of this call. Throws BadCall for one that cannot be. */
  virtual Meaning meaningOf(const Call& call, size_t member) const = 0;
  /** Tells the circle of its collective `position`; who submits another one ends the run. Waits for nobody. */
  virtual std::unique_ptr<Announcement> announce(const Circle& circle, uint32_t position, const Meaning& meaning) = 0;
};

}  // namespace tandem
