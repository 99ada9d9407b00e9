// The cuda backend, whose library may be missing.
#pragma once

#include <string>

#include "backend.h"

namespace tandem {

Backend cudaBackend();

/** From now on the library is taken only where it was built from sources of that digest; before it is first looked for. */
void expectCudaSources(const std::string& digest);

}  // namespace tandem
