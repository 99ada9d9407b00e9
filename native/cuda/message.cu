#include "message.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace tandem::cuda {

namespace {

/** A multiple of 32, so that tiles of two values to a byte begin with 16 of its bytes. */
constexpr int64_t tileElements = 8192;
constexpr int threads = 256;

__device__ inline float decoded(const Tile& tile, const char* message, int64_t i) {
  const auto* data = reinterpret_cast<const uint8_t*>(message + tile.at);
  if (tile.encoding.nibbles) return decodeFloat4(data[i / 2] >> (i % 2 == 0 ? 0 : 4) & 15);
  // codes end at 127 either way: -128 is free for the zero that has a sign
  if (tile.encoding.dtype == Dtype::int8 && data[i] == 0x80) return -0.0f;
  return get({const_cast<uint8_t*>(data), tile.encoding.dtype}, i);
}

/** What arrives: integers as they are, codes times their scale. The product of two float32 is rounded once. */
__device__ inline double arrives(const Tile& tile, const char* message, int64_t i) {
  if (tile.encoding.scaled) {
    const float scale = reinterpret_cast<const float*>(message)[tile.tensor];
    return static_cast<double>(decoded(tile, message, i) * scale);
  }
  return getNumber({const_cast<char*>(message) + tile.at, tile.encoding.dtype}, i);
}

/** Floats that arrive as floats: no number passes through float64 that need not. */
__device__ inline bool floats(const Tile& tile) {
  return !integral(tile.view.dtype) && (tile.encoding.scaled || !integral(tile.encoding.dtype));
}

__device__ inline bool inPacks(const View& view) { return reinterpret_cast<uintptr_t>(view.data) % 16 == 0; }

/** What arrives of the eight elements from i on, a multiple of eight, as far as there are. Tiles begin at multiples of 16 bytes. */
__device__ inline void arriving(const Tile& tile, const char* message, int i, float (&values)[pack]) {
  const bool whole = i + pack <= tile.count;
  if (!tile.encoding.scaled) {
    return getSome({const_cast<char*>(message) + tile.at, tile.encoding.dtype}, i, tile.count, whole, values);
  }
  const float scale = reinterpret_cast<const float*>(message)[tile.tensor];
  if (tile.encoding.nibbles && whole) {
    const uint32_t codes = *reinterpret_cast<const uint32_t*>(message + tile.at + i / 2);
#pragma unroll
    for (int j = 0; j < pack; j++) values[j] = decodeFloat4(codes >> 4 * j & 15) * scale;
    return;
  }
#pragma unroll
  for (int j = 0; j < pack; j++) values[j] = i + j < tile.count ? decoded(tile, message, i + j) * scale : 0.0f;
}

__device__ inline bool copied(const Tile& tile) { return !tile.encoding.scaled && tile.encoding.dtype == tile.view.dtype; }

/** Bytes as they are, sixteen at a time where both ends allow it. */
__device__ inline void copyBytes(char* to, const char* from, int64_t bytes) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) | static_cast<uintptr_t>(bytes)) % 16 == 0) {
    for (int64_t i = threadIdx.x; i < bytes / 16; i += threads) {
      reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
    }
  } else {
    for (int64_t i = threadIdx.x; i < bytes; i += threads) to[i] = from[i];
  }
}

__global__ void __launch_bounds__(threads) packTiles(const Tile* tiles, char* to, const float* scales, int32_t header) {
  const Tile tile = tiles[blockIdx.x];
  if (blockIdx.x == 0) {
    for (int i = threadIdx.x; i < header; i += threads) reinterpret_cast<float*>(to)[i] = scales[i];
  }
  if (copied(tile)) {
    copyBytes(to + tile.at, static_cast<const char*>(tile.view.data), tile.count * storedBytes(tile.view.dtype));
    return;
  }
  const View out = {to + tile.at, tile.encoding.dtype};
  const float scale = tile.encoding.scaled ? scales[tile.tensor] : 0.0f;
  if (tile.encoding.nibbles) {
    const bool packs = inPacks(tile.view);
    for (int i = pack * threadIdx.x; i < tile.count; i += pack * threads) {
      float values[pack];
      getSome(tile.view, i, tile.count, packs && i + pack <= tile.count, values);
      uint32_t codes = 0;
#pragma unroll
      for (int j = 0; j < pack; j++) {
        codes |= static_cast<uint32_t>(gridCode<Scaled::float4>(values[j], scale) & 15) << 4 * j;
      }
      auto* bytes = static_cast<uint8_t*>(out.data) + i / 2;
      if (i + pack <= tile.count) {
        *reinterpret_cast<uint32_t*>(bytes) = codes;
      } else {
        for (int j = 0; i + 2 * j < tile.count; j++) bytes[j] = static_cast<uint8_t>(codes >> 8 * j);
      }
    }
    return;
  }
  const auto code = [&](int64_t i) { return codeOf(get(tile.view, i), scale, tile.encoding.format); };
  for (int64_t i = threadIdx.x; i < tile.count; i += threads) {
    if (!tile.encoding.scaled) {
      copyElement(out, i, tile.view, i);
    } else if (tile.encoding.format == Scaled::int8) {
      const float value = code(i);
      setInteger(out, i, value == 0 && signbit(value) ? -128 : static_cast<int32_t>(value));
    } else {
      set(out, i, code(i));
    }
  }
}

__global__ void __launch_bounds__(threads) unpackTiles(const Tile* tiles, const char* from) {
  const Tile tile = tiles[blockIdx.x];
  if (copied(tile)) {
    copyBytes(static_cast<char*>(tile.view.data), from + tile.at, tile.count * storedBytes(tile.view.dtype));
    return;
  }
  if (!floats(tile)) {
    for (int64_t i = threadIdx.x; i < tile.count; i += threads) setNumber(tile.view, i, arrives(tile, from, i));
    return;
  }
  const bool packs = inPacks(tile.view);
  for (int i = pack * threadIdx.x; i < tile.count; i += pack * threads) {
    float values[pack];
    arriving(tile, from, i, values);
    setSome(tile.view, i, tile.count, packs && i + pack <= tile.count, values);
  }
}

/** `by` times the sum, where that is exactly the sum over `over`; else the quotient. */
__global__ void __launch_bounds__(threads) addTiles(const Tile* tiles, const char* from, int64_t stride, int64_t messages,
                                                    double over, double by) {
  const Tile tile = tiles[blockIdx.x];
  const auto mean = [=](double sum) { return by != 0 ? sum * by : sum / over; };
  if (!floats(tile)) {
    for (int64_t i = threadIdx.x; i < tile.count; i += threads) {
      double sum = 0;
      for (int64_t message = 0; message < messages; message++) sum += arrives(tile, from + message * stride, i);
      setNumber(tile.view, i, mean(sum));
    }
    return;
  }
  const bool packs = inPacks(tile.view);
  for (int i = pack * threadIdx.x; i < tile.count; i += pack * threads) {
    double sums[pack] = {};
    float values[pack];
    for (int64_t message = 0; message < messages; message++) {
      arriving(tile, from + message * stride, i, values);
#pragma unroll
      for (int j = 0; j < pack; j++) sums[j] += static_cast<double>(values[j]);
    }
#pragma unroll
    for (int j = 0; j < pack; j++) values[j] = static_cast<float>(mean(sums[j]));
    setSome(tile.view, i, tile.count, packs && i + pack <= tile.count, values);
  }
}

int64_t encodedBytes(const Encoding& encoding, int64_t count) {
  return encoding.nibbles ? (count + 1) / 2 : count * storedBytes(encoding.dtype);
}

}  // namespace

Encoding encodingOf(Dtype dtype, const std::string& wire) {
  if (wire.empty() || wire == "float32" || isInteger(dtype)) return {dtype, false, false, Scaled::int8};
  if (wire == "bfloat16") return {Dtype::bfloat16, false, false, Scaled::int8};
  if (wire == "float16") return {Dtype::float16, false, false, Scaled::int8};
  if (wire == "float8") return {Dtype::float8, false, true, Scaled::float8};
  if (wire == "float4") return {Dtype::float4, true, true, Scaled::float4};
  if (wire == "int8") return {Dtype::int8, false, true, Scaled::int8};
  throw BadCall("wire is \"" + wire + "\"");
}

bool worthPieces(size_t parts, int64_t bytes) {
  static const bool wished = [] {
    const char* wish = std::getenv("TANDEM_CUDA_PIECES");
    return wish == nullptr || std::string(wish) != "0";
  }();
  return wished && parts <= mostPieces && bytes >= leastPieceBytes * static_cast<int64_t>(parts);
}

Message::Message(const std::vector<Operand>& tensors, const Spans& spans, const std::vector<Encoding>& encodings) {
  int64_t at = 0;
  for (const Encoding& encoding : encodings) {
    if (encoding.scaled) header_ = static_cast<int32_t>(tensors.size());
  }
  at = aligned(4 * static_cast<int64_t>(header_));
  std::vector<Tile> tiles;
  // as the tensors lie: one behind another, and nothing to change on the way
  bool lies = header_ == 0;
  const char* end = nullptr;
  for (const Span& span : spans) {
    if (span.count == 0) continue;
    const Operand& tensor = tensors[span.tensor];
    const Encoding& encoding = encodings[span.tensor];
    const View view = viewOf(tensor).at(span.from);
    lies = lies && encoding.dtype == tensor.dtype && !encoding.scaled && (end == nullptr || end == view.data) && at == bytes_;
    if (end == nullptr) inPlace_ = view.data;
    end = static_cast<const char*>(view.data) + span.count * storedBytes(tensor.dtype);
    for (int64_t done = 0; done < span.count; done += tileElements) {
      const auto count = static_cast<int32_t>(std::min(tileElements, span.count - done));
      tiles.push_back({view.at(done), at + encodedBytes(encoding, done), count, static_cast<int32_t>(span.tensor), encoding});
    }
    bytes_ = at + encodedBytes(encoding, span.count);
    const bool same = encoding.dtype == tensor.dtype && !encoding.scaled && !encoding.nibbles;
    pieces_.push_back({at, bytes_ - at, same ? view.data : nullptr});
    at = aligned(bytes_);
  }
  if (!lies) inPlace_ = nullptr;
  // by sizes alone, which both ends know
  if (header_ > 0 || !worthPieces(pieces_.size(), bytes_)) pieces_ = {{0, bytes_, inPlace_}};
  if (bytes_ == 0) pieces_.clear();
  if (!tiles.empty()) tiles_ = std::make_shared<Table<Tile>>(tiles);
}

bool Message::piecesInPlace() const {
  return std::all_of(pieces_.begin(), pieces_.end(), [](const Piece& one) { return one.inPlace != nullptr; });
}

bool Message::liesWhere(const Message& other) const {
  return piecesInPlace() && std::equal(pieces_.begin(), pieces_.end(), other.pieces_.begin(), other.pieces_.end(),
                                       [](const Piece& a, const Piece& b) { return a.inPlace == b.inPlace; });
}

void Message::pack(const Launch& launch, void* to, const float* scales) const {
  if (empty()) return;
  packTiles<<<static_cast<unsigned>(tiles_->count), threads, 0, launch.stream>>>(tiles_->data, static_cast<char*>(to), scales,
                                                                                header_);
}

void Message::unpack(const Launch& launch, const void* from) const {
  if (empty()) return;
  unpackTiles<<<static_cast<unsigned>(tiles_->count), threads, 0, launch.stream>>>(tiles_->data, static_cast<const char*>(from));
}

void Message::add(const Launch& launch, const void* from, int64_t messages, double over) const {
  if (empty()) return;
  int exponent;
  const bool exact = std::frexp(over, &exponent) == 0.5;
  addTiles<<<static_cast<unsigned>(tiles_->count), threads, 0, launch.stream>>>(
      tiles_->data, static_cast<const char*>(from), aligned(bytes_), messages, over, exact ? 1 / over : 0.0);
}

}  // namespace tandem::cuda
