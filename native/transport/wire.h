// How tensors look on a connection between processes: each dtype in as many bits as it has, wires of collectives packed.
// Decoding gives what core/kernels/collectives.ts says arrives, bit for bit. Knows nothing of peers or transfers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../backend.h"

namespace tandem {

/** What stands for one tensor's values between two processes. */
enum class Packing : uint8_t { words, halves, float16s, bytes, float8s, scaledFloat8, scaledFloat4, scaledInt8 };

/** `wire` as collectives have it, "" for none. Throws BadCall for one that there is not. */
Packing packingOf(Dtype dtype, const std::string& wire);
/** True when values travel as they lie in memory. */
inline bool isRaw(Packing packing) { return packing == Packing::words; }
/** True when a scale of the whole tensor goes before the values. */
bool isScaled(Packing packing);
/** Bytes of so many values, with their scale. */
size_t packedBytes(Packing packing, int64_t count);

/** The scale of a whole tensor; 0 where the packing has none. */
float packingScale(Packing packing, const void* values, int64_t count);
/** Packs values [0, count) of stored floats or int32s; returns the end of what it wrote. */
char* pack(Packing packing, float scale, const void* values, int64_t count, char* to);
/** Unpacks to stored floats or int32s; returns the end of what it read. */
const char* unpack(Packing packing, const char* from, int64_t count, void* values);
/** The same of values [first, first + count) among those packed at `from`; `first` is even. */
void unpackPart(Packing packing, const char* from, int64_t first, int64_t count, void* values);

}  // namespace tandem
