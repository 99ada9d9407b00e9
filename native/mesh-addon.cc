// The N-API surface of a mesh, one to one: the pleasant side is exec/job/mesh.ts.
#include <napi.h>

#include <memory>
#include <thread>
#include <vector>

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

/** Connects on a thread of its own: who waits for peers must not hold up the program's. */
class Connecting : public Napi::AsyncWorker {
 public:
  Connecting(Napi::Env env, MeshRef mesh, std::vector<Address> addresses, std::string key,
             double timeoutSeconds)
      : Napi::AsyncWorker(env),
        deferred(Napi::Promise::Deferred::New(env)),
        mesh_(std::move(mesh)),
        addresses_(std::move(addresses)),
        key_(std::move(key)),
        timeoutSeconds_(timeoutSeconds) {}

  void Execute() override { mesh_->get().connect(addresses_, key_, timeoutSeconds_); }
  void OnOK() override { deferred.Resolve(Env().Undefined()); }
  void OnError(const Napi::Error& error) override { deferred.Reject(error.Value()); }

  const Napi::Promise::Deferred deferred;

 private:
  const MeshRef mesh_;
  const std::vector<Address> addresses_;
  const std::string key_;
  const double timeoutSeconds_;
};

struct Note {
  int peer;
  std::string text;
};

}  // namespace

/** Closes the mesh, and lets go of JavaScript. */
void MeshHandle::close() {
  if (!mesh) return;
  mesh.reset();
  if (notes) notes.Release();
}

Mesh& MeshHandle::get() const {
  if (!mesh) throw std::runtime_error("the mesh is closed");
  return *mesh;
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
    options.host = text("host");
    options.heartbeatSeconds = number("heartbeatSeconds");
    options.lostAfterSeconds = number("lostAfterSeconds");
    auto handle = std::make_shared<MeshHandle>();
    handle->mesh = std::make_unique<Mesh>(options);

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
          new Connecting(info.Env(), handle, std::move(addresses), info[1].As<Napi::String>().Utf8Value(),
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
      handle->get();
      handle->notes = Napi::ThreadSafeFunction::New(info.Env(), info[0].As<Napi::Function>(), "tandem notes", 0, 1);
      handle->mesh->onNote([handle = handle.get()](int peer, std::string text) {
        auto* const note = new Note{peer, std::move(text)};
        const auto call = [](Napi::Env env, Napi::Function function, Note* given) {
          const std::unique_ptr<Note> note(given);
          if (env == nullptr || function.IsEmpty()) return;
          function.Call({Napi::Number::New(env, note->peer),
                         Napi::Buffer<char>::Copy(env, note->text.data(), note->text.size())});
        };
        if (handle->notes.NonBlockingCall(note, call) != napi_ok) delete note;
      });
      // A fault is told as a note of nobody.
      handle->mesh->onFault([handle = handle.get()](const MeshFault&) {
        handle->notes.NonBlockingCall([](Napi::Env env, Napi::Function function) {
          if (env == nullptr || function.IsEmpty()) return;
          function.Call({Napi::Number::New(env, -1), Napi::Buffer<char>::New(env, 0)});
        });
      });
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
    define("traffic", [handle](const Napi::CallbackInfo& info) -> Napi::Value {
      const int peer = info[0].As<Napi::Number>().Int32Value();
      auto bytes = Napi::Object::New(info.Env());
      bytes.Set("sent", static_cast<double>(handle->get().sentBytes(peer)));
      bytes.Set("received", static_cast<double>(handle->get().receivedBytes(peer)));
      return bytes;
    });
    define("nowNanoseconds", [](const Napi::CallbackInfo& info) -> Napi::Value {
      return Napi::Number::New(info.Env(), static_cast<double>(Mesh::nowNanoseconds()));
    });
    define("hold", [handle](const Napi::CallbackInfo& info) -> Napi::Value {
      if (!handle->notes) return info.Env().Undefined();
      if (info[0].As<Napi::Boolean>().Value()) {
        handle->notes.Ref(info.Env());
      } else {
        handle->notes.Unref(info.Env());
      }
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
