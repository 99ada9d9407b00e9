// Finds a library with the CBLAS interface at run time, so that nothing is linked and nothing need be installed to build.
#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <limits>
#include <mutex>

#include "../backend.h"
#include "gemm.h"

namespace tandem {

namespace {

// cblas.h: order, transposeA, transposeB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc
using Sgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
constexpr int rowMajor = 101;
constexpr int plain = 111;
constexpr int transposed = 112;

const char* const openBlasNames[] = {"libopenblas.so.0", "libopenblas.so", "libopenblas.0.dylib", "libopenblas.dylib"};

std::mutex choosing;
std::atomic<Sgemm> sgemm{nullptr};
std::string inForce = "own";
std::once_flag chosenOnce;

void* open(const std::string& name) {
  if (name != "openblas") return dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  for (const char* candidate : openBlasNames) {
    if (void* library = dlopen(candidate, RTLD_NOW | RTLD_LOCAL)) return library;
  }
  return nullptr;
}

/** Throws when it cannot be had; then nothing has changed. */
void choose(const std::string& name) {
  const std::lock_guard lock(choosing);
  if (name == "own") {
    sgemm.store(nullptr);
    inForce = "own";
    return;
  }
  void* library = open(name);
  if (library == nullptr) {
    throw BadCall("blas: cannot load \"" + name + "\"; on Debian \"apt-get install libopenblas0\" provides openblas");
  }
  const auto found = reinterpret_cast<Sgemm>(dlsym(library, "cblas_sgemm"));
  if (found == nullptr) throw BadCall("blas: \"" + name + "\" has no cblas_sgemm");
  // One lane is one thread: lanes run side by side, and a library's own threads would fight them for cores.
  using SetThreads = void (*)(int);
  if (const auto set = reinterpret_cast<SetThreads>(dlsym(library, "openblas_set_num_threads"))) set(1);
  sgemm.store(found);
  inForce = name;
}

void chooseFirst() {
  std::call_once(chosenOnce, [] {
    const char* wanted = std::getenv("TANDEM_BLAS");
    try {
      choose(wanted != nullptr && *wanted != '\0' ? wanted : "openblas");
    } catch (const BadCall& error) {
      if (wanted != nullptr && *wanted != '\0') inForce = std::string("own; TANDEM_BLAS: ") + error.what();
    }
  });
}

}  // namespace

std::string useBlas(const std::string& name) {
  chooseFirst();
  choose(name);
  return name;
}

std::string blasInForce() {
  chooseFirst();
  const std::lock_guard lock(choosing);
  return inForce;
}

bool openBlasFound() { return open("openblas") != nullptr; }

void multiply(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, int64_t stride, bool add) {
  chooseFirst();
  const Sgemm product = sgemm.load(std::memory_order_relaxed);
  constexpr int64_t most = std::numeric_limits<int>::max();
  if (product == nullptr || m == 0 || n == 0 || k == 0 || m > most || n > most || k > most) {
    multiplyOwn(m, n, k, a, b, c, stride, add);
    return;
  }
  const auto leading = [](const Matrix& matrix, int64_t columns) {
    // a matrix of one row or column may have any stride there; CBLAS wants at least its width
    return static_cast<int>(matrix.column == 1 ? (matrix.row > columns ? matrix.row : columns) : matrix.column);
  };
  const bool flipA = a.column != 1;
  const bool flipB = b.column != 1;
  product(rowMajor, flipA ? transposed : plain, flipB ? transposed : plain, static_cast<int>(m), static_cast<int>(n),
          static_cast<int>(k), 1.0f, a.data, leading(a, k), b.data, leading(b, n), add ? 1.0f : 0.0f, c,
          static_cast<int>(stride));
}

}  // namespace tandem
