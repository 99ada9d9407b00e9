// The part of cuBLASLt that matrix products need. The library is opened at run time, so nothing of it is needed to build;
// where it is missing, or has no way for a product, the project's own product (gemm.h) does it.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <string>

#include "kernels.h"

namespace tandem::cuda {

/** One of the factors, or the result: rows of `width` elements, one after another or `stride` elements apart. */
struct LtMatrix {
  View view;
  int64_t rows, width;
  int64_t stride = 0;
};

/** A product that was looked up once: algorithm, descriptors, workspace. */
class LtProduct {
 public:
  virtual ~LtProduct() = default;
  virtual void run(const Launch& launch) const = 0;
  /** With another left factor and result of the same sizes, aligned as those of the call. */
  virtual void run(const Launch& launch, const View& left, const View& out) const = 0;
};

/** forward: out = gelu(product), and aux is written with the product. backward: out = product * gelu'(aux). */
enum class LtGelu { none, forward, backward };

struct LtCall {
  /** out = left right; each of the two transposed first where it says so. */
  LtMatrix left, right, out;
  bool transposeLeft = false, transposeRight = false;
  /** Added to the product: has the shape and dtype of out, and may be out. */
  View add;
  bool hasAdd = false;
  /** One number per column of out, of its dtype. */
  View bias;
  bool hasBias = false;
  /** Column sums of the untransposed left matrix, which is transposed; of the dtype of out. */
  View leftSums;
  bool hasLeftSums = false;
  /** What goes into a GELU; has the shape and dtype of out. */
  View aux;
  LtGelu gelu = LtGelu::none;
  /** float32 factors are read as TF32. */
  bool tf32 = false;
};

/** Null where cuBLASLt is missing or has no algorithm for it. */
std::shared_ptr<const LtProduct> ltProduct(const LtCall& call);

/** Why there is no cuBLASLt; empty when there is. */
std::string ltMissing();

}  // namespace tandem::cuda
