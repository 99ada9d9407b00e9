// The N-API surface, one to one: sessions and ranks as plain objects of functions, integers and typed arrays across. What a
// call means is in rank.h and backend.h; the pleasant side is exec/native.ts.
#include <napi.h>

#ifdef __linux__
#include <csignal>
#include <sys/prctl.h>
#endif

#include <atomic>
#include <memory>

#include "build/sources.h"
#include "cpu/gemm.h"
#include "cpu/simd.h"
#include "cuda-library.h"
#include "emulation.h"
#include "js-call.h"
#include "js-values.h"
#include "mesh-addon.h"
#include "rank.h"
#include "transport/mesh-peers.h"
#include "transport/ucx-api.h"

namespace {

using namespace tandem;

/** Calls into JavaScript from any thread; progress while a call is on its way needs no second one. */
struct Notifier {
  napi_threadsafe_function call = nullptr;
  std::atomic<bool> told{false};

  void tell() {
    if (told.exchange(true)) return;
    napi_call_threadsafe_function(call, nullptr, napi_tsfn_nonblocking);
  }
};

using NotifierRef = std::shared_ptr<Notifier>;

/** A queued call reaches us without an environment when that is going down: there is nobody to tell then. */
void callOnProgress(napi_env env, napi_value function, void* context, void*) {
  if (env == nullptr || function == nullptr) return;
  (*static_cast<NotifierRef*>(context))->told.store(false);
  callFromLoop(env, function);
}

NotifierRef makeNotifier(Napi::Env env, const Napi::Function& onProgress) {
  auto notifier = std::make_shared<Notifier>();
  auto* const context = new NotifierRef(notifier);
  const auto drop = [](napi_env, void*, void* context) { delete static_cast<NotifierRef*>(context); };
  const napi_status status =
      napi_create_threadsafe_function(env, onProgress, nullptr, Napi::String::New(env, "tandem progress"), 0, 1, nullptr,
                                      drop, context, callOnProgress, &notifier->call);
  if (status != napi_ok) {
    delete context;
    throw std::runtime_error("session: no threadsafe function");
  }
  // The process lives on for its sake while somebody watches, and only then.
  napi_unref_threadsafe_function(env, notifier->call);
  return notifier;
}

/** Everything of one session. Lives until the session is closed and no JavaScript function holds on to it. */
struct Session {
  Napi::Env env;
  std::unique_ptr<Machine> machine;
  std::vector<std::unique_ptr<Rank>> ranks;
  NotifierRef notifier;
  std::optional<Fault> fault;
  Replays replays;
  /** Connections to other processes, kept while the machine runs on them. */
  std::shared_ptr<Mesh> mesh;
  std::unique_ptr<MeshPeers> peers;

  explicit Session(Napi::Env env) : env(env) {}
  ~Session() { close(); }

  void close() {
    if (!notifier) return;
    // Lanes first, for they use what ranks have prepared.
    if (machine) {
      fault = machine->fault();
      replays = machine->replays();
    }
    machine.reset();
    peers.reset();
    mesh.reset();
    ranks.clear();
    napi_release_threadsafe_function(notifier->call, napi_tsfn_release);
    notifier.reset();
    napi_remove_env_cleanup_hook(env, closeAtEnd, this);
  }

  /** Threads must not outlive the environment (the process, or a worker of Node) that they report to. */
  static void closeAtEnd(void* session) { static_cast<Session*>(session)->close(); }
};

using SessionRef = std::shared_ptr<Session>;

/** A rank as its functions see it. */
struct RankRef {
  SessionRef session;
  size_t rank;

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

/**
 * The one hot call: submit(op, edgeCount, edge, edge, edge, edge, edge, ...scalars) -> position in program order. Plain N-API,
 * numbers in and out; edges beyond the count are not looked at.
 */
napi_value submit(napi_env env, napi_callback_info info) {
  constexpr size_t edgesMax = programLanes;
  constexpr size_t fixed = 2 + edgesMax;
  size_t count = fixed + maxScalars + 1;
  napi_value arguments[fixed + maxScalars + 1];
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, arguments, nullptr, &data);
  int32_t op = -1;
  int32_t edgeCount = -1;
  int32_t edges[edgesMax];
  double scalars[maxScalars];
  bool fits = count >= fixed && count <= fixed + maxScalars &&
              napi_get_value_int32(env, arguments[0], &op) == napi_ok &&
              napi_get_value_int32(env, arguments[1], &edgeCount) == napi_ok && edgeCount >= 0 &&
              static_cast<size_t>(edgeCount) <= edgesMax;
  for (int32_t i = 0; fits && i < edgeCount; i++) fits = napi_get_value_int32(env, arguments[2 + i], &edges[i]) == napi_ok;
  for (size_t i = fixed; fits && i < count; i++) {
    fits = napi_get_value_double(env, arguments[i], &scalars[i - fixed]) == napi_ok;
  }
  if (!fits) {
    napi_throw_type_error(env, nullptr, "submit: expected an op, a count of edges up to 5, 5 edges, and up to 8 scalars");
    return nullptr;
  }
  const auto& rank = *static_cast<RankRef*>(data);
  try {
    napi_value result;
    const int32_t id = rank.get().submit(op, edges, edgeCount, scalars, static_cast<int>(count - fixed));
    napi_create_int32(env, id, &result);
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
  auto object = Napi::Object::New(env);
  napi_value function;
  napi_create_function(env, "submit", NAPI_AUTO_LENGTH, submit, rank.get(), &function);
  object.Set("submit", Napi::Value(env, function));
  // The function keeps what it points to alive.
  napi_add_finalizer(
      env, function, new std::shared_ptr<RankRef>(rank),
      [](napi_env, void* held, void*) { delete static_cast<std::shared_ptr<RankRef>*>(held); }, nullptr, nullptr);

  define(env, object, "alloc", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    const bool fits = rank.allocate(integerOf(info[0]), placeOf(integerOf(info[1])), dtypeOf(integerOf(info[2])),
                                    shapeOf(info[3]), info[4].As<Napi::Boolean>().Value());
    return Napi::Boolean::New(info.Env(), fits);
  });
  define(env, object, "view", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    rank.view(integerOf(info[0]), integerOf(info[1]), wholeOf(info[2].As<Napi::Number>().DoubleValue()),
              dtypeOf(integerOf(info[3])), shapeOf(info[4]));
    return info.Env().Undefined();
  });
  define(env, object, "free", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    rank.free(integerOf(info[0]));
    return info.Env().Undefined();
  });
  define(env, object, "capacityBytes", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    return Napi::Number::New(info.Env(), rank.capacityBytes(placeOf(integerOf(info[0]))));
  });
  define(env, object, "freeBytes", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    return Napi::Number::New(info.Env(), rank.freeBytes(placeOf(integerOf(info[0]))));
  });
  define(env, object, "workspaceBytes", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    return Napi::Number::New(info.Env(), static_cast<double>(rank.workspaceBytes()));
  });
  define(env, object, "upload", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    const Values values = valuesOf(info[1]);
    rank.upload(integerOf(info[0]), values.data, values.elements, values.integers);
    return info.Env().Undefined();
  });
  define(env, object, "draw", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    const auto drawn = info[1].As<Napi::Object>();
    Call call;
    call.kernel = Napi::Value(drawn.Get("kernel")).As<Napi::String>().Utf8Value();
    call.attributes = attributesOf(drawn);
    rank.draw(integerOf(info[0]), std::move(call));
    return info.Env().Undefined();
  });
  define(env, object, "settled", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    return Napi::Boolean::New(info.Env(), rank.settled());
  });
  define(env, object, "read", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    const Values values = valuesOf(info[1]);
    rank.read(integerOf(info[0]), values.data, values.elements, values.integers);
    return info.Env().Undefined();
  });
  define(env, object, "download", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    return Napi::Number::New(info.Env(), rank.download(integerOf(info[0])));
  });
  define(env, object, "downloadFor", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    const int32_t lane = integerOf(info[1]);
    if (lane < 0 || lane >= programLanes) throw BadCall("download: no lane " + std::to_string(lane));
    std::vector<int32_t> edges;
    for (size_t i = 2; i < info.Length(); i++) edges.push_back(integerOf(info[i]));
    return Napi::Number::New(
        info.Env(), rank.downloadFor(integerOf(info[0]), lane, edges.data(), static_cast<int>(edges.size())));
  });
  define(env, object, "arrived", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    return Napi::Boolean::New(info.Env(), rank.arrived(integerOf(info[0])));
  });
  define(env, object, "take", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    const Values values = valuesOf(info[1]);
    rank.take(integerOf(info[0]), values.data, values.elements, values.integers);
    return info.Env().Undefined();
  });
  define(env, object, "endStep", rank, [](const Napi::CallbackInfo& info, Rank& rank) -> Napi::Value {
    rank.endStep();
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
    if (lane < 0 || lane >= programLanes) throw BadCall("no lane " + std::to_string(lane));
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
    const double code = writer.op < 0 ? -1 : static_cast<double>(writer.op) * programLanes + writer.lane;
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

Napi::Value describe(Napi::Env env, const std::optional<Fault>& fault) {
  if (!fault) return env.Undefined();
  auto object = Napi::Object::New(env);
  object.Set("kind", nameOf(fault->kind));
  object.Set("rank", fault->rank);
  object.Set("op", fault->op);
  object.Set("peer", fault->peer);
  object.Set("message", fault->message);
  return object;
}

Napi::Value describe(Napi::Env env, const Replays& replays) {
  if (replays.state.empty()) return env.Undefined();
  auto object = Napi::Object::New(env);
  object.Set("state", replays.state);
  object.Set("captured", static_cast<double>(replays.captured));
  object.Set("launched", static_cast<double>(replays.launched));
  object.Set("ops", static_cast<double>(replays.ops));
  return object;
}

Napi::Value openSession(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const auto given = info[0].As<Napi::Object>();
    const Backend& backend = backendNamed(Napi::Value(given.Get("backend")).As<Napi::String>().Utf8Value());
    MachineOptions options;
    options.ranks = integerOf(given.Get("ranks"));
    if (options.ranks < 1) throw BadCall("session: " + std::to_string(options.ranks) + " ranks; expected at least 1");
    options.timed = Napi::Value(given.Get("timed")).As<Napi::Boolean>().Value();
    const auto settings = Napi::Value(given.Get("settings")).As<Napi::Object>();
    const Napi::Array names = settings.GetPropertyNames();
    for (uint32_t i = 0; i < names.Length(); i++) {
      const std::string name = Napi::Value(names.Get(i)).As<Napi::String>().Utf8Value();
      options.settings[name] = numberOf(settings, name.c_str());
    }
    const auto bus = [&](const char* name) -> Bus {
      const std::vector<double> numbers = numbersOf(given.Get(name));
      return {numbers.at(0), numbers.at(1)};
    };
    const Emulation emulation = {bus("h2d"), bus("d2h"), numbersOf(given.Get("linkBytesPerSecond"))};

    const auto session = std::make_shared<Session>(env);
    // Whatever is thrown from here on, the session's destructor closes what was opened.
    session->notifier = makeNotifier(env, Napi::Value(given.Get("onProgress")).As<Napi::Function>());
    napi_add_env_cleanup_hook(env, Session::closeAtEnd, session.get());
    options.onProgress = [notifier = session->notifier] { notifier->tell(); };
    const Napi::Value mesh = given.Get("mesh");
    if (!mesh.IsUndefined()) {
      MeshHandle& handle = **mesh.As<Napi::External<MeshRef>>().Data();
      session->mesh = handle.open();
      session->peers = std::make_unique<MeshPeers>(*session->mesh, handle.sessions++);
      options.mesh = session->peers.get();
      options.peers = session->peers.get();
      options.firstDevice = integerOf(given.Get("firstDevice"));
      options.firstRank = session->mesh->rank();
      if (options.ranks != 1) throw BadCall("session: " + std::to_string(options.ranks) + " ranks on a mesh; expected 1");
    }
    session->machine = openEmulated(backend, options, emulation);
    for (int rank = 0; rank < options.ranks; rank++) {
      session->ranks.push_back(std::make_unique<Rank>(session->machine->device(rank), numberOf(given, "deviceBytes"),
                                                      numberOf(given, "hostBytes")));
    }

    auto object = Napi::Object::New(env);
    object.Set("rank", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) -> Napi::Value {
                 return guarded(info.Env(), [&] { return makeRank(info, session); });
               }));
    object.Set("fault", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) -> Napi::Value {
                 return describe(info.Env(), session->machine ? session->machine->fault() : session->fault);
               }));
    object.Set("abort", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) -> Napi::Value {
                 const std::string message = info[0].As<Napi::String>().Utf8Value();
                 if (session->machine) session->machine->abort({FaultKind::aborted, -1, -1, -1, message});
                 return info.Env().Undefined();
               }));
    object.Set("nowNanoseconds", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) -> Napi::Value {
                 const double now = session->machine ? static_cast<double>(session->machine->nowNanoseconds()) : 0;
                 return Napi::Number::New(info.Env(), now);
               }));
    object.Set("replays", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) -> Napi::Value {
                 return describe(info.Env(), session->machine ? session->machine->replays() : session->replays);
               }));
    object.Set("hold", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) -> Napi::Value {
                 if (!session->notifier) return info.Env().Undefined();
                 const bool alive = info[0].As<Napi::Boolean>().Value();
                 (alive ? napi_ref_threadsafe_function : napi_unref_threadsafe_function)(info.Env(), session->notifier->call);
                 return info.Env().Undefined();
               }));
    object.Set("open", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) -> Napi::Value {
                 return Napi::Boolean::New(info.Env(), session->machine != nullptr);
               }));
    object.Set("close", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) -> Napi::Value {
                 session->close();
                 return info.Env().Undefined();
               }));
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

Napi::Value describeBuild(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto list = Napi::Array::New(env);
  for (const Backend& backend : backends()) {
    const Backend::Availability here = backend.probe();
    auto one = Napi::Object::New(env);
    one.Set("name", backend.name);
    one.Set("title", backend.title);
    one.Set("available", here.available);
    one.Set("devices", stringsOf(env, here.devices));
    one.Set("uses", stringsOf(env, here.uses));
    one.Set("missing", stringsOf(env, here.missing));
    one.Set("kernels", stringsOf(env, backend.kernels()));
    list.Set(list.Length(), one);
  }
  auto object = Napi::Object::New(env);
  object.Set("backends", list);
  object.Set("blas", blasInForce());
  object.Set("simd", simdName());
  object.Set("compiler", compilerName());
  return object;
}

/** UCX as it was found; looks for it when it is first asked for. */
Napi::Value describeUcx(const Napi::CallbackInfo& info) {
  const ucx::Library& library = ucx::library();
  auto found = Napi::Object::New(info.Env());
  if (library.missing.empty()) {
    found.Set("version", library.version);
    found.Set("path", library.path);
  } else {
    found.Set("missing", library.missing);
  }
  return found;
}

/** When the process that started this one ends, this one goes on even if it was stopped: else it would never hear of it. */
Napi::Value continueWithoutParent(const Napi::CallbackInfo& info) {
#ifdef __linux__
  prctl(PR_SET_PDEATHSIG, SIGCONT);
#endif
  return info.Env().Undefined();
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  exports.Set("sources", TANDEM_SOURCES);
  exports.Set("expectCudaSources", Napi::Function::New(env, [](const Napi::CallbackInfo& info) -> Napi::Value {
                return guarded(info.Env(), [&]() -> Napi::Value {
                  expectCudaSources(info[0].As<Napi::String>().Utf8Value());
                  return info.Env().Undefined();
                });
              }));
  exports.Set("continueWithoutParent", Napi::Function::New(env, continueWithoutParent));
  exports.Set("info", Napi::Function::New(env, describeBuild));
  exports.Set("ucx", Napi::Function::New(env, describeUcx));
  exports.Set("useBlas", Napi::Function::New(env, [](const Napi::CallbackInfo& info) -> Napi::Value {
                return guarded(info.Env(), [&]() -> Napi::Value {
                  return Napi::String::New(info.Env(), useBlas(info[0].As<Napi::String>().Utf8Value()));
                });
              }));
  exports.Set("openSession", Napi::Function::New(env, openSession));
  exports.Set("openMesh", Napi::Function::New(env, openMesh));
  return exports;
}

}  // namespace

NODE_API_MODULE(tandem, initialise)
