// That times of ops are put into the order in which they ran, and no op later than that (cuda/times.h).
#include "../../cuda/times.h"

#include <map>
#include <random>

#include "graphs.h"

namespace tandem::cuda {

namespace {

Events after(int lane, Point point) {
  Events events = noEvents;
  events[static_cast<size_t>(lane)] = point;
  return events;
}

/** Of an op, its start and end. */
bool ran(const OpTime& time, int32_t op, int64_t start, int64_t end) { return time.op == op && time.start == start && time.end == end; }

void clamped() {
  OrderedTimes times;
  // by half a microsecond an op seems to start before its lane's last one has ended, and one of another lane before what it waits for
  const auto found = times.inOrder({{{1, 1, 90, 95}, after(0, pointOf(0))}, {{0, 0, 0, 100}, noEvents}, {{2, 0, 99, 300}, noEvents}});
  expect(ran(found.at(0), 0, 0, 100) && ran(found.at(1), 1, 100, 100) && ran(found.at(2), 2, 100, 300), "what was waited for ends first");
  // of the call before
  const auto later = times.inOrder({{{3, 1, 250, 310}, after(0, pointOf(2))}});
  expect(later.size() == 1 && ran(later[0], 3, 300, 310), "what ended before the last call, too");
  const auto last = times.inOrder({{{4, 1, 320, 330}, after(0, pointOf(2))}});
  expect(ran(last[0], 4, 320, 330), "and before the one before it");
}

/** A value came into lane 2 after op 1 was submitted, to lane 1: who waits for the value does not wait for op 1. */
void valuesBetween() {
  OrderedTimes times;
  const Point value = pointOf(1) + 1;
  const auto found = times.inOrder({{{0, 2, 0, 10}, noEvents}, {{1, 1, 0, 900}, noEvents}, {{2, 0, 20, 30}, after(2, value)}});
  expect(ran(found[2], 2, 20, 30), "a value that came is not the op before it");
  const auto behind = times.inOrder({{{3, 2, 40, 50}, noEvents}, {{4, 0, 45, 60}, after(2, pointOf(3) + 2)}});
  expect(ran(behind[1], 4, 50, 60), "the lane's own op before it has ended");
}

/** Ops of a run whose events tell each time up to half a microsecond off, with points between ops: nothing moves by more than that. */
void drawn(unsigned seed) {
  std::mt19937 random(seed);
  const auto below = [&](int count) { return static_cast<int>(random() % static_cast<unsigned>(count)); };
  int moved = 0;
  for (int run = 0; run < 200; run++) {
    std::array<int64_t, laneCount> laneEnds{};
    std::vector<TimedOp> told;
    std::array<Point, laneCount> tail{};
    std::map<Point, int64_t> ends;
    for (int32_t op = 0; op < 40; op++) {
      const int lane = below(laneCount);
      Events awaited = noEvents;
      int64_t start = laneEnds[static_cast<size_t>(lane)];
      const int other = below(laneCount);
      if (other != lane && tail[static_cast<size_t>(other)] != noPoint) {
        awaited = after(other, tail[static_cast<size_t>(other)]);
        start = std::max(start, ends[tail[static_cast<size_t>(other)]]);
      }
      start += below(3) == 0 ? below(5'000) : 0;
      const int64_t end = start + below(20'000);
      told.push_back({{op, lane, start + below(1'001) - 500, end + below(1'001) - 500}, awaited});
      laneEnds[static_cast<size_t>(lane)] = end;
      ends[tail[static_cast<size_t>(lane)] = pointOf(op)] = end;
      if (below(3) > 0) continue;
      // a value comes into some lane, behind what is there
      const int into = below(laneCount);
      const Point at = pointOf(op) + 1;
      ends[tail[static_cast<size_t>(into)] = at] = laneEnds[static_cast<size_t>(into)] += below(3'000);
    }
    OrderedTimes times;
    const auto found = times.inOrder(told);
    for (size_t i = 0; i < found.size(); i++) {
      const int64_t by = found[i].start - told[i].time.start;
      expect(by >= 0 && by <= 1'000 && found[i].end >= found[i].start, "no op is moved by more than times are off");
      moved += by > 0 ? 1 : 0;
    }
  }
  expect(moved > 500, "ops that had to be moved");
}

}  // namespace

void times(unsigned seed) {
  clamped();
  valuesBetween();
  drawn(seed);
}

}  // namespace tandem::cuda
