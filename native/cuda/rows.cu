// Moving rows between tensors; argument order as core/kernels/rows.ts, and repack of moe-order.ts.
#include "map.cuh"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {

void expectAlike(const Call& call) {
  const bool integers = isInteger(output(call, 0).dtype);
  for (const auto* operands : {&call.inputs, &call.outputs}) {
    for (const Operand& operand : *operands) {
      if (isInteger(operand.dtype) != integers) throw BadCall(call.kernel + ": integer and float tensors do not mix");
    }
  }
}

struct Move {
  View to, from;
  __device__ void operator()(int64_t i) const { copyElement(to, i, from, i); }
};

/** `elements` of one tensor become those of another. */
void move(const Launch& launch, const View& to, const View& from, int64_t elements) {
  if (elements == 0) return;
  if (to.dtype == from.dtype) {
    check(cudaMemcpyAsync(to.data, from.data, static_cast<size_t>(elements * storedBytes(to.dtype)), cudaMemcpyDeviceToDevice,
                          launch.stream),
          "cudaMemcpyAsync");
  } else {
    each(launch, elements, Move{to, from});
  }
}

/** One run of elements from one tensor into another. */
struct Piece {
  View to, from;
  int64_t elements;
};

Work movePieces(std::vector<Piece> pieces) {
  return [pieces = std::move(pieces)](const Launch& launch) {
    for (const Piece& piece : pieces) move(launch, piece.to, piece.from, piece.elements);
  };
}

Work concatRows(const Call& call) {
  expectAlike(call);
  const View out = viewOf(output(call, 0));
  std::vector<Piece> pieces;
  int64_t at = 0;
  for (const Operand& operand : call.inputs) {
    pieces.push_back({out.at(at), viewOf(operand), operand.elements});
    at += operand.elements;
  }
  const Work moves = movePieces(std::move(pieces));
  const View rest = out.at(at);
  const auto restBytes = static_cast<size_t>((output(call, 0).elements - at) * storedBytes(out.dtype));
  return [=](const Launch& launch) {
    moves(launch);
    if (restBytes > 0) check(cudaMemsetAsync(rest.data, 0, restBytes, launch.stream), "cudaMemsetAsync");
  };
}

Work splitRows(const Call& call) {
  expectAlike(call);
  const View inp = viewOf(input(call, 0));
  std::vector<Piece> pieces;
  int64_t at = 0;
  for (const Operand& operand : call.outputs) {
    pieces.push_back({viewOf(operand), inp.at(at), operand.elements});
    at += operand.elements;
  }
  return movePieces(std::move(pieces));
}

struct LastToken {
  View inp, out;
  int64_t time, width;
  __device__ void operator()(int64_t i) const {
    copyElement(out, i, inp, ((i / width + 1) * time - 1) * width + i % width);
  }
};

Work lastToken(const Call& call) {
  expectAlike(call);
  const Shape& shape = input(call, 0).shape;
  const LastToken last = {viewOf(input(call, 0)), viewOf(output(call, 0)), shape.at(1), shape.at(2)};
  const int64_t elements = shape.at(0) * shape.at(2);
  return [=](const Launch& launch) { each(launch, elements, last); };
}

/** The first of the largest. One that is no number is never larger, and nothing is larger than it if it comes first. */
__global__ void __launch_bounds__(256) argmaxRows(View inp, View out, int64_t width) {
  __shared__ double best[256];
  __shared__ int64_t places[256];
  const int64_t row = blockIdx.x * width;
  double value = getNumber(inp, row);
  int64_t place = 0;
  if (!isnan(value)) {
    for (int64_t c = threadIdx.x; c < width; c += 256) {
      const double other = getNumber(inp, row + c);
      if (other > value) {
        value = other;
        place = c;
      }
    }
  }
  best[threadIdx.x] = value;
  places[threadIdx.x] = place;
  __syncthreads();
  for (int half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      const double other = best[threadIdx.x + half];
      const int64_t otherPlace = places[threadIdx.x + half];
      if (other > best[threadIdx.x] || (other == best[threadIdx.x] && otherPlace < places[threadIdx.x])) {
        best[threadIdx.x] = other;
        places[threadIdx.x] = otherPlace;
      }
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) setInteger(out, blockIdx.x, static_cast<int32_t>(places[0]));
}

Work argmax(const Call& call) {
  const View inp = viewOf(input(call, 0));
  const View out = integersOut(call, 0);
  const int64_t rows = rowsOf(input(call, 0));
  const int64_t width = widthOf(input(call, 0));
  return [=](const Launch& launch) {
    if (rows > 0 && width > 0) argmaxRows<<<static_cast<unsigned>(rows), 256, 0, launch.stream>>>(inp, out, width);
  };
}

/** All inputs' values in order, over all outputs in order. */
Work repack(const Call& call) {
  int64_t elements = 0;
  for (const Operand& in : call.inputs) elements += in.elements;
  int64_t wanted = 0;
  for (const Operand& out : call.outputs) wanted += out.elements;
  if (elements != wanted) {
    throw BadCall("repack: " + std::to_string(elements) + " values into " + std::to_string(wanted));
  }
  std::vector<Piece> pieces;
  size_t from = 0;
  int64_t used = 0;
  for (const Operand& out : call.outputs) {
    for (int64_t at = 0; at < out.elements;) {
      while (used == call.inputs[from].elements) {
        from++;
        used = 0;
      }
      const int64_t count = std::min(out.elements - at, call.inputs[from].elements - used);
      pieces.push_back({viewOf(out).at(at), viewOf(call.inputs[from]).at(used), count});
      at += count;
      used += count;
    }
  }
  return movePieces(std::move(pieces));
}

}  // namespace

const KernelTable rowKernels = {{"concat_rows", concatRows},
                                {"split_rows", splitRows},
                                {"last_token", lastToken},
                                {"argmax", argmax},
                                {"repack", repack}};

}  // namespace tandem::cuda
