// The kernels of core/kernels as the native layer knows them: what operands each takes. Whatever reaches a backend has passed
// this, wherever the call came from. Knows nothing of values.
#pragma once

#include "backend.h"

namespace tandem {

/**
 * Throws BadCall that names kernel, operand, shape or dtype and what is expected, unless the operands are those of the kernel.
 * A kernel that is not in the catalogue passes: its backend will not know it.
 */
void checkOperands(const Call& call);

/** The rest of what a signature cannot say (catalogue-rules.cc): true where the kernel has a rule of its own. */
bool checkByRule(const Call& call);

/** "[2, 3]" */
std::string textOf(const Shape& shape);

}  // namespace tandem
