// How many ops of a program its lanes launch together (plan.h), of a schedule as test/native/lane-schedule.ts writes it: a line for each
// op in program order, "lane task capturable", then "lane:op" for each op that it waits for; "end" where a step ends, "program" where
// another one begins.
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "../../cuda/plan.h"
#include "graphs.h"

namespace tandem::cuda {

/** For each step a line: ops that a graph can hold, those of them that are launched in one, and how many launches that takes. */
int schedule(std::istream& in, std::ostream& out) {
  const auto ignore = [](int, int64_t) {};
  auto plan = std::make_unique<Plan>(true, ignore);
  // of each lane, ops of the stretch that is expected
  std::array<int64_t, laneCount> expected{};
  int64_t capturable = 0, together = 0, launches = 0;
  int32_t op = 0;
  std::string line;
  while (std::getline(in, line)) {
    if (line == "program") {
      plan = std::make_unique<Plan>(true, ignore);
      op = 0;
      continue;
    }
    if (line == "end") {
      plan->endStep();
      out << capturable << ' ' << together << ' ' << launches << '\n';
      capturable = together = launches = 0;
      continue;
    }
    std::istringstream words(line);
    int lane = 0, fits = 0;
    int64_t task = 0;
    words >> lane >> task >> fits;
    Events after = noEvents;
    int other = 0;
    int32_t before = 0;
    char colon = 0;
    while (words >> other >> colon >> before) after.at(static_cast<size_t>(other)) = pointOf(before);
    const auto index = static_cast<size_t>(lane);
    const Planned planned = plan->place(lane, {task, pointOf(op++), after, fits != 0, true});
    capturable += fits;
    if (planned.opens) expected.at(index) = static_cast<int64_t>(planned.opens->tasks.size());
    if (!planned.completes) continue;
    together += expected.at(index);
    launches++;
  }
  return 0;
}

}  // namespace tandem::cuda
