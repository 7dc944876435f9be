// Fingerprints of blocks of rows at the speed of memory; what they are: wsrl/store/checksums.py.

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

constexpr uint64_t kCarry = 0x9E3779B97F4A7C15;
constexpr int kLanes = 8, kSums = 4;
constexpr long kAhead = 2048;  // bytes that are asked for before they are needed
typedef uint64_t words __attribute__((vector_size(8 * kLanes), aligned(1), may_alias));  // columns begin anywhere in a file

// Sum of w_i m_i modulo 2^64 over whole words; several sums at a time, since a product takes long but does not wait.
uint64_t sum_of_products(const unsigned char* from, const uint64_t* multipliers, long count) {
  words sums[kSums] = {};
  long i = 0;
  for (; i + kSums * kLanes <= count; i += kSums * kLanes)
    for (int j = 0; j < kSums; ++j) {
      __builtin_prefetch(from + 8 * (i + j * kLanes) + kAhead);
      sums[j] += *reinterpret_cast<const words*>(from + 8 * (i + j * kLanes)) *
                 *reinterpret_cast<const words*>(multipliers + i + j * kLanes);
    }
  uint64_t total = 0;
  for (int j = 0; j < kSums; ++j)
    for (int lane = 0; lane < kLanes; ++lane) total += sums[j][lane];
  for (; i < count; ++i) {
    uint64_t word;
    std::memcpy(&word, from + 8 * i, sizeof(word));
    total += word * multipliers[i];
  }
  return total;
}

}  // namespace

// Fingerprint of some arrays in their order, on a machine whose words begin with their lowest byte.
extern "C" uint64_t wsrl_fingerprint(const unsigned char* const* arrays, const int64_t* sizes, int64_t count,
                                     const uint64_t* multipliers, int64_t chunk_bytes) {
  uint64_t value = 0;
  for (int64_t n = 0; n < count; ++n)
    for (int64_t start = 0; start < sizes[n]; start += chunk_bytes) {
      const unsigned char* chunk = arrays[n] + start;
      const int64_t size = std::min(chunk_bytes, sizes[n] - start), whole = size / 8;
      uint64_t total = sum_of_products(chunk, multipliers, whole), last = 0;
      if (size % 8) {  // the bytes that are left are one shorter word
        std::memcpy(&last, chunk + 8 * whole, size % 8);
        total += last * multipliers[whole];
      }
      value = value * kCarry + size + total;
    }
  return value;
}
