// A mesh as JavaScript holds it; sessions of the addon run on one.
#pragma once

#include <napi.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "transport/mesh.h"

namespace tandem {

/**
 * Hands messages over to a JavaScript function, until it or the environment ends. Made, held and ended by the program's thread; told
 * by any.
 */
class Notes {
 public:
  Notes(Napi::Env env, const Napi::Function& handler);
  ~Notes() { end(); }
  Notes(const Notes&) = delete;
  Notes& operator=(const Notes&) = delete;

  /** From any thread; after the end, to nobody. */
  void tell(int peer, std::optional<std::string> text);
  /** Whether the process lives on for its sake. */
  void hold(bool alive);
  void end();

 private:
  static void endWithEnvironment(void* notes);
  void release();

  const napi_env env_;
  /** Whether the environment will say when it ends. */
  bool hooked_ = false;
  std::mutex mutex_;
  /** Null after the end. */
  napi_threadsafe_function call_ = nullptr;
};

/** Closed, it lets go of the mesh, which lives on while something still runs on it, and ends what still connects. */
struct MeshHandle {
  std::shared_ptr<Mesh> mesh;
  std::shared_ptr<Notes> notes;
  /** Sessions that have been opened on it. */
  uint32_t sessions = 0;

  ~MeshHandle() { close(); }
  void close();
  /** Throws when it is closed. */
  const std::shared_ptr<Mesh>& open() const;
  Mesh& get() const { return *open(); }
};

using MeshRef = std::shared_ptr<MeshHandle>;

Napi::Value openMesh(const Napi::CallbackInfo& info);

}  // namespace tandem
