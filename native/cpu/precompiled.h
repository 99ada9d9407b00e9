// What nearly every file includes, compiled once per build.
#ifndef TANDEM_PRECOMPILED_H
#define TANDEM_PRECOMPILED_H

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

#include "kernels.h"
#include "simd.h"
#include "worker.h"

#endif
