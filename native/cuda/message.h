// What travels between processes: parts of tensors one behind another, each as it lies in memory or in the narrower numbers of a
// wire. A message begins with the scales of its tensors, where the wire has any.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../spans.h"
#include "kernels.h"
#include "packing.cuh"

namespace tandem::cuda {

/** Where the next part of a message, or the next message, may begin. */
inline int64_t aligned(int64_t bytes) { return ceilDiv(bytes, 16) * 16; }

/**
 * Parts of so many bytes in the mean, up to so many of them, are worth a call of NCCL's each: one launch takes them from where they lie,
 * where kernels that pack and unpack would each wait for multiprocessors beside a product. Of smaller ones the latencies would add up.
 */
constexpr size_t mostPieces = 16;
constexpr int64_t leastPieceBytes = 1 << 20;
/** Whether so many parts of so many bytes together are. TANDEM_CUDA_PIECES=0, on all ranks alike, says no. */
bool worthPieces(size_t parts, int64_t bytes);

/** What stands for a value on its way. */
struct Encoding {
  Dtype dtype = Dtype::float32;
  /** Two to a byte. */
  bool nibbles = false;
  /** Values are codes under the tensor's scale. */
  bool scaled = false;
  Scaled format = Scaled::int8;
};

/** Of tensors of that dtype; `wire` as collectives have it, "" for none. Throws BadCall for one that there is not. */
Encoding encodingOf(Dtype dtype, const std::string& wire);

/** A piece of a message that a block of threads sees to. */
struct Tile {
  View view;
  /** Where it begins in the message, in bytes. */
  int64_t at;
  int32_t count;
  int32_t tensor;
  Encoding encoding;
};

/** A stretch of a message that travels by itself. */
struct Piece {
  int64_t at;
  int64_t bytes;
  /** Where it lies already, as it travels: in a tensor; null where it does not. */
  void* inPlace;
};

/** Parts of tensors as one message. */
class Message {
 public:
  Message() = default;
  /** `encodings`, one for each tensor. */
  Message(const std::vector<Operand>& tensors, const Spans& spans, const std::vector<Encoding>& encodings);

  int64_t bytes() const { return bytes_; }
  bool empty() const { return bytes_ == 0; }
  /** Where the message lies already, as it travels: in the tensors themselves; null where it does not. */
  void* inPlace() const { return inPlace_; }
  /**
   * What it is sent as: where its parts are few and large, each by itself, so that nothing need be packed; else the whole. The same on
   * both ends, whatever lies in place on either.
   */
  const std::vector<Piece>& pieces() const { return pieces_; }
  bool piecesInPlace() const;
  /** Nothing need be moved to make one of the other. */
  bool liesWhere(const Message& other) const;
  /** Writes it; `scales`, one for each tensor, is null where there are none. */
  void pack(const Launch& launch, void* to, const float* scales) const;
  void unpack(const Launch& launch, const void* from) const;
  /** Of as many messages of this layout, one behind another: adds their values in order in float64, over `over`. */
  void add(const Launch& launch, const void* from, int64_t messages, double over) const;

 private:
  int64_t bytes_ = 0;
  /** Of scales. */
  int32_t header_ = 0;
  void* inPlace_ = nullptr;
  std::vector<Piece> pieces_;
  std::shared_ptr<Table<Tile>> tiles_;
};

}  // namespace tandem::cuda
