// Which tasks of a lane are launched together, and when its thread has them (stretches.h, launch-queue.h), and how their times are told
// (times.cc), without a GPU.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <iostream>
#include <random>
#include <string>
#include <thread>

#include "../../cuda/launch-queue.h"
#include "../../cuda/stretches.h"
#include "graphs.h"

namespace tandem::cuda {

namespace {

std::atomic<int> failures{0}, checks{0};

}  // namespace

void expect(bool holds, const std::string& what) {
  checks++;
  if (holds) return;
  failures++;
  std::printf("graphs: %s\n", what.c_str());
}

namespace {

/** A lane as a program sees it: tasks by number, ops counted up, and what became of each submission. */
struct Program {
  Stretches stretches;
  int32_t op = 0;
  /** Tickets that were opened, completed and broken. */
  int opened = 0, completed = 0, broken = 0;
  std::shared_ptr<Stretch> last;

  explicit Program(const Stretches::Limits& limits = {2, 64, 16}) : stretches(limits) {}

  void seen(int64_t ticket) { broken += ticket != 0 ? 1 : 0; }
  Planned submit(int64_t task, bool capturable = true, Before before = Before::nothing, int32_t apart = 1) {
    op += apart;
    if (!capturable && before == Before::nothing) before = Before::program;
    Planned planned = stretches.submit(task, op, capturable, before);
    seen(planned.broken);
    if (planned.opens) {
      opened++;
      last = planned.opens;
    }
    completed += planned.completes ? 1 : 0;
    return planned;
  }
  void step(const std::vector<int64_t>& tasks) {
    for (const int64_t task : tasks) submit(task);
    endStep();
  }
  void endStep() { seen(stretches.close()); }
  void await(int32_t at, bool byProgram = true) { seen(stretches.await(at, byProgram)); }
};

const std::vector<int64_t> plain = {1, 2, 3, 4, 5};

void repeats() {
  Program p;
  p.step(plain);
  p.step(plain);
  expect(p.opened == 0, "what came once or twice is launched op by op");
  for (int i = 0; i < 5; i++) p.step(plain);
  expect(p.opened == 5 && p.completed == 5 && p.broken == 0, "what came twice is launched together from then on");
  expect(p.last != nullptr && p.last->tasks.size() == 5 && p.last->tasks[4] == 5, "all of it");
  expect(p.stretches.kept() == 1, "one stretch is known");
}

void tickets() {
  Program p;
  p.step(plain);
  p.step(plain);
  const Planned first = p.submit(1);
  const Planned second = p.submit(2);
  expect(first.opens != nullptr && first.ticket != 0 && !first.completes, "the first opens");
  expect(second.opens == nullptr && second.ticket == first.ticket && !second.completes, "the second belongs to it");
  p.submit(3);
  p.submit(4);
  const Planned fifth = p.submit(5);
  expect(fifth.completes && fifth.ticket == first.ticket, "the last completes");
  const Planned beyond = p.submit(6);
  expect(beyond.ticket == 0, "what follows is in none");
  p.endStep();
  expect(p.submit(1).ticket > first.ticket, "tickets rise");
}

/** A tensor that was allocated anew, or has another shape, comes with an op prepared anew: another task. */
void changes() {
  Program p;
  for (int i = 0; i < 3; i++) p.step(plain);
  const int before = p.completed;
  p.step({1, 2, 9, 4, 5});
  expect(p.completed == before && p.broken == 1, "another task ends what was expected");
  for (int i = 0; i < 6; i++) p.step({1, 2, 9, 4, 5});
  expect(p.completed >= before + 4, "the new order is learnt: " + std::to_string(p.completed - before));
  const auto& tasks = p.last->tasks;
  expect(std::count(tasks.begin(), tasks.end(), 9) == 1, "and it is the new one that is expected");

  Program apart;
  apart.step(plain);
  apart.step(plain);
  apart.submit(1);
  apart.submit(2);
  apart.submit(3, true, Before::nothing, 7);
  apart.submit(4);
  apart.submit(5);
  expect(apart.broken == 0 && apart.completed == 1, "ops of other lanes in between are told at the launch: the same");

  Program shorter;
  for (int i = 0; i < 3; i++) shorter.step(plain);
  shorter.step({1, 2, 3});
  expect(shorter.broken == 1, "a step that ends early");
}

void ends() {
  Program p;
  for (int i = 0; i < 4; i++) {
    p.submit(1);
    p.submit(2);
    p.submit(3);
    p.submit(100, false);
    p.submit(4);
    p.submit(5);
    p.submit(6, true, Before::program);
    p.submit(7);
    p.endStep();
  }
  // from the third step on: 1 2 3, 4 5, 6 7
  expect(p.completed == 6 && p.broken == 0, "ends where a graph cannot hold an op, and before what waits: " + std::to_string(p.completed));
  expect(p.stretches.kept() == 3, "three stretches are known");

  Program awaited;
  for (int i = 0; i < 5; i++) {
    const int32_t first = awaited.op + 1;
    for (int64_t task = 1; task <= 6; task++) awaited.submit(task);
    // of the third task, by another lane, when more has been submitted; until it is known the whole may be launched as one
    awaited.await(first + 2);
    awaited.endStep();
  }
  expect(awaited.last->tasks.size() == 3 && awaited.last->tasks[0] == 4, "whoever is waited for ends a stretch");

  Program endless;
  for (int i = 0; i < 4; i++) {
    for (const int64_t task : plain) endless.submit(task);
    // whose program waits for the last op and never ends a step
    endless.await(endless.op);
  }
  expect(endless.completed == 2 && endless.broken == 0, "a wait for what came last ends a stretch as the end of a step does");

  Program midway;
  midway.step(plain);
  midway.step(plain);
  midway.submit(1);
  midway.submit(2);
  midway.await(midway.op);
  expect(midway.broken == 1, "who is waited for is launched at once");
  expect(midway.submit(3).ticket == 0, "and the rest is not expected any more");
  midway.await(0);
  expect(midway.broken == 1, "an op of an earlier step is waited for in vain");
}

void lengths() {
  Program few({4, 64, 16});
  for (int i = 0; i < 4; i++) few.step({1, 2, 3});
  expect(few.opened == 0 && few.stretches.kept() == 0, "three tasks are not worth a graph");

  Program many({2, 8, 16});
  std::vector<int64_t> tasks;
  for (int64_t task = 0; task < 20; task++) tasks.push_back(task + 1);
  for (int i = 0; i < 4; i++) many.step(tasks);
  expect(many.completed == 6 && many.broken == 0, "twenty tasks are 8, 8 and 4");
}

void bounded() {
  Program p({2, 64, 4});
  for (int64_t task = 10; task < 1000; task += 10) {
    for (int i = 0; i < 3; i++) p.step({task, task + 1, task + 2});
    expect(p.stretches.kept() <= 4, "no more are kept");
  }
  expect(p.completed == 99, "each was launched together once");
  const std::shared_ptr<Stretch> held = p.last;
  expect(!held->dropped, "the newest is known");
  for (int64_t task = 2000; task < 2050; task += 10) p.step({task, task + 1, task + 2});
  expect(held->dropped, "what was not seen for longest is forgotten, and says so");
  p.step({990, 991, 992});
  expect(p.completed == 99, "and is not expected any more");
}

void refusals() {
  Program p;
  for (int i = 0; i < 3; i++) p.step(plain);
  p.last->refused = true;
  const int before = p.opened;
  for (int i = 0; i < 3; i++) p.step(plain);
  expect(p.opened == before, "what cannot be a graph is not tried again");

  // the second half varies for ever
  Program vain;
  vain.step(plain);
  vain.step(plain);
  for (int64_t i = 0; i < 50; i++) vain.step({1, 2, 100 + i, 4, 5});
  expect(vain.broken > 0 && vain.broken <= 5, "what is expected in vain is soon not expected: " + std::to_string(vain.broken));

  Program late;
  for (int i = 0; i < 3; i++) late.step(plain);
  late.last->givenUp = 10;
  const int opened = late.opened;
  late.step(plain);
  expect(late.opened == opened, "nor what the lane did not wait for");
}

/** Of tasks that came since the last call, how many were launched together. */
struct Counted {
  Program p;
  int together = 0, all = 0;

  explicit Counted(const Stretches::Limits& limits = {4, 1024, 256, 4}) : p(limits) {}
  Planned submit(int64_t task, Before before = Before::nothing, int32_t apart = 1) {
    Planned planned = p.submit(task, true, before, apart);
    all++;
    if (planned.completes) together += static_cast<int>(p.last->tasks.size());
    return planned;
  }
  int percent() {
    const int share = 100 * together / all;
    together = all = 0;
    return share;
  }
};

constexpr int layers = 8, perLayer = 6;

/** Each step of a period sends another layer: the number of an op is gone in between, and somebody waits, or nobody. */
void messages() {
  for (const bool awaited : {false, true}) {
    Counted c;
    const auto period = [&] {
      for (int sent = 0; sent < layers; sent++) {
        int32_t apart = 1;
        for (int layer = 0; layer < layers; layer++) {
          for (int i = 0; i < perLayer; i++) {
            c.submit(1 + perLayer * layer + i, Before::nothing, std::exchange(apart, 1));
          }
          if (layer != sent) continue;
          apart = 2;
          if (awaited) c.p.await(c.p.op);
        }
        c.p.endStep();
      }
    };
    period();
    c.percent();
    period();
    const int share = c.percent();
    expect(share >= (awaited ? 80 : 100), "steps that send other layers: " + std::to_string(share) + " %");
  }
}

/** Each step of a period waits for another layer, and does something besides before it, which no other step does. */
void arrivals() {
  Counted c;
  const auto period = [&] {
    for (int arrives = 0; arrives < layers; arrives++) {
      for (int layer = 0; layer < layers; layer++) {
        if (layer == arrives) c.submit(1000 + layer, Before::program, 2);
        for (int i = 0; i < perLayer; i++) c.submit(1 + perLayer * layer + i);
      }
      c.p.endStep();
    }
  };
  for (int i = 0; i < 2; i++) period();
  c.percent();
  period();
  const int share = c.percent();
  expect(share >= 80, "steps that wait before other layers: " + std::to_string(share) + " %");
}

/** One step in five has other tasks between all of the others: it goes another way from where it differs, always the same. */
void rare() {
  Counted c;
  const auto period = [&] {
    for (int step = 0; step < 5; step++) {
      for (int64_t task = 1; task <= 30; task++) {
        c.submit(task);
        if (step == 4) c.submit(100 + task);
      }
      c.p.endStep();
    }
  };
  for (int i = 0; i < 4; i++) period();
  c.percent();
  period();
  const int share = c.percent();
  expect(share >= 95, "a step that comes now and then: " + std::to_string(share) + " %");
}

/** Values come and go at any time; what is cut for them is whole again the next time. */
void passing() {
  Counted c;
  for (int step = 0; step < 20; step++) {
    for (int64_t task = 1; task <= 20; task++) {
      c.submit(task, step < 5 && task % 5 == 3 ? Before::layer : Before::nothing);
      if (step < 5 && task % 7 == 0) c.p.await(c.p.op, false);
    }
    c.p.endStep();
  }
  expect(c.p.last->tasks.size() == 20, "nothing is left of what the layer did: " + std::to_string(c.p.last->tasks.size()));
}

void seams() {
  Seams s({10, 6});
  expect(!s.between(1, 2), "none at first");
  s.cut(1, 2);
  expect(s.between(1, 3), "whatever follows begins there");
  expect(s.between(4, 3), "and whatever else it follows ends there");
  expect(!s.between(6, 7), "but nothing that has nothing to do with it");
  Seams idle({10, 100});
  idle.cut(1, 2);
  int times = 0;
  for (int i = 0; i < 50; i++) times += idle.between(1, 2) ? 1 : 0;
  expect(times > 5 && times <= 12 && idle.kept() == 0, "what was one once and never again is forgotten: " + std::to_string(times));
  for (int i = 0; i < 50; i++) {
    idle.cut(1, 2);
    expect(idle.between(1, 3), "what is one now and then is not");
  }
  for (int64_t task = 10; task < 200; task += 2) {
    s.cut(task, task + 1);
    expect(s.kept() <= 8, "no more are kept");
  }
}

struct Task {
  int value = 0;
  Planned planned;
};

Task taskOf(int value, Planned planned) { return {value, std::move(planned)}; }

void queued() {
  Program p;
  p.step(plain);
  p.step(plain);
  LaunchQueue<Task> queue(std::chrono::seconds(60));
  std::vector<Task> items;
  for (int i = 1; i <= 5; i++) queue.push(taskOf(i, p.submit(i)));
  queue.push(taskOf(6, p.submit(6)));
  expect(queue.next(items) && items.size() == 5 && items[4].value == 5, "all of a stretch at once");
  expect(queue.next(items) && items.size() == 1 && items[0].value == 6, "and what follows by itself");
  p.endStep();

  // broken in the middle
  queue.push(taskOf(1, p.submit(1)));
  queue.push(taskOf(2, p.submit(2)));
  Planned other = p.submit(50);
  queue.broken(other.broken);
  queue.push(taskOf(50, std::move(other)));
  for (const int value : {1, 2, 50}) expect(queue.next(items) && items.size() == 1 && items[0].value == value, "one by one");
  p.endStep();

  // complete, and the next one broken before the thread looks
  for (int i = 1; i <= 5; i++) queue.push(taskOf(i, p.submit(i)));
  p.endStep();
  queue.push(taskOf(1, p.submit(1)));
  queue.broken(p.stretches.close());
  expect(queue.next(items) && items.size() == 5, "what is complete is launched together");
  expect(queue.next(items) && items.size() == 1 && items[0].value == 1, "what is broken is not");

  queue.push(taskOf(1, p.submit(1)));
  queue.end();
  expect(queue.next(items) && items.size() == 1, "at the end nobody waits for the rest");
  expect(!queue.next(items), "and then nothing comes");
}

/** The rest does not come, and nobody says so. */
void impatient() {
  Program p;
  p.step(plain);
  p.step(plain);
  LaunchQueue<Task> queue(std::chrono::milliseconds(2));
  std::vector<Task> items;
  queue.push(taskOf(1, p.submit(1)));
  queue.push(taskOf(2, p.submit(2)));
  expect(queue.next(items) && items.size() == 1 && items[0].value == 1, "the thread goes on by itself");
  expect(p.last->givenUp == 1, "and it is known that it did");
  expect(queue.next(items) && items[0].value == 2, "with what is there");
  // who was given up is told of each that still comes
  std::thread submits([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    for (int i = 3; i <= 5; i++) queue.push(taskOf(i, p.submit(i)));
  });
  for (int i = 3; i <= 5; i++) expect(queue.next(items) && items.size() == 1 && items[0].value == i, "the rest one by one");
  submits.join();
  queue.end();
}

/** Programs at random: nothing is lost, nothing changes its place, and what comes at once is a known stretch. */
void threads(unsigned seed) {
  std::mt19937 random(seed);
  const auto draw = [&](int below) { return static_cast<int>(random() % static_cast<unsigned>(below)); };
  LaunchQueue<Task> queue(std::chrono::microseconds(200));
  std::atomic<int> taken{0};
  int together = 0;
  std::thread lane([&] {
    std::vector<Task> items;
    int next = 0;
    while (queue.next(items)) {
      if (items.size() > 1) {
        together++;
        expect(items[0].planned.opens != nullptr && items[0].planned.opens->tasks.size() == items.size(), "a whole stretch");
        for (const Task& item : items) expect(item.planned.ticket == items[0].planned.ticket, "of one ticket");
      }
      for (const Task& item : items) expect(item.value == next++, "in order");
      taken = next;
    }
  });
  Program p({2, 64, 4});
  int value = 0;
  const auto hand = [&](Planned planned) {
    if (planned.broken != 0) queue.broken(planned.broken);
    queue.push(taskOf(value++, std::move(planned)));
  };
  for (int step = 0; step < 300; step++) {
    for (int64_t task = 1; task <= 12; task++) {
      const int what = draw(200);
      hand(p.submit(what == 0 ? 90 + draw(3) : task, what != 1, what == 2 ? Before::program : Before::nothing));
      if (what == 3) std::this_thread::sleep_for(std::chrono::microseconds(draw(600)));
      if (what == 4) {
        // as whoever reads a value: it must come to be launched though the rest of the stretch does not follow
        const int64_t broken = p.stretches.await(p.op, false);
        if (broken != 0) queue.broken(broken);
        for (int tries = 0; taken < value && tries < 20000; tries++) std::this_thread::sleep_for(std::chrono::microseconds(100));
        expect(taken == value, "who is waited for is launched");
      }
    }
    const int64_t broken = p.stretches.close();
    if (broken != 0) queue.broken(broken);
  }
  queue.end();
  lane.join();
  expect(taken == value, "all was launched");
  expect(together > 50, "much of it together: " + std::to_string(together));
}

}  // namespace

int run(unsigned seed) {
  repeats();
  tickets();
  changes();
  ends();
  lengths();
  bounded();
  refusals();
  messages();
  arrivals();
  rare();
  passing();
  seams();
  queued();
  impatient();
  times(seed);
  for (unsigned i = 0; i < 5; i++) threads(seed + i);
  std::printf(failures == 0 ? "graphs: %d checks hold\n" : "graphs: %d checks, some failed\n", checks.load());
  return failures == 0 ? 0 : 1;
}

}  // namespace tandem::cuda

int main(int count, char** arguments) {
  if (count > 1 && std::string(arguments[1]) == "schedule") return tandem::cuda::schedule(std::cin, std::cout);
  return tandem::cuda::run(count > 1 ? static_cast<unsigned>(std::stoul(arguments[1])) : 1);
}
