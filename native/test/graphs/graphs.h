// The parts of this program: its own checks, and a schedule made of what it is told.
#pragma once

#include <iosfwd>
#include <string>

namespace tandem::cuda {

void expect(bool holds, const std::string& what);

/** Checks of how times are told. */
void times(unsigned seed);
/** All checks; 0 where they hold. */
int run(unsigned seed);
int schedule(std::istream& in, std::ostream& out);

}  // namespace tandem::cuda
