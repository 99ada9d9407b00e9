// The N-API surface of a mesh, one to one: the pleasant side is exec/job/mesh.ts.
#include <napi.h>

#include <memory>
#include <thread>
#include <vector>

#include "js-call.h"
#include "mesh-addon.h"

namespace tandem {

namespace {

Napi::Value describeFault(Napi::Env env, const std::optional<MeshFault>& fault) {
  if (!fault) return env.Undefined();
  static const char* const kinds[] = {"lost", "told", "mismatch", "protocol"};
  auto object = Napi::Object::New(env);
  object.Set("kind", kinds[static_cast<int>(fault->kind)]);
  object.Set("rank", fault->rank);
  object.Set("message", fault->message);
  return object;
}

Transport transportNamed(const std::string& name) {
  if (name == "tcp") return Transport::tcp;
  if (name == "ucx") return Transport::ucx;
  if (name == "auto") return Transport::automatic;
  throw NoMesh("transport is \"" + name + "\"; expected \"auto\", \"tcp\" or \"ucx\"");
}

/** Connects on a thread of its own: who waits for peers must not hold up the program's. */
class Connecting : public Napi::AsyncWorker {
 public:
  Connecting(Napi::Env env, std::shared_ptr<Mesh> mesh, std::vector<Address> addresses, std::string key,
             double timeoutSeconds)
      : Napi::AsyncWorker(env),
        deferred(Napi::Promise::Deferred::New(env)),
        mesh_(std::move(mesh)),
        addresses_(std::move(addresses)),
        key_(std::move(key)),
        timeoutSeconds_(timeoutSeconds) {}

  void Execute() override { mesh_->connect(addresses_, key_, timeoutSeconds_); }
  void OnOK() override {
    settle([this] { deferred.Resolve(Env().Undefined()); });
  }
  void OnError(const Napi::Error& error) override {
    settle([&] { deferred.Reject(error.Value()); });
  }

  const Napi::Promise::Deferred deferred;

 private:
  template <class Body>
  static void settle(Body body) {
    try {
      body();
    } catch (const Napi::Error&) {
      // The environment is going away, and nobody waits for it any more.
    }
  }

  /** Its own: the mesh may be closed meanwhile. */
  const std::shared_ptr<Mesh> mesh_;
  const std::vector<Address> addresses_;
  const std::string key_;
  const double timeoutSeconds_;
};

struct Note {
  int peer;
  std::optional<std::string> text;
};

/** A queued note reaches us without an environment when that is going down: there is nobody to tell then. */
void handOver(napi_env env, napi_value function, void*, void* data) {
  const std::unique_ptr<Note> note(static_cast<Note*>(data));
  if (env == nullptr || function == nullptr) return;
  napi_value given[2];
  if (napi_create_int32(env, note->peer, &given[0]) != napi_ok) return;
  const napi_status made = note->text ? napi_create_buffer_copy(env, note->text->size(), note->text->data(), nullptr, &given[1])
                                      : napi_get_undefined(env, &given[1]);
  if (made != napi_ok) return;
  callFromLoop(env, function, 2, given);
}

}  // namespace

Notes::Notes(Napi::Env env, const Napi::Function& handler) : env_(env) {
  const napi_status status =
      napi_create_threadsafe_function(env, handler, nullptr, Napi::String::New(env, "tandem notes"), 0, 1, nullptr,
                                      nullptr, nullptr, handOver, &call_);
  if (status != napi_ok) throw std::runtime_error("mesh: no threadsafe function");
  // Hooks run last in, first out: this one before the function is gone, which threads of the mesh still call.
  napi_add_env_cleanup_hook(env, endWithEnvironment, this);
  hooked_ = true;
}

void Notes::tell(int peer, std::optional<std::string> text) {
  auto note = std::make_unique<Note>(Note{peer, std::move(text)});
  const std::lock_guard lock(mutex_);
  if (call_ == nullptr) return;
  const napi_status status = napi_call_threadsafe_function(call_, note.get(), napi_tsfn_nonblocking);
  if (status == napi_ok) note.release();
  // It is gone with that, and not to be released.
  if (status == napi_closing) call_ = nullptr;
}

void Notes::hold(bool alive) {
  const std::lock_guard lock(mutex_);
  if (call_ != nullptr) (alive ? napi_ref_threadsafe_function : napi_unref_threadsafe_function)(env_, call_);
}

void Notes::end() {
  if (!hooked_) return;
  hooked_ = false;
  napi_remove_env_cleanup_hook(env_, endWithEnvironment, this);
  release();
}

void Notes::endWithEnvironment(void* given) {
  auto* const notes = static_cast<Notes*>(given);
  notes->hooked_ = false;
  notes->release();
}

void Notes::release() {
  const std::lock_guard lock(mutex_);
  if (call_ != nullptr) napi_release_threadsafe_function(call_, napi_tsfn_release);
  call_ = nullptr;
}

void MeshHandle::close() {
  if (!mesh) return;
  mesh->giveUp();
  mesh.reset();
  if (notes) notes->end();
}

const std::shared_ptr<Mesh>& MeshHandle::open() const {
  if (!mesh) throw std::runtime_error("the mesh is closed");
  return mesh;
}

Napi::Value openMesh(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  try {
    const auto given = info[0].As<Napi::Object>();
    const auto number = [&](const char* name) {
      return Napi::Value(given.Get(name)).As<Napi::Number>().DoubleValue();
    };
    const auto text = [&](const char* name) { return Napi::Value(given.Get(name)).As<Napi::String>().Utf8Value(); };
    MeshOptions options;
    options.rank = static_cast<int>(number("rank"));
    options.size = static_cast<int>(number("size"));
    options.streams = static_cast<int>(number("streams"));
    options.transport = transportNamed(text("transport"));
    options.host = text("host");
    options.heartbeatSeconds = number("heartbeatSeconds");
    options.lostAfterSeconds = number("lostAfterSeconds");
    auto handle = std::make_shared<MeshHandle>();
    handle->mesh = std::make_shared<Mesh>(options);

    auto object = Napi::Object::New(env);
    object.Set("handle", Napi::External<MeshRef>::New(env, new MeshRef(handle),
                                                      [](Napi::Env, MeshRef* held) { delete held; }));
    object.Set("port", handle->mesh->port());
    const auto define = [&](const char* name, std::function<Napi::Value(const Napi::CallbackInfo&)> body) {
      object.Set(name, Napi::Function::New(env, [body](const Napi::CallbackInfo& info) -> Napi::Value {
                   try {
                     return body(info);
                   } catch (const Napi::Error&) {
                     throw;
                   } catch (const std::exception& error) {
                     throw Napi::Error::New(info.Env(), error.what());
                   }
                 }));
    };
    define("connect", [handle](const Napi::CallbackInfo& info) -> Napi::Value {
      std::vector<Address> addresses;
      const auto array = info[0].As<Napi::Array>();
      for (uint32_t i = 0; i < array.Length(); i++) {
        const auto one = Napi::Value(array.Get(i)).As<Napi::Object>();
        addresses.push_back({Napi::Value(one.Get("host")).As<Napi::String>().Utf8Value(),
                             Napi::Value(one.Get("port")).As<Napi::Number>().Int32Value()});
      }
      auto* const worker =
          new Connecting(info.Env(), handle->open(), std::move(addresses), info[1].As<Napi::String>().Utf8Value(),
                         info[2].As<Napi::Number>().DoubleValue());
      worker->Queue();
      return worker->deferred.Promise();
    });
    define("note", [handle](const Napi::CallbackInfo& info) -> Napi::Value {
      const auto bytes = info[1].As<Napi::Uint8Array>();
      handle->get().note(info[0].As<Napi::Number>().Int32Value(),
                         std::string(reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength()));
      return info.Env().Undefined();
    });
    define("onNote", [handle](const Napi::CallbackInfo& info) -> Napi::Value {
      Mesh& mesh = handle->get();
      if (handle->notes) throw std::runtime_error("the mesh has a handler of notes already");
      const auto notes = std::make_shared<Notes>(info.Env(), info[0].As<Napi::Function>());
      handle->notes = notes;
      mesh.onNote([notes](int peer, std::optional<std::string> text) { notes->tell(peer, std::move(text)); });
      // A fault is told as a note of nobody.
      mesh.onFault([notes](const MeshFault&) { notes->tell(-1, std::nullopt); });
      return info.Env().Undefined();
    });
    define("fault", [handle](const Napi::CallbackInfo& info) -> Napi::Value {
      return describeFault(info.Env(), handle->mesh ? handle->mesh->fault() : std::nullopt);
    });
    define("fail", [handle](const Napi::CallbackInfo& info) -> Napi::Value {
      if (!handle->mesh) return info.Env().Undefined();
      handle->mesh->fail({MeshFault::Kind::told, handle->mesh->rank(), info[0].As<Napi::String>().Utf8Value()});
      return info.Env().Undefined();
    });
    define("lose", [handle](const Napi::CallbackInfo& info) -> Napi::Value {
      if (!handle->mesh) return info.Env().Undefined();
      const int peer = info[0].As<Napi::Number>().Int32Value();
      handle->mesh->fail({MeshFault::Kind::lost, peer, "rank " + std::to_string(peer) + " has ended"});
      return info.Env().Undefined();
    });
    define("transport", [handle](const Napi::CallbackInfo& info) -> Napi::Value {
      const Mesh::CarriedBy by = handle->get().carriedBy();
      if (by.name.empty()) return info.Env().Undefined();
      auto told = Napi::Object::New(info.Env());
      told.Set("name", by.name);
      told.Set("because", by.because);
      return told;
    });
    define("nowNanoseconds", [](const Napi::CallbackInfo& info) -> Napi::Value {
      return Napi::Number::New(info.Env(), static_cast<double>(Mesh::nowNanoseconds()));
    });
    define("hold", [handle](const Napi::CallbackInfo& info) -> Napi::Value {
      if (handle->notes) handle->notes->hold(info[0].As<Napi::Boolean>().Value());
      return info.Env().Undefined();
    });
    define("close", [handle](const Napi::CallbackInfo& info) -> Napi::Value {
      handle->close();
      return info.Env().Undefined();
    });
    return object;
  } catch (const NoMesh& error) {
    throw Napi::Error::New(env, error.what());
  }
}

}  // namespace tandem
