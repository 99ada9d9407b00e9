// The parts of this program: its own checks, and a schedule made of what it is told.
#pragma once

#include <iosfwd>

namespace tandem::cuda {

/** All checks; 0 where they hold. */
int run(unsigned seed);
int schedule(std::istream& in, std::ostream& out);

}  // namespace tandem::cuda
