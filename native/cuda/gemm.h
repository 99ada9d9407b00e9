// Matrix products: cuBLASLt's where it has one, else this project's own, which takes any dtypes, strides and sizes.
#pragma once

#include "kernels.h"

namespace tandem::cuda {

/** Element (i, j) at i * row + j * column. */
struct Factor {
  View view;
  int64_t row, column;
};

/** c[m, n] = a[m, k] b[k, n] (+ add[m, n]) (+ bias[n]); rows of c and add are n apart. */
struct Product {
  int64_t m, n, k;
  Factor a, b;
  View c;
  View add;
  bool hasAdd;
  View bias;
  bool hasBias;
};

/** The project's own product. */
void multiply(const Launch& launch, const Product& product);

/**
 * Up to so many rows of the left factor, the own product takes a column of the right one per warp, and is as fast as that can be
 * read. Assumed, not measured: where cuBLASLt begins to be faster.
 */
constexpr int64_t fewRows = 8;

/**
 * Products of the rows of each group, which lie one after another: `counts[group]` says how many each has.
 * rows: a is [rows, k], c is [rows, n], b one matrix per group, `groupStride` elements apart.
 * sums: c is one matrix per group, m by n, `groupStride` elements apart, summed over the group's rows of a and b.
 */
struct Grouped {
  Product product;
  View counts;
  int64_t groups, rows, groupStride;
  bool sums;
};

void multiplyGroups(const Launch& launch, const Grouped& grouped);

/**
 * The same on tensor cores: of 16-bit values whose rows are multiples of 64, into float32 or 16 bits, unless TANDEM_CUDA_GROUPED=0. False,
 * and nothing is launched, for others.
 */
bool multiplyGroupsOnTensorCores(const Launch& launch, const Grouped& grouped);

/** The same of products that tensor cores take, by Hopper's own instructions; false, and nothing is launched, on other devices. */
bool multiplyGroupsOnHopper(const Launch& launch, const Grouped& grouped);

/** out[rows, outs] = inp[rows, width] weight[outs, width]^T (+ bias). `tf32`: where cuBLASLt multiplies, float32 factors are read so. */
Work linearProduct(const View& inp, const View& weight, const View* bias, const View& out, int64_t rows, int64_t width,
                   int64_t outs, bool tf32);

}  // namespace tandem::cuda
