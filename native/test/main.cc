// The native layer without Node, for sanitizers: drives ranks, lanes, collectives, faults and every kernel family through
// rank.h, and checks results against plain loops. Exit code 1 when one is wrong.
//   native/test/run.sh thread | address
#include <cstdlib>
#include <thread>

#include "../cpu/gemm.h"
#include "world.h"

using namespace tandem;

int tandem::failures = 0;

namespace {

/** Steps of a small training loop on every rank: products, an all-reduce on another lane, an update, copies to the host. */
void training(const On& on, int ranks, int steps) {
  World world(on, ranks);
  std::vector<int> members;
  for (int rank = 0; rank < ranks; rank++) members.push_back(rank);
  struct State {
    int32_t weight, gradient, host;
    int32_t product, reduce, update, down, up;
  };
  std::vector<State> states;
  constexpr int64_t width = 24;
  for (int rank = 0; rank < ranks; rank++) {
    Rank& own = *world.ranks[static_cast<size_t>(rank)];
    State s{};
    s.weight = world.tensor(rank, {width, width}, ramp(width * width));
    s.gradient = world.tensor(rank, {width, width});
    s.host = world.tensor(rank, {width, width}, {}, Dtype::float32, Place::host);
    const int32_t inp = world.tensor(rank, {8, width}, ramp(8 * width, 0.01f * static_cast<float>(rank + 1)));
    s.product = own.prepare(callOf("linear.backward_weight", 0, {{"bias", false}, {"accumulate", false}, {"tf32", false}}), {inp, inp},
                            {s.gradient});
    Call reduce = callOf("all_reduce", 1, {{"wire", std::string("bfloat16")}, {"reduce", std::string("avg")}});
    reduce.group = Group{"world", members};
    s.reduce = own.prepare(reduce, {s.gradient}, {s.gradient});
    const std::map<std::string, Attribute> sgd = {{"learningRate", 0.01}, {"momentum", 0.0}, {"dampening", 0.0}, {"weightDecay", 0.0},
                                                  {"nesterov", false},    {"shadow", false}, {"scaled", false},  {"step", 2.0}};
    s.update = own.prepare(callOf("sgd", 0, sgd), {s.weight, s.gradient}, {s.weight});
    s.down = own.prepare(callOf("d2h", 4), {s.weight}, {s.host});
    s.up = own.prepare(callOf("h2d", 3), {s.host}, {s.weight});
    states.push_back(s);
  }
  for (int step = 0; step < steps; step++) {
    for (int rank = 0; rank < ranks; rank++) {
      Rank& own = *world.ranks[static_cast<size_t>(rank)];
      const State& s = states[static_cast<size_t>(rank)];
      const int32_t product = own.submit(s.product, nullptr, 0);
      const int32_t reduce = own.submit(s.reduce, &product, 1);
      const int32_t update = own.submit(s.update, &reduce, 1);
      const int32_t down = own.submit(s.down, &update, 1);
      const int32_t up = own.submit(s.up, &down, 1);
      const int32_t edges[] = {up};
      // a temporary that comes and goes, used on the compute lane after the copy
      const int32_t temporary = world.tensor(rank, {width, width});
      const int32_t copy = own.prepare(callOf("copy", 0), {s.weight}, {temporary});
      own.submit(copy, edges, 1);
      own.free(temporary);
      own.release(copy);
    }
    if (step % 16 == 15) world.drain();
  }
  world.drain();
  expect(!world.machine->fault().has_value(), world.fault());
  const auto first = world.values(0, states[0].weight, width * width);
  for (int rank = 1; rank < ranks; rank++) {
    const auto other = world.values(rank, states[static_cast<size_t>(rank)].weight, width * width);
    bool same = true;
    for (size_t i = 0; i < first.size(); i++) same &= std::fabs(first[i] - other[i]) < 1e-6f;
    expect(same, "replicas agree");
  }
  size_t times = 0;
  for (auto& rank : world.ranks) times += rank->takeTimes().size();
  expect(times == static_cast<size_t>(ranks * steps * 6), "as many times as ops");
}

/** All collectives, in several groups at once, on two lanes. */
void collectives(const On& on) {
  constexpr int ranks = 4;
  World world(on, ranks, {1e8});
  const std::vector<int> members = {0, 1, 2, 3};
  const std::string none;
  for (int round = 0; round < 30; round++) {
    for (int rank = 0; rank < ranks; rank++) {
      Rank& own = *world.ranks[static_cast<size_t>((rank + round) % ranks)];
      const int index = (rank + round) % ranks;
      const auto submit = [&](const char* kernel, int lane, std::map<std::string, Attribute> attributes,
                              std::vector<int32_t> reads, std::vector<int32_t> writes, const std::string& group) {
        attributes.emplace("wire", round % 3 == 0 ? std::string("float8") : none);
        Call call = callOf(kernel, lane, std::move(attributes));
        call.group = Group{group, members};
        call.loads = {{0, 1000}};
        const int32_t op = own.prepare(call, reads, writes);
        own.submit(op, nullptr, 0);
        own.release(op);
      };
      const std::vector<float> values(16, static_cast<float>(index + 1));
      const int32_t a = world.tensor(index, {16}, values);
      const int32_t b = world.tensor(index, {16}, values);
      const int32_t quarter = world.tensor(index, {4});
      const int32_t all = world.tensor(index, {64});
      submit("all_reduce", 1, {{"reduce", std::string("sum")}}, {a}, {a}, "one");
      submit("all_to_all", 2, {{"ranks", 4.0}, {"sendCounts", none}, {"receiveCounts", none}}, {b}, {b}, "two");
      submit("reduce_scatter", 1, {{"ranks", 4.0}, {"reduce", std::string("avg")}, {"counts", none}, {"member", 0.0}}, {a},
             {quarter}, "one");
      submit("all_gather", 2, {{"ranks", 4.0}, {"counts", none}, {"member", 0.0}}, {b}, {all}, "two");
      submit("broadcast", 2, {{"root", 2.0}}, {b}, {b}, "two");
      for (const int32_t tensor : {a, b, quarter, all}) own.free(tensor);
    }
    if (round % 5 == 4) world.drain();
  }
  // 1 + 2 + 3 + 4
  std::vector<int32_t> last;
  for (int rank = 0; rank < ranks; rank++) {
    last.push_back(world.tensor(rank, {5}, std::vector<float>(5, static_cast<float>(rank + 1))));
    Call call = callOf("all_reduce", 1, {{"reduce", std::string("sum")}, {"wire", none}});
    call.group = Group{"one", members};
    Rank& own = *world.ranks[static_cast<size_t>(rank)];
    own.submit(own.prepare(call, {last.back()}, {last.back()}), nullptr, 0);
  }
  world.drain();
  expect(!world.machine->fault().has_value(), world.fault());
  for (int rank = 0; rank < ranks; rank++) {
    for (const float value : world.values(rank, last[static_cast<size_t>(rank)], 5)) expect(value == 10, "sum of ranks");
  }
}

/** A fault while others wait to meet, and a machine that ends with work queued. */
void faults(const On& on) {
  World world(on, 2);
  Rank& first = *world.ranks[0];
  const int32_t tokens = world.integers(0, {2}, {0, 9});
  const int32_t weight = world.tensor(0, {3, 4}, ramp(12));
  const int32_t out = world.tensor(0, {2, 4});
  Call lonely = callOf("all_reduce", 1, {{"reduce", std::string("sum")}, {"wire", std::string()}});
  lonely.group = Group{"world", {0, 1}};
  const int32_t other = world.tensor(0, {4});
  first.submit(first.prepare(lonely, {other}, {other}), nullptr, 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  first.submit(first.prepare(callOf("embedding.forward", 0), {tokens, weight}, {out}), nullptr, 0);
  world.drain();
  expect(world.fault().find("token 9") != std::string::npos, "the fault is the token's");

  World left(on, 2);
  Rank& queued = *left.ranks[0];
  const int32_t x = left.tensor(0, {1000}, ramp(1000));
  const int32_t copy = queued.prepare(callOf("scale", 0, {{"factor", 0.5}}), {x}, {x});
  for (int i = 0; i < 1000; i++) queued.submit(copy, nullptr, 0);
  const int32_t y = left.tensor(0, {4});
  queued.submit(queued.prepare(lonely, {y}, {y}), nullptr, 0);
}

/** Sessions that end while emulated ops sleep, begin and end. */
void closing(const On& on) {
  for (int round = 0; round < 100; round++) {
    World world(on, 2);
    for (int rank = 0; rank < 2; rank++) {
      Rank& own = *world.ranks[static_cast<size_t>(rank)];
      for (int lane = 0; lane < 3; lane++) {
        // Its own: nothing orders lanes here.
        const int32_t x = world.tensor(rank, {4}, ramp(4));
        Call call = callOf("scale", lane, {{"factor", 0.5}});
        call.seconds = 1e-5 * static_cast<double>(1 + lane);
        const int32_t slow = own.prepare(call, {x}, {x});
        for (int i = 0; i < 500; i++) own.submit(slow, nullptr, 0);
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50 * (round % 20)));
  }
}

/** Families with the most index arithmetic, at sizes that are no multiple of anything. */
void kernels(const On& on) {
  World world(on, 1);
  Rank& own = *world.ranks[0];
  const auto run = [&](Call call, std::vector<int32_t> reads, std::vector<int32_t> writes) {
    own.submit(own.prepare(std::move(call), reads, writes), nullptr, 0);
  };
  useBlas("own");
  for (const int64_t m : {1, 7, 97, 130}) {
    for (const int64_t n : {1, 17, 1030}) {
      for (const int64_t k : {1, 5, 300}) {
        if (m * n * k > 8000000) continue;
        const std::vector<float> a = ramp(static_cast<size_t>(m * k));
        const std::vector<float> b = ramp(static_cast<size_t>(n * k), 0.02f);
        std::vector<float> c(static_cast<size_t>(m * n));
        multiply(m, n, k, {a.data(), k, 1}, {b.data(), 1, k}, c.data(), n, false);
        double sum = 0;
        const float* const row = a.data() + (m - 1) * k;
        const float* const column = b.data() + (n - 1) * k;
        for (int64_t p = 0; p < k; p++) sum += static_cast<double>(row[p]) * static_cast<double>(column[p]);
        expect(std::fabs(sum - static_cast<double>(c.back())) < 1e-3,
               "product " + std::to_string(m) + " " + std::to_string(n) + " " + std::to_string(k));
      }
    }
  }
  constexpr int64_t time = 71, heads = 3, headWidth = 5, width = heads * headWidth;
  const int32_t qkv = world.tensor(0, {2, time, 3 * width}, ramp(2 * time * 3 * width));
  const int32_t out = world.tensor(0, {2, time, width});
  const int32_t lse = world.tensor(0, {2, heads, time});
  const int32_t dqkv = world.tensor(0, {2, time, 3 * width});
  const std::map<std::string, Attribute> attention = {
      {"heads", 3.0}, {"kvHeads", 3.0}, {"headWidth", 5.0}, {"packed", true}, {"causal", true}};
  run(callOf("attention.forward", 0, attention), {qkv}, {out, lse});
  run(callOf("attention.backward", 0, attention), {out, qkv, out, lse}, {dqkv});
  const int32_t weight = world.tensor(0, {width}, ramp(width));
  const int32_t mean = world.tensor(0, {2, time});
  const int32_t rstd = world.tensor(0, {2, time});
  const int32_t norm = world.tensor(0, {2, time, width}, {}, Dtype::bfloat16);
  run(callOf("layer_norm.forward", 0, {{"epsilon", 1e-5}}), {out, weight, weight}, {norm, mean, rstd});
  run(callOf("layer_norm.backward_input", 0), {out, out, weight, mean, rstd}, {norm});
  run(callOf("gelu.forward", 0), {qkv}, {dqkv});
  run(callOf("softmax.forward", 0), {qkv}, {dqkv});
  const int32_t codes = world.tensor(0, {2, time, width}, {}, Dtype::float4);
  const int32_t scales = world.tensor(0, {(2 * time * width + 31) / 32});
  run(callOf("pack.float4", 0, {{"block", 32.0}}), {out}, {codes, scales});
  run(callOf("unpack.float4", 0, {{"block", 32.0}}), {codes, scales}, {out});
  const int32_t logits = world.tensor(0, {40, 6}, ramp(240));
  const int32_t weights = world.tensor(0, {40, 2});
  const int32_t chosen = world.tensor(0, {40, 2}, {}, Dtype::int32);
  const int32_t probs = world.tensor(0, {40, 6});
  const int32_t slots = world.tensor(0, {40, 2}, {}, Dtype::int32);
  const int32_t counts = world.tensor(0, {6}, {}, Dtype::int32);
  const int32_t tokens = world.tensor(0, {40, 9}, ramp(360));
  const int32_t sorted = world.tensor(0, {80, 9});
  const int32_t experts = world.tensor(0, {6, 7, 9}, ramp(378));
  const int32_t hidden = world.tensor(0, {80, 7});
  run(callOf("topk_gate.forward", 0, {{"topK", 2.0}, {"normalize", true}}), {logits}, {weights, chosen, probs});
  run(callOf("moe_permutation", 0, {{"experts", 6.0}}), {chosen}, {slots, counts});
  run(callOf("moe_dispatch.forward", 0, {{"topK", 2.0}}), {tokens, slots}, {sorted});
  run(callOf("grouped_linear.forward", 0), {sorted, experts, counts}, {hidden});
  world.drain();
  expect(!world.machine->fault().has_value(), world.fault());
  const auto result = world.values(0, hidden, 80 * 7);
  for (const float value : result) expect(std::isfinite(value), "finite");
}

}  // namespace

int main() {
  for (const On& on : {On{"cpu"}, On{"deferred", 1}}) {
    kernels(on);
    training(on, 3, on.backend == "cpu" ? 200 : 40);
    collectives(on);
    faults(on);
    closing(on);
  }
  deferredPrograms();
  std::printf(failures == 0 ? "native: all checks hold\n" : "native: %d checks failed\n", failures);
  return failures == 0 ? 0 : 1;
}
