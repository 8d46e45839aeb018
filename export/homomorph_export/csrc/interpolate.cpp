#include "interpolate.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "interpolate_isa.h"

namespace homomorph {
namespace {

constexpr int64_t kCacheLine = 64;

TilesKernel& choose_kernel() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return interpolate_tiles_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    return interpolate_tiles_avx2;
  }
#endif
  return interpolate_tiles_baseline;
}

// If a result and its inputs together have more bytes than this, the result is written around the caches, because a
// plain store would read each line first. The limit is the size of the last-level cache, but at most 32 MiB: a virtual
// machine sees the size of its host's cache, which it shares with other machines.
int64_t streamed_bytes() {
  constexpr int64_t most = 32 << 20;
#if defined(_SC_LEVEL3_CACHE_SIZE)
  const int64_t reported = sysconf(_SC_LEVEL3_CACHE_SIZE);
  if (reported > 0) return std::min(reported, most);
#endif
  return most;
}

// One for each thread. It is kept between calls, because an allocation costs more than a small interpolation.
class Memory {
 public:
  ~Memory() { std::free(memory_); }

  std::byte* at_least(int64_t bytes) {
    if (bytes > bytes_) {
      std::free(memory_);
      bytes_ = 0;
      bytes = (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
      memory_ = static_cast<std::byte*>(std::aligned_alloc(kCacheLine, bytes));
      if (memory_ == nullptr) throw std::bad_alloc();
      bytes_ = bytes;
    }
    return memory_;
  }

 private:
  std::byte* memory_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace

int64_t scratch_bytes(const InterpolateParams& params) {
  constexpr int64_t sum = 8, index = 8, block = 5 * 8, parts = 5;
  const int64_t cells = params.steps * params.branches;
  return (1 + params.branches) * kTile * sum + cells * (sum + index) + params.steps * block + params.branches +
         parts * kCacheLine;
}

bool streamable(const InterpolateParams& params) {
  return reinterpret_cast<uintptr_t>(params.result) % kCacheLine == 0 &&
         params.elements * bytes(params.type) % kCacheLine == 0;
}

void interpolate_tiles(const InterpolateParams& params, int64_t begin, int64_t end) {
  static TilesKernel& kernel = choose_kernel();
  static const int64_t limit = streamed_bytes();
  static thread_local Memory memory;
  const int64_t numbers = params.batch * (1 + params.branches + params.steps) * params.elements;
  const bool streamed = numbers * bytes(params.type) > limit && streamable(params);
  kernel(params, begin, end, streamed, memory.at_least(scratch_bytes(params)));
}

}  // namespace homomorph
