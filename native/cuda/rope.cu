// Rotary position embedding, "rotate half"; argument order as core/kernels/rope.ts. Angles in float64.
#include "map.cuh"

namespace tandem::cuda {

namespace {

/** One pair of elements: i-th of a head's halves, of one head of one token. */
struct Rotate {
  View inp, out;
  int64_t time, heads, half;
  double offset, base, direction;

  __device__ void operator()(int64_t index) const {
    const int64_t i = index % half;
    const int64_t at = index / half * 2 * half + i;
    const int64_t t = index / half / heads % time;
    rotate(at, i, offset + static_cast<double>(t));
  }

  __device__ void rotate(int64_t at, int64_t i, double position) const {
    const double angle = position * pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(2 * half));
    double sine, cosine;
    sincos(angle, &sine, &cosine);
    sine *= direction;
    const double x = get(inp, at);
    const double y = get(inp, at + half);
    set(out, at, static_cast<float>(x * cosine - y * sine));
    set(out, at + half, static_cast<float>(y * cosine + x * sine));
  }
};

template <int direction>
Work rotate(const Call& call) {
  const Shape& shape = input(call, 0).shape;
  const int64_t headWidth = call.integer("headWidth");
  const Scalar offset = call.scalar("offset");
  const Rotate r = {floatsIn(call, 0),
                    floatsOut(call, 0),
                    shape.at(1),
                    headWidth == 0 ? 0 : shape.at(2) / headWidth,
                    headWidth / 2,
                    0,
                    call.number("base"),
                    direction};
  const int64_t pairs = shape.at(0) * shape.at(1) * r.heads * r.half;
  return [=](const Launch& launch) {
    Rotate with = r;
    with.offset = offset(launch.scalars);
    each(launch, pairs, with);
  };
}

struct RotateRows {
  Rotate r;
  View positions;

  __device__ void operator()(int64_t index) const {
    const int64_t i = index % r.half;
    const int64_t at = index / r.half * 2 * r.half + i;
    r.rotate(at, i, static_cast<double>(getInteger(positions, index / r.half / r.heads)));
  }
};

/** Decoding: each row's token at its own position. */
Work rotateRows(const Call& call) {
  const int64_t width = input(call, 0).shape.at(1);
  const int64_t headWidth = call.integer("headWidth");
  const Rotate r = {floatsIn(call, 0), floatsOut(call, 0), 1, headWidth == 0 ? 0 : width / headWidth, headWidth / 2, 0,
                    call.number("base"), 1};
  const int64_t pairs = input(call, 0).shape.at(0) * r.heads * r.half;
  const View positions = integersIn(call, 1);
  return [=](const Launch& launch) { each(launch, pairs, RotateRows{r, positions}); };
}

}  // namespace

const KernelTable ropeKernels = {{"rope.forward", rotate<1>}, {"rope.backward", rotate<-1>}, {"rope.rows", rotateRows}};

}  // namespace tandem::cuda
