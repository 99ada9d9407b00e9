// What threads that work for a rank are called: "rank0 compute". So debuggers tell them apart, and exec/core-waits.ts counts what
// they waited for a core.
#pragma once

#ifdef __linux__
#include <pthread.h>

#include <string>
#endif

namespace tandem {

/** Names the calling thread; what does not fit Linux's 15 characters is cut off. */
inline void nameThread([[maybe_unused]] int rank, [[maybe_unused]] const char* work) {
#ifdef __linux__
  const std::string name = "rank" + std::to_string(rank) + " " + work;
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
#endif
}

}  // namespace tandem
