// SHA-256 (FIPS 180-4) and HMAC (RFC 2104), for handshakes: who connects must know the job's key. Knows nothing of sockets.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace tandem {

using Digest256 = std::array<uint8_t, 32>;

Digest256 sha256(const void* data, size_t bytes);
Digest256 hmacSha256(const std::string& key, const std::string& message);
/** In constant time: how long it takes tells nothing of where they differ. */
bool equalDigests(const Digest256& a, const Digest256& b);

}  // namespace tandem
