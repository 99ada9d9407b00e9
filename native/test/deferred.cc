// What the deferred backend is for: right programs give their values under every order that it draws, and programs that are
// wrong in a way that a quick device hides give others.
#include <algorithm>
#include <functional>

#include "world.h"

namespace tandem {

namespace {

constexpr int seeds = 20;
constexpr int64_t width = 64;

/** In how many of the orders a program's values are what they should be. */
int rightOnes(const std::function<bool(World&)>& program) {
  int right = 0;
  for (int seed = 0; seed < seeds; seed++) {
    World world({"deferred", seed}, 1);
    right += program(world) ? 1 : 0;
    expect(!world.machine->fault().has_value(), world.fault());
  }
  return right;
}

bool all(const std::vector<float>& values, float expected) {
  for (const float value : values) {
    if (value != expected) return false;
  }
  return true;
}

int32_t scaled(World& world, int lane, int32_t from, int32_t to, double factor) {
  return world.ranks[0]->prepare(callOf("scale", lane, {{"factor", factor}}), {from}, {to});
}

/** b = 2a on one lane and c = 3b on another; right with the edge between them. */
bool chain(World& world, bool edge) {
  Rank& rank = *world.ranks[0];
  const int32_t a = world.tensor(0, {width}, std::vector<float>(width, 1));
  const int32_t b = world.tensor(0, {width}, std::vector<float>(width, 7));
  const int32_t c = world.tensor(0, {width});
  const int32_t first = rank.submit(scaled(world, 0, a, b, 2), nullptr, 0);
  rank.submit(scaled(world, 1, b, c, 3), &first, edge ? 1 : 0);
  return all(world.awaited(0, c, width), 6);
}

/** A buffer is used, given back and had again for other values, as the device has it. */
bool reuse(World& world, bool waits) {
  Device& device = world.machine->device(0);
  Operand used;
  used.shape = {width};
  used.elements = width;
  used.sizeBytes = width * 4;
  used.data = device.allocate(Place::device, used.sizeBytes, 0).data;
  const std::vector<float> ones(width, 1), twos(width, 2);
  std::vector<float> back(width);
  Point at = pointOf(0);
  device.upload(0, used, ones.data(), ++at, noEvents);
  // read on another lane than that which writes the next values
  Events written = noEvents;
  written[0] = at;
  device.download(1, used, back.data(), ++at, written);
  Events last = noEvents;
  last[1] = at;
  device.deallocate(Place::device, used.data, last);
  const Block again = device.allocate(Place::device, used.sizeBytes, 0);
  expect(again.data == used.data, "memory is had again while it is in use");
  device.upload(0, used, twos.data(), ++at, waits ? again.readyAfter : noEvents);
  device.wait(0, at);
  device.wait(1, last[1]);
  device.deallocate(Place::device, used.data, noEvents);
  return all(back, 1);
}

/** A step that is told a number at its launch, and one that goes and looks for it. */
bool scalar(World& world, bool copied) {
  Rank& rank = *world.ranks[0];
  const int32_t params = world.tensor(0, {width}, std::vector<float>(width, 0));
  const int32_t grads = world.tensor(0, {width}, std::vector<float>(width, -1));
  double rate = 1;
  if (!copied) {
    Device& device = world.machine->device(0);
    double seen = 0;
    const auto look = device.hostTask([&] { seen = rate; });
    device.submit(0, *look, pointOf(0), noEvents, nullptr);
    rate = 2;
    device.wait(0, pointOf(0));
    return seen == 1;
  }
  Call step = callOf("sgd", 0, {{"momentum", 0.0},
                                {"dampening", 0.0},
                                {"weightDecay", 0.0},
                                {"nesterov", false},
                                {"shadow", false},
                                {"scaled", false}});
  step.scalars = {"learningRate", "step"};
  const int32_t op = rank.prepare(step, {params, grads}, {params});
  double scalars[] = {1, 1};
  for (int i = 1; i <= 4; i++) {
    scalars[0] = i;
    rank.submit(op, nullptr, 0, scalars, 2);
    scalars[0] = 1e9;
  }
  return all(world.awaited(0, params, width), 10);
}

/** Values that are taken out before or after they are written. */
bool early(World& world, bool waits) {
  Device& device = world.machine->device(0);
  Operand written;
  written.elements = width;
  written.data = device.allocate(Place::device, width * 4, 0).data;
  const std::vector<float> ones(width, 1);
  std::vector<float> values(width);
  Point at = pointOf(0);
  device.fill(0, written, ++at, noEvents);
  device.upload(0, written, ones.data(), ++at, noEvents);
  Events after = noEvents;
  if (waits) after[0] = at;
  device.download(3, written, values.data(), ++at, after);
  device.wait(3, at);
  device.wait(0, at - 1);
  device.deallocate(Place::device, written.data, noEvents);
  return all(values, 1);
}

/** Two tensors in one place of an arena, one after the other, in another lane each; no edges between them. */
bool arena(World& world) {
  Rank& rank = *world.ranks[0];
  const int32_t place = world.nextTensor++;
  expect(rank.allocate(place, Place::device, Dtype::bfloat16, {2048}, false), "an arena");
  const int32_t a = world.tensor(0, {width}, std::vector<float>(width, 1));
  std::vector<int32_t> outs;
  for (int i = 1; i <= 4; i++) {
    const int32_t within = world.nextTensor++;
    rank.view(within, place, 256 * (i % 2), Dtype::float32, {width + 64});
    rank.free(within);
    const int32_t again = world.nextTensor++;
    rank.view(again, place, 256, Dtype::float32, {width});
    outs.push_back(world.tensor(0, {width}));
    const int32_t first = rank.submit(scaled(world, i % 3, a, again, i), nullptr, 0);
    rank.submit(scaled(world, 3, again, outs.back(), 10), &first, 1);
    rank.free(again);
  }
  bool right = true;
  for (int i = 1; i <= 4; i++) right &= all(world.awaited(0, outs[static_cast<size_t>(i - 1)], width), 10.0f * static_cast<float>(i));
  rank.free(place);
  return right;
}

}  // namespace

void deferredPrograms() {
  const auto caught = [](const char* what, bool (*program)(World&, bool)) {
    expect(rightOnes([&](World& world) { return program(world, true); }) == seeds, std::string(what) + ": the right program");
    const int right = rightOnes([&](World& world) { return program(world, false); });
    expect(right < seeds / 2 + seeds / 4, std::string(what) + ": the wrong program is right " + std::to_string(right) + " times");
  };
  caught("an edge", chain);
  caught("memory that is in use", reuse);
  caught("a number that changes after the launch", scalar);
  caught("a read that waits", early);
  expect(rightOnes(arena) == seeds, "views that follow one another");

  // the same seed gives the same order
  const auto order = [](int seed) {
    World world({"deferred", seed}, 1);
    std::vector<int32_t> ids;
    for (int lane = 0; lane < programLanes; lane++) {
      const int32_t a = world.tensor(0, {4}, {1, 2, 3, 4});
      for (int i = 0; i < 3; i++) world.ranks[0]->submit(scaled(world, lane, a, a, 2), nullptr, 0);
    }
    world.drain();
    std::vector<OpTime> times = world.ranks[0]->takeTimes();
    std::sort(times.begin(), times.end(), [](const OpTime& a, const OpTime& b) { return a.end < b.end; });
    for (const OpTime& time : times) ids.push_back(time.op);
    return ids;
  };
  expect(order(5) == order(5), "one seed, one order");
  expect(order(5) != order(6), "another seed, another order");
}

}  // namespace tandem
