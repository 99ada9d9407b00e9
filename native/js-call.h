// Calls into JavaScript from the event loop, on behalf of other threads.
#pragma once

#include <node_api.h>

#include <cstddef>

namespace tandem {

/**
 * Calls a function. What it throws is the program's uncaught exception, as in a timer. Nobody is called, and nothing thrown, while
 * the environment is going away.
 */
inline void callFromLoop(napi_env env, napi_value function, size_t count = 0, const napi_value* given = nullptr) {
  napi_value receiver;
  if (napi_get_undefined(env, &receiver) != napi_ok) return;
  if (napi_call_function(env, receiver, function, count, given, nullptr) != napi_pending_exception) return;
  napi_value error;
  if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
}

}  // namespace tandem
