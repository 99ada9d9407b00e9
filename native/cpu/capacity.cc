// How much memory this process may have: the system's, or what its control group allows.
#include <cstdio>
#include <cmath>

#include <unistd.h>

#include "kernels.h"

namespace tandem {

namespace {

/** A number from a file of the kernel's; infinite where there is none or it says "max". */
double limitIn(const char* path) {
  double bytes = HUGE_VAL;
  if (std::FILE* file = std::fopen(path, "r")) {
    if (std::fscanf(file, "%lf", &bytes) != 1) bytes = HUGE_VAL;
    std::fclose(file);
  }
  return bytes > 0 ? bytes : HUGE_VAL;
}

}  // namespace

double memoryBytes() {
  const double pages = static_cast<double>(sysconf(_SC_PHYS_PAGES));
  const double page = static_cast<double>(sysconf(_SC_PAGESIZE));
  double bytes = pages > 0 && page > 0 ? pages * page : HUGE_VAL;
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    bytes = std::fmin(bytes, limitIn(path));
  }
  return bytes;
}

}  // namespace tandem
