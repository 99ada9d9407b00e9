// The cuda backend, whose library may be missing.
#pragma once

#include "backend.h"

namespace tandem {

Backend cudaBackend();

}  // namespace tandem
