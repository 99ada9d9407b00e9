// The workloads of bench/fluid/workloads.ts for SimGrid 3.32 (Debian 12's libsimgrid-dev), activity by activity in the same order.
//   simgrid_fluid <ps|ring|a2a> N L I LAT_US [out.csv|-] [options of SimGrid...]
// N workers, L layers, I iterations, latency of the shared links in microseconds. Prints one line of JSON; with out.csv also
// the end of every activity. bench/fluid/simgrid.cfg has the options that make it a pure fluid model (CM02, crosstraffic off, no TCP
// window). Build: g++ -std=c++17 -O2 bench/fluid/simgrid_fluid.cpp -lsimgrid
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <simgrid/s4u.hpp>
#include <string>
#include <sys/resource.h>
#include <unordered_map>
#include <vector>

namespace s4u = simgrid::s4u;

namespace {

constexpr double speed = 1e12;     // FLOP/s of a worker
constexpr double shared = 1.25e9;  // bytes/s of a shared link
double nic(int i) { return 1.25e8 * (10 + (i * 3) % 7); }
double forward_flops(int i, int l) { return 1e9 * (100 + (i * 7 + l * 13) % 17); }
uint64_t layer_bytes(int l) { return 4000000ULL + 500000ULL * ((l * 5) % 11); }
uint64_t token_bytes(int i, int j, int l) { return 40000ULL + 4000ULL * ((i * 31 + j * 17 + l * 7) % 13); }

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The dependency between two activities is not public for all their kinds.
struct Access : s4u::Activity {
  static void before(const s4u::ActivityPtr& first, const s4u::ActivityPtr& then) {
    (first.get()->*(&Access::add_successor))(then);
  }
};

void after(const s4u::ActivityPtr& activity, const s4u::ActivityPtr& predecessor) {
  if (predecessor) Access::before(predecessor, activity);
}

// Every activity in order of creation. SimGrid 3.32 crashes when a started activity of a DAG loses its last reference.
struct Workload {
  bool named = false;
  std::vector<s4u::ActivityPtr> activities;
  std::vector<std::string> rows;  // "kind,name", where named

  template <typename... Arguments>
  s4u::ActivityPtr add(const s4u::ActivityPtr& activity, const char* kind, const char* format, Arguments... arguments) {
    if (named) {
      char name[96];
      std::snprintf(name, sizeof name, format, arguments...);
      rows.push_back(std::string(kind) + "," + name);
    }
    activities.push_back(activity);
    return activity;
  }

  template <typename... Arguments>
  s4u::ActivityPtr exec(s4u::Host* host, double flops, const char* format, Arguments... arguments) {
    s4u::ExecPtr exec = s4u::Exec::init();
    exec->set_host(host)->set_flops_amount(flops);
    exec->set_name("exec");
    return add(exec, "exec", format, arguments...);
  }

  template <typename... Arguments>
  s4u::ActivityPtr comm(s4u::Host* from, s4u::Host* to, uint64_t bytes, const char* format, Arguments... arguments) {
    s4u::CommPtr comm = s4u::Comm::sendto_init(from, to);
    comm->set_payload_size(bytes);
    comm->set_name("comm");
    return add(comm, "comm", format, arguments...);
  }
};

struct Platform {
  std::vector<s4u::Host*> workers;
  s4u::Host* server;
};

Platform make_platform(const std::string& kind, int n, double latency_seconds) {
  Platform platform;
  auto* zone = s4u::create_full_zone("zone");
  std::vector<s4u::Link*> up, down;
  for (int i = 0; i < n; i++) {
    const std::string id = std::to_string(i);
    platform.workers.push_back(zone->create_host("w" + id, speed)->seal());
    up.push_back(zone->create_link("up" + id, nic(i))->set_latency(0.0)->seal());
    down.push_back(zone->create_link("dn" + id, nic(i))->set_latency(0.0)->seal());
  }
  platform.server = zone->create_host("server", speed)->set_core_count(100000)->seal();
  auto* shared_up = zone->create_link("bbu", shared)->set_latency(latency_seconds)->seal();
  auto* shared_down = zone->create_link("bbd", shared)->set_latency(latency_seconds)->seal();
  auto route = [&](s4u::Host* from, s4u::Host* to, const std::vector<s4u::Link*>& links) {
    std::vector<s4u::LinkInRoute> crossed;
    for (auto* link : links) crossed.emplace_back(link);
    zone->add_route(from->get_netpoint(), to->get_netpoint(), nullptr, nullptr, crossed, false);
  };
  const auto& hosts = platform.workers;
  for (int i = 0; i < n; i++) {
    if (kind == "ps") {
      route(hosts[i], platform.server, {up[i], shared_up});
      route(platform.server, hosts[i], {shared_down, down[i]});
    } else if (kind == "ring") {
      const int j = (i + 1) % n;
      route(hosts[i], hosts[j], {up[i], i % 2 == 0 ? shared_up : shared_down, down[j]});
    } else {
      for (int j = 0; j < n; j++)
        if (i != j) route(hosts[i], hosts[j], {up[i], down[j]});
    }
  }
  zone->seal();
  return platform;
}

void parameter_server(Workload& w, const Platform& p, int n, int layers, int iterations) {
  std::vector<s4u::ActivityPtr> previous(n), pulled(static_cast<size_t>(n) * layers);
  for (int it = 0; it < iterations; it++) {
    for (int l = 0; l < layers; l++)
      for (int i = 0; i < n; i++) {
        auto f = w.exec(p.workers[i], forward_flops(i, l), "F i%d it%d l%d", i, it, l);
        after(f, previous[i]);
        if (it > 0) after(f, pulled[static_cast<size_t>(i) * layers + l]);
        previous[i] = f;
      }
    for (int l = layers - 1; l >= 0; l--) {
      auto aggregate = w.exec(p.server, 1e6, "A it%d l%d", it, l);
      for (int i = 0; i < n; i++) {
        auto backward = w.exec(p.workers[i], 2 * forward_flops(i, l), "B i%d it%d l%d", i, it, l);
        after(backward, previous[i]);
        previous[i] = backward;
        auto push = w.comm(p.workers[i], p.server, layer_bytes(l), "PUSH i%d it%d l%d", i, it, l);
        after(push, backward);
        after(aggregate, push);
      }
      for (int i = 0; i < n; i++) {
        auto pull = w.comm(p.server, p.workers[i], layer_bytes(l), "PULL i%d it%d l%d", i, it, l);
        after(pull, aggregate);
        pulled[static_cast<size_t>(i) * layers + l] = pull;
      }
    }
  }
}

void ring(Workload& w, const Platform& p, int n, int layers, int iterations) {
  std::vector<s4u::ActivityPtr> previous(n), last(n), done(static_cast<size_t>(n) * layers);
  for (int it = 0; it < iterations; it++) {
    for (int l = 0; l < layers; l++)
      for (int i = 0; i < n; i++) {
        auto f = w.exec(p.workers[i], forward_flops(i, l), "F i%d it%d l%d", i, it, l);
        after(f, previous[i]);
        if (it > 0) after(f, done[static_cast<size_t>(i) * layers + l]);
        previous[i] = f;
      }
    for (int l = layers - 1; l >= 0; l--) {
      for (int i = 0; i < n; i++) {
        auto backward = w.exec(p.workers[i], 2 * forward_flops(i, l), "B i%d it%d l%d", i, it, l);
        after(backward, previous[i]);
        previous[i] = backward;
      }
      for (int s = 0; s < 2 * (n - 1); s++) {
        std::vector<s4u::ActivityPtr> current(n);
        for (int i = 0; i < n; i++) {
          auto c = w.comm(p.workers[i], p.workers[(i + 1) % n], layer_bytes(l) / n, "R i%d it%d l%d s%d", i, it, l, s);
          if (s == 0) after(c, previous[i]);
          if (last[i]) {
            after(c, last[i]);
            after(c, last[(i + n - 1) % n]);
          }
          current[i] = c;
        }
        last = current;
      }
      for (int i = 0; i < n; i++) done[static_cast<size_t>(i) * layers + l] = last[(i + n - 1) % n];
    }
  }
}

void all_to_all(Workload& w, const Platform& p, int n, int layers, int iterations) {
  std::vector<std::vector<s4u::ActivityPtr>> incoming(n);
  std::vector<s4u::ActivityPtr> previous(n);
  for (int it = 0; it < iterations; it++)
    for (int l = 0; l < layers; l++)
      for (int phase = 0; phase < 2; phase++) {
        std::vector<std::vector<s4u::ActivityPtr>> next(n);
        std::vector<s4u::ActivityPtr> computes(n);
        for (int i = 0; i < n; i++) {
          auto x = w.exec(p.workers[i], forward_flops(i, l + phase) / 100, "X i%d l%d ph%d", i, it * layers + l, phase);
          after(x, previous[i]);
          previous[i] = x;
          for (auto& arrival : incoming[i]) after(x, arrival);
          computes[i] = x;
        }
        for (int i = 0; i < n; i++)
          for (int j = 0; j < n; j++) {
            if (i == j) continue;
            const uint64_t bytes = phase == 0 ? token_bytes(i, j, l) : token_bytes(j, i, l);
            auto c = w.comm(p.workers[i], p.workers[j], bytes, "T i%d j%d l%d ph%d", i, j, it * layers + l, phase);
            after(c, computes[i]);
            next[j].push_back(c);
          }
        incoming = next;
      }
}

}  // namespace

int main(int argc, char** argv) {
  s4u::Engine engine(&argc, argv);
  if (argc < 6 || argc > 7) {
    std::fprintf(stderr, "usage: simgrid_fluid <ps|ring|a2a> N L I LAT_US [out.csv|-]\n");
    return 2;
  }
  const std::string kind = argv[1];
  const int n = std::atoi(argv[2]), layers = std::atoi(argv[3]), iterations = std::atoi(argv[4]);
  const double latency_seconds = std::atof(argv[5]) * 1e-6;
  const std::string csv = argc > 6 ? argv[6] : "-";

  const double begin = now_seconds();
  const Platform platform = make_platform(kind, n, latency_seconds);
  Workload workload;
  workload.named = csv != "-";
  if (kind == "ps") parameter_server(workload, platform, n, layers, iterations);
  else if (kind == "ring") ring(workload, platform, n, layers, iterations);
  else all_to_all(workload, platform, n, layers, iterations);

  std::unordered_map<const s4u::Activity*, size_t> index;
  std::vector<double> ends;
  if (workload.named) {
    ends.assign(workload.activities.size(), -1);
    for (size_t i = 0; i < workload.activities.size(); i++) index[workload.activities[i].get()] = i;
  }
  size_t ended = 0;
  double sum_finish = 0;
  s4u::Activity::on_completion_cb([&](const s4u::Activity& activity) {
    const double seconds = s4u::Engine::get_clock();
    ended++;
    sum_finish += seconds;
    if (workload.named) ends[index[&activity]] = seconds;
  });
  for (auto& activity : workload.activities) activity->vetoable_start();
  const double built = now_seconds();
  engine.run();
  const double finished = now_seconds();

  if (workload.named) {
    FILE* file = std::fopen(csv.c_str(), "w");
    if (file == nullptr) {
      std::perror(csv.c_str());
      return 2;
    }
    std::fprintf(file, "kind,name,finish\n");
    for (size_t i = 0; i < ends.size(); i++) std::fprintf(file, "%s,%.15g\n", workload.rows[i].c_str(), ends[i]);
    std::fclose(file);
  }
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  std::printf("{\"makespan\":%.15g,\"sumFinish\":%.15g,\"activities\":%zu,\"buildSeconds\":%.6g,\"runSeconds\":%.6g,\"peakMB\":%.4g}\n",
              s4u::Engine::get_clock(), sum_finish, ended, built - begin, finished - built, usage.ru_maxrss / 1024.0);
  std::fflush(stdout);
  _Exit(0);  // taking the DAG apart would take longer than the run
}
