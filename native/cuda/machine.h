// The machine of the cuda backend.
#pragma once

#include "../backend.h"

namespace tandem::cuda {

std::unique_ptr<Machine> open(const MachineOptions& options);

}  // namespace tandem::cuda
