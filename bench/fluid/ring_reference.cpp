// The `ring` workload of bench/fluid/workloads.ts by its definition, in as many digits as REAL has: at every event all rates
// anew by progressive filling, every flow's remaining bytes moved forward, and no two ends are one unless equal to the bit.
//   g++ -O2 -DREAL=__float128 bench/fluid/ring_reference.cpp -o ring_reference && ./ring_reference N L I out.csv
// With -DREAL=double: what plain doubles make of the same. Latency is 0. Shares no code with the engine.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <queue>
#include <string>
#include <vector>

#ifndef REAL
#define REAL __float128
#endif
typedef REAL Real;

static Real nic(int i) { return (Real)1.25e8 * (10 + (i * 3) % 7); }
static Real forward_seconds(int i, int l) { return (Real)1e9 * (100 + (i * 7 + l * 13) % 17) / (Real)1e12; }
static uint64_t layer_bytes(int l) { return 4000000ULL + 500000ULL * ((l * 5) % 11); }

struct Activity {
  bool send;
  int worker;
  Real work;  // seconds, or bytes
  int waits;
  std::vector<int> successors;
};

struct Ring {
  std::vector<Activity> activities;
  std::vector<std::string> names;

  int add(bool send, int worker, Real work, const std::string& name) {
    names.push_back(name);
    activities.push_back({send, worker, work, 0, {}});
    return (int)activities.size() - 1;
  }
  void after(int activity, int predecessor) {
    activities[predecessor].successors.push_back(activity);
    activities[activity].waits++;
  }
  Ring(int workers, int layers, int iterations) {
    const int n = workers;
    std::vector<int> previous(n, -1), last(n, -1), done(n * layers, -1);
    auto name = [](char kind, int i, int it, int l) {
      return std::string(1, kind) + " i" + std::to_string(i) + " it" + std::to_string(it) + " l" + std::to_string(l);
    };
    for (int it = 0; it < iterations; it++) {
      for (int l = 0; l < layers; l++)
        for (int i = 0; i < n; i++) {
          const int forward = add(false, i, forward_seconds(i, l), name('F', i, it, l));
          if (previous[i] >= 0) after(forward, previous[i]);
          if (it > 0) after(forward, done[i * layers + l]);
          previous[i] = forward;
        }
      for (int l = layers - 1; l >= 0; l--) {
        for (int i = 0; i < n; i++) {
          const int backward = add(false, i, 2 * forward_seconds(i, l), name('B', i, it, l));
          after(backward, previous[i]);
          previous[i] = backward;
        }
        for (int s = 0; s < 2 * (n - 1); s++) {
          std::vector<int> current(n);
          for (int i = 0; i < n; i++) {
            const int send =
                add(true, i, (Real)(layer_bytes(l) / n), name('R', i, it, l) + " s" + std::to_string(s));
            if (s == 0) after(send, previous[i]);
            if (last[i] >= 0) {
              after(send, last[i]);
              after(send, last[(i + n - 1) % n]);
            }
            current[i] = send;
          }
          last = current;
        }
        for (int i = 0; i < n; i++) done[i * layers + l] = last[(i + n - 1) % n];
      }
    }
  }
};

struct End {
  Real seconds;
  int id;
  bool operator<(const End& other) const {
    return seconds > other.seconds || (seconds == other.seconds && id > other.id);
  }
};

// Finish times. A worker sends one message at a time, to its right neighbour over its own card, the neighbour's, and one of
// two shared links.
static std::vector<Real> simulate(Ring& ring, int n) {
  auto& activities = ring.activities;
  const int links = 2 * n + 2;
  std::vector<Real> capacity(links), left(n), rate(n), finish(activities.size(), -1);
  for (int i = 0; i < n; i++) capacity[i] = capacity[n + i] = nic(i);
  capacity[2 * n] = capacity[2 * n + 1] = (Real)1.25e9;
  std::vector<int> sending(n, -1), ready;
  for (size_t k = 0; k < activities.size(); k++)
    if (activities[k].waits == 0) ready.push_back((int)k);
  std::priority_queue<End> works;
  Real now = 0;

  auto crosses = [n](int i, int link) { return link == i || link == n + (i + 1) % n || link == 2 * n + i % 2; };
  auto solve = [&] {
    std::vector<Real> remaining = capacity;
    std::vector<int> unknown(links, 0);
    std::vector<char> fixed(n, 1);
    int open = 0;
    for (int i = 0; i < n; i++) {
      if (sending[i] < 0) continue;
      fixed[i] = 0;
      open++;
      for (int link = 0; link < links; link++)
        if (crosses(i, link)) unknown[link]++;
    }
    while (open > 0) {
      Real level = -1;
      int bottleneck = -1;
      for (int link = 0; link < links; link++) {
        if (unknown[link] == 0) continue;
        const Real share = remaining[link] / unknown[link];
        if (bottleneck < 0 || share < level) {
          level = share;
          bottleneck = link;
        }
      }
      for (int i = 0; i < n; i++) {
        if (fixed[i] || !crosses(i, bottleneck)) continue;
        fixed[i] = 1;
        open--;
        rate[i] = level;
        for (int link : {i, n + (i + 1) % n, 2 * n + i % 2}) {
          remaining[link] -= level;
          unknown[link]--;
        }
      }
    }
  };

  for (;;) {
    bool changed = false;
    for (int k : ready) {
      const Activity& activity = activities[k];
      if (!activity.send) works.push({now + activity.work, k});
      else {
        sending[activity.worker] = k;
        left[activity.worker] = activity.work;
        changed = true;
      }
    }
    ready.clear();
    if (changed) solve();
    Real next = -1;
    for (int i = 0; i < n; i++) {
      if (sending[i] < 0) continue;
      const Real end = now + left[i] / rate[i];
      if (next < 0 || end < next) next = end;
    }
    if (!works.empty() && (next < 0 || works.top().seconds < next)) next = works.top().seconds;
    if (next < 0) return finish;
    std::vector<int> ended;
    bool freed = false;
    for (int i = 0; i < n; i++) {
      if (sending[i] < 0) continue;
      if (now + left[i] / rate[i] <= next) {
        ended.push_back(sending[i]);
        sending[i] = -1;
        freed = true;
      } else left[i] -= rate[i] * (next - now);
    }
    for (; !works.empty() && works.top().seconds <= next; works.pop()) ended.push_back(works.top().id);
    now = next;
    for (int k : ended) {
      finish[k] = now;
      for (int successor : activities[k].successors)
        if (--activities[successor].waits == 0) ready.push_back(successor);
    }
    if (freed) solve();
  }
}

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: ring_reference N L I out.csv\n");
    return 2;
  }
  const int n = std::atoi(argv[1]);
  Ring ring(n, std::atoi(argv[2]), std::atoi(argv[3]));
  const std::vector<Real> finish = simulate(ring, n);
  FILE* file = std::fopen(argv[4], "w");
  if (file == nullptr) {
    std::perror(argv[4]);
    return 2;
  }
  std::fprintf(file, "kind,name,finish\n");
  for (size_t k = 0; k < finish.size(); k++)
    std::fprintf(file, "%s,%s,%.18Lg\n", ring.activities[k].send ? "comm" : "exec", ring.names[k].c_str(),
                 (long double)finish[k]);
  return std::fclose(file) == 0 ? 0 : 2;
}
