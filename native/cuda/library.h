// Libraries that are opened at run time: by the names under which systems and Python wheels keep them.
#pragma once

#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace tandem::cuda {

class Library {
 public:
  /** The first of the names that can be opened. `variable` names an environment variable: a path, and no other is tried; or "none". */
  Library(const char* variable, std::vector<std::string> names) {
    if (const char* path = std::getenv(variable); path != nullptr && *path != 0) names = {path};
    if (names.front() == "none") {
      error_ = std::string(variable) + " is none";
      return;
    }
    for (const std::string& name : names) {
      handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (handle_ != nullptr) return;
      const std::string error = dlerror();
      if (error_.empty()) error_ = error;
    }
  }

  bool found() const { return handle_ != nullptr; }
  /** Of the first name. */
  const std::string& error() const { return error_; }

  /** False when the library has no such function. */
  template <class F>
  bool bind(F& function, const char* name) const {
    function = reinterpret_cast<F>(dlsym(handle_, name));
    return function != nullptr;
  }

 private:
  // Libraries stay open: their threads and handlers may outlive whoever opened them.
  void* handle_ = nullptr;
  std::string error_;
};

}  // namespace tandem::cuda
