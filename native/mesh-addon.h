// A mesh as JavaScript holds it; sessions of the addon run on one.
#pragma once

#include <napi.h>

#include <memory>

#include "transport/mesh.h"

namespace tandem {

struct MeshHandle {
  std::unique_ptr<Mesh> mesh;
  Napi::ThreadSafeFunction notes;
  /** Sessions that have been opened on it. */
  uint32_t sessions = 0;

  ~MeshHandle() { close(); }
  void close();
  /** Throws when it is closed. */
  Mesh& get() const;
};

using MeshRef = std::shared_ptr<MeshHandle>;

Napi::Value openMesh(const Napi::CallbackInfo& info);

}  // namespace tandem
