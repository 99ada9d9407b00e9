// A way to other ranks that UCX has been set up for: a context and its worker. Knows nothing of messages.
#pragma once

#include <stdexcept>
#include <string>

#include "ucx-api.h"
#include "ucx-settings.h"

namespace tandem {

/** UCX cannot be used; the message says why. */
class NoUcx : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace ucx {

class Way {
 public:
  /** For so many ranks. Throws NoUcx. */
  Way(const Library& ucx, const Settings& settings, size_t ranks);
  ~Way();
  Way(const Way&) = delete;
  Way& operator=(const Way&) = delete;

  Worker worker() const { return worker_; }
  /** Where others find it. Throws NoUcx. */
  std::string address() const;
  /** Nothing of it is destroyed, now or later. */
  void leave() { worker_ = nullptr, context_ = nullptr; }

 private:
  const Library& ucx_;
  Context context_ = nullptr;
  Worker worker_ = nullptr;
};

}  // namespace ucx

}  // namespace tandem
