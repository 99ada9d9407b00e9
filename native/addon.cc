// The N-API surface, one to one: sessions and ranks as plain objects of functions, integers and typed arrays across. What a
// call means is in rank.h and backend.h; the pleasant side is exec/native.ts.
#include <napi.h>

#include <atomic>
#include <limits>
#include <set>
#include <thread>

#include "cpu/gemm.h"
#include "cpu/simd.h"
#include "rank.h"

namespace {

using namespace tandem;

/** Everything of one session. Lives until the session is closed and no JavaScript function holds on to it. */
struct Session {
  std::unique_ptr<Machine> machine;
  std::vector<std::unique_ptr<Rank>> ranks;
  Napi::ThreadSafeFunction progress;
  // Set while a call into JavaScript is on its way: progress in between needs no second one.
  std::atomic<bool> told{false};

  void close() {
    if (!machine) return;
    // Lanes first, for they use what ranks have prepared.
    fault = machine->fault();
    machine.reset();
    ranks.clear();
    progress.Release();
  }

  std::optional<std::string> fault;
};

using SessionRef = std::shared_ptr<Session>;

/** Open sessions, so that all end before their environment (the process, or a worker of Node) does. */
struct Sessions {
  std::set<SessionRef> open;
};

/** A rank as its functions see it. */
struct RankRef {
  SessionRef session;
  size_t rank;
  Napi::Reference<Napi::TypedArray> edgesHeld;
  const int32_t* edges;
  size_t edgesLength;

  Rank& get() const {
    if (!session->machine) throw std::runtime_error("the session is closed");
    return *session->ranks[rank];
  }
};

/** Runs `body`; what it throws becomes a RangeError (a call that cannot be) or an Error in JavaScript. */
template <class Body>
auto guarded(Napi::Env env, Body body) -> decltype(body()) {
  try {
    return body();
  } catch (const BadCall& error) {
    throw Napi::RangeError::New(env, error.what());
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Napi::Error::New(env, error.what());
  }
}

int32_t integerOf(const Napi::Value& value) { return value.As<Napi::Number>().Int32Value(); }

std::vector<int32_t> integersOf(const Napi::Value& value) {
  const auto array = value.As<Napi::Array>();
  std::vector<int32_t> integers(array.Length());
  for (uint32_t i = 0; i < array.Length(); i++) integers[i] = integerOf(array.Get(i));
  return integers;
}

std::vector<double> numbersOf(const Napi::Value& value) {
  const auto array = value.As<Napi::Array>();
  std::vector<double> numbers(array.Length());
  for (uint32_t i = 0; i < array.Length(); i++) numbers[i] = Napi::Value(array.Get(i)).As<Napi::Number>().DoubleValue();
  return numbers;
}

double numberOf(const Napi::Object& object, const char* name) {
  return Napi::Value(object.Get(name)).As<Napi::Number>().DoubleValue();
}

Napi::Array stringsOf(Napi::Env env, const std::vector<std::string>& strings) {
  auto array = Napi::Array::New(env, strings.size());
  for (uint32_t i = 0; i < strings.size(); i++) array.Set(i, strings[i]);
  return array;
}

/** The values behind a Float32Array or an Int32Array. */
struct Values {
  void* data;
  int64_t elements;
  bool integers;
};

Values valuesOf(const Napi::Value& value) {
  const auto array = value.As<Napi::TypedArray>();
  const napi_typedarray_type type = array.TypedArrayType();
  if (type != napi_float32_array && type != napi_int32_array) {
    throw BadCall("values: expected a Float32Array or an Int32Array");
  }
  void* data = static_cast<char*>(array.ArrayBuffer().Data()) + array.ByteOffset();
  return {data, static_cast<int64_t>(array.ElementLength()), type == napi_int32_array};
}

Call callOf(const Napi::Object& op) {
  Call call;
  call.kernel = Napi::Value(op.Get("kernel")).As<Napi::String>().Utf8Value();
  call.lane = integerOf(op.Get("lane"));
  const auto attributes = Napi::Value(op.Get("attributes")).As<Napi::Object>();
  const Napi::Array names = attributes.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); i++) {
    const auto name = Napi::Value(names.Get(i)).As<Napi::String>();
    const Napi::Value value = attributes.Get(name);
    Attribute& attribute = call.attributes[name.Utf8Value()];
    if (value.IsNumber()) attribute = value.As<Napi::Number>().DoubleValue();
    if (value.IsBoolean()) attribute = value.As<Napi::Boolean>().Value();
    if (value.IsString()) attribute = value.As<Napi::String>().Utf8Value();
  }
  const Napi::Value group = op.Get("group");
  if (group.IsString()) {
    call.group = Group{group.As<Napi::String>().Utf8Value(), {}};
    for (const int32_t member : integersOf(op.Get("members"))) call.group->members.push_back(member);
  }
  call.seconds = numberOf(op, "seconds");
  call.latencySeconds = numberOf(op, "latencySeconds");
  const std::vector<double> loads = numbersOf(op.Get("loads"));
  for (size_t i = 0; i + 1 < loads.size(); i += 2) call.loads.push_back({static_cast<int>(loads[i]), loads[i + 1]});
  return call;
}

/**
 * The one hot call: submit(op, edgeCount) -> position in program order. Plain N-API, integers in and out; edges lie in the
 * array that the rank was made with.
 */
napi_value submit(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2];
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, arguments, nullptr, &data);
  int32_t op = -1;
  int32_t edges = -1;
  if (count < 2 || napi_get_value_int32(env, arguments[0], &op) != napi_ok ||
      napi_get_value_int32(env, arguments[1], &edges) != napi_ok) {
    napi_throw_type_error(env, nullptr, "submit: expected two integers");
    return nullptr;
  }
  const auto& rank = *static_cast<RankRef*>(data);
  try {
    if (edges < 0 || static_cast<size_t>(edges) > rank.edgesLength) throw BadCall("submit: more edges than the array holds");
    napi_value result;
    napi_create_int32(env, rank.get().submit(op, rank.edges, edges), &result);
    return result;
  } catch (const BadCall& error) {
    napi_throw_range_error(env, nullptr, error.what());
  } catch (const std::exception& error) {
    napi_throw_error(env, nullptr, error.what());
  }
  return nullptr;
}

/** Adds a function of a rank. */
template <class Body>
void define(Napi::Env env, Napi::Object& object, const char* name, const std::shared_ptr<RankRef>& rank, Body body) {
  object.Set(name, Napi::Function::New(
                       env,
                       [rank, body](const Napi::CallbackInfo& info) -> Napi::Value {
                         return guarded(info.Env(), [&]() -> Napi::Value { return body(info, rank->get()); });
                       },
                       name));
}

Napi::Value makeRank(const Napi::CallbackInfo& info, const SessionRef& session) {
  const Napi::Env env = info.Env();
  auto rank = std::make_shared<RankRef>();
  rank->session = session;
  rank->rank = static_cast<size_t>(integerOf(info[0]));
  if (rank->rank >= session->ranks.size()) throw BadCall("session: no rank " + std::to_string(rank->rank));
  const auto edges = info[1].As<Napi::TypedArray>();
  const Values values = valuesOf(edges);
  if (!values.integers) throw BadCall("session: edges are not an Int32Array");
  rank->edgesHeld = Napi::Persistent(edges);
  rank->edges = static_cast<const int32_t*>(values.data);
  rank->edgesLength = static_cast<size_t>(values.elements);

  auto object = Napi::Object::New(env);
  napi_value function;
  napi_create_function(env, "submit", NAPI_AUTO_LENGTH, submit, rank.get(), &function);
  object.Set("submit", Napi::Value(env, function));
  // The function keeps what it points to alive.
  napi_add_finalizer(
      env, function, new std::shared_ptr<RankRef>(rank),
      [](napi_env, void* held, void*) { delete static_cast<std::shared_ptr<RankRef>*>(held); }, nullptr, nullptr);

  define(env, object, "alloc", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    Shape shape;
    for (const double extent : numbersOf(info[3])) shape.push_back(static_cast<int64_t>(extent));
    const bool fits = rank.allocate(integerOf(info[0]), static_cast<Place>(integerOf(info[1])),
                                    static_cast<Dtype>(integerOf(info[2])), std::move(shape));
    return Napi::Boolean::New(info.Env(), fits);
  });
  define(env, object, "free", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    rank.free(integerOf(info[0]));
    return info.Env().Undefined();
  });
  define(env, object, "freeBytes", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    return Napi::Number::New(info.Env(), rank.freeBytes(static_cast<Place>(integerOf(info[0]))));
  });
  define(env, object, "write", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    const Values values = valuesOf(info[1]);
    rank.write(integerOf(info[0]), values.data, values.elements, values.integers);
    return info.Env().Undefined();
  });
  define(env, object, "read", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    const Values values = valuesOf(info[1]);
    rank.read(integerOf(info[0]), values.data, values.elements, values.integers);
    return info.Env().Undefined();
  });
  define(env, object, "prepare", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    const auto op = info[0].As<Napi::Object>();
    return Napi::Number::New(info.Env(), rank.prepare(callOf(op), integersOf(op.Get("reads")), integersOf(op.Get("writes"))));
  });
  define(env, object, "release", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    rank.release(integerOf(info[0]));
    return info.Env().Undefined();
  });
  const auto lane = [](const Napi::Value& value) {
    const int32_t lane = integerOf(value);
    if (lane < 0 || lane >= laneCount) throw BadCall("no lane " + std::to_string(lane));
    return lane;
  };
  define(env, object, "ended", rank, [lane](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    return Napi::Number::New(info.Env(), rank.ended(lane(info[0])));
  });
  define(env, object, "submitted", rank, [lane](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    return Napi::Number::New(info.Env(), rank.submitted(lane(info[0])));
  });
  define(env, object, "watch", rank, [lane](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    return Napi::Boolean::New(info.Env(), rank.watch(lane(info[0]), integerOf(info[1])));
  });
  define(env, object, "writerOf", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    const Writer writer = rank.writerOf(integerOf(info[0]));
    const double code = writer.op < 0 ? -1 : static_cast<double>(writer.op) * laneCount + writer.lane;
    return Napi::Number::New(info.Env(), code);
  });
  define(env, object, "takeTimes", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    const std::vector<OpTime> times = rank.takeTimes();
    auto columns = Napi::Float64Array::New(info.Env(), times.size() * 4);
    for (size_t i = 0; i < times.size(); i++) {
      columns[4 * i] = times[i].op;
      columns[4 * i + 1] = times[i].lane;
      columns[4 * i + 2] = static_cast<double>(times[i].start);
      columns[4 * i + 3] = static_cast<double>(times[i].end);
    }
    return columns;
  });
  return object;
}

Napi::Value openSession(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const auto given = info[0].As<Napi::Object>();
    auto session = std::make_shared<Session>();
    MachineOptions options;
    options.ranks = integerOf(given.Get("ranks"));
    const std::vector<double> h2d = numbersOf(given.Get("h2d"));
    const std::vector<double> d2h = numbersOf(given.Get("d2h"));
    options.h2dBytesPerSecond = h2d.at(0);
    options.h2dLatencySeconds = h2d.at(1);
    options.d2hBytesPerSecond = d2h.at(0);
    options.d2hLatencySeconds = d2h.at(1);
    options.linkBytesPerSecond = numbersOf(given.Get("linkBytesPerSecond"));
    options.timed = Napi::Value(given.Get("timed")).As<Napi::Boolean>().Value();
    for (const double rate : options.linkBytesPerSecond) {
      if (!(rate > 0)) throw BadCall("session: a link of " + std::to_string(rate) + " bytes per second");
    }
    for (const auto& bus : {h2d, d2h}) {
      if (!(bus[0] > 0) || !(bus[1] >= 0)) throw BadCall("session: a bus needs a positive rate and no negative latency");
    }
    if (options.ranks < 1) throw BadCall("session: " + std::to_string(options.ranks) + " ranks; expected at least 1");

    const auto onProgress = Napi::Value(given.Get("onProgress")).As<Napi::Function>();
    session->progress = Napi::ThreadSafeFunction::New(env, onProgress, "tandem progress", 0, 1);
    Session* const told = session.get();
    // Lanes end before the session does, so the pointer holds.
    options.onProgress = [told] {
      if (told->told.exchange(true)) return;
      told->progress.NonBlockingCall([told](Napi::Env, Napi::Function call) {
        told->told.store(false);
        call.Call({});
      });
    };
    session->machine = openCpu(options);
    for (int rank = 0; rank < options.ranks; rank++) {
      session->ranks.push_back(std::make_unique<Rank>(session->machine->device(rank), numberOf(given, "deviceBytes"),
                                                      numberOf(given, "hostBytes")));
    }
    env.GetInstanceData<Sessions>()->open.insert(session);

    auto object = Napi::Object::New(env);
    object.Set("rank", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) -> Napi::Value {
                 return guarded(info.Env(), [&] { return makeRank(info, session); });
               }));
    object.Set("fault", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) -> Napi::Value {
                 const auto fault = session->machine ? session->machine->fault() : session->fault;
                 return fault ? Napi::String::New(info.Env(), *fault) : info.Env().Undefined();
               }));
    object.Set("nowNanoseconds", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) -> Napi::Value {
                 const double now = session->machine ? static_cast<double>(session->machine->nowNanoseconds()) : 0;
                 return Napi::Number::New(info.Env(), now);
               }));
    object.Set("hold", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) -> Napi::Value {
                 if (!session->machine) return info.Env().Undefined();
                 if (info[0].As<Napi::Boolean>().Value()) {
                   session->progress.Ref(info.Env());
                 } else {
                   session->progress.Unref(info.Env());
                 }
                 return info.Env().Undefined();
               }));
    object.Set("open", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) -> Napi::Value {
                 return Napi::Boolean::New(info.Env(), session->machine != nullptr);
               }));
    object.Set("close", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) -> Napi::Value {
                 session->close();
                 info.Env().GetInstanceData<Sessions>()->open.erase(session);
                 return info.Env().Undefined();
               }));
    session->progress.Unref(env);
    return object;
  });
}

std::string compilerName() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "g++ " __VERSION__;
#else
  return "unknown";
#endif
}

Napi::Value describe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto cpu = Napi::Object::New(env);
  std::vector<std::string> missing;
  if (!openBlasFound()) {
    missing.emplace_back("OpenBLAS, for faster matrix products; on Debian \"apt-get install libopenblas0\"");
  }
  cpu.Set("name", "cpu");
  cpu.Set("devices", stringsOf(env, {std::to_string(std::thread::hardware_concurrency()) + " hardware threads"}));
  cpu.Set("missing", stringsOf(env, missing));
  auto backends = Napi::Array::New(env, 1);
  backends.Set(uint32_t{0}, cpu);
  auto object = Napi::Object::New(env);
  object.Set("backends", backends);
  object.Set("blas", blasInForce());
  object.Set("simd", simdName());
  object.Set("compiler", compilerName());
  object.Set("kernels", stringsOf(env, cpuKernels()));
  return object;
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Sessions());
  // Threads must not outlive the environment that they report to.
  env.AddCleanupHook(
      [](Sessions* sessions) {
        for (const SessionRef& session : sessions->open) session->close();
        sessions->open.clear();
      },
      env.GetInstanceData<Sessions>());
  exports.Set("info", Napi::Function::New(env, describe));
  exports.Set("useBlas", Napi::Function::New(env, [](const Napi::CallbackInfo& info) -> Napi::Value {
                return guarded(info.Env(), [&]() -> Napi::Value {
                  return Napi::String::New(info.Env(), useBlas(info[0].As<Napi::String>().Utf8Value()));
                });
              }));
  exports.Set("openSession", Napi::Function::New(env, openSession));
  return exports;
}

}  // namespace

NODE_API_MODULE(tandem, initialise)
