// Matrix products in float32: this project's own, or a library's with the CBLAS interface where one was loaded.
#pragma once

#include <cstdint>
#include <string>

namespace tandem {

/** A matrix anywhere in memory: element (i, j) at data[i * row + j * column]; one of the two strides is 1. */
struct Matrix {
  const float* data;
  int64_t row;
  int64_t column;

  Matrix transposed() const { return {data, column, row}; }
};

/**
 * c[m, n] = a[m, k] b[k, n], added to what is there with `add`; rows of c are `stride` apart. Sums in an order that depends
 * on the sizes alone.
 */
void multiply(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, int64_t stride, bool add);

/** The project's own product, whatever is loaded. */
void multiplyOwn(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, int64_t stride, bool add);

/** "own", "openblas" or the path of a library; returns what is in force. Throws BadCall when it cannot be loaded. */
std::string useBlas(const std::string& name);
/** What is in force: "own", or the library and its name. */
std::string blasInForce();
/** True when OpenBLAS is where the system keeps libraries. */
bool openBlasFound();

}  // namespace tandem
