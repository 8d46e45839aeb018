// Runs the CPU kernel of every instruction set that this processor has over arrays of exactly the right size, and
// compares what it computes with the formula. Built with AddressSanitizer and UndefinedBehaviorSanitizer, which end the
// program at the first access that is out of bounds or otherwise undefined.

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "interpolate_isa.h"

namespace {

using homomorph::InterpolateParams;
using homomorph::Type;

struct Sizes {
  int64_t batch, branches, steps, elements;
};

// A single element; less than a register; whole tiles; a rest of every kind; many steps; many branches; none.
constexpr Sizes kSizes[] = {{1, 1, 1, 1},   {2, 3, 5, 7},    {1, 2, 9, 512},    {2, 6, 17, 1055},
                            {1, 12, 64, 600}, {1, 256, 3, 33}, {1, 2, 256, 1024}, {1, 0, 3, 40}};

// Memory of exactly this size on the heap, optionally not aligned to more than the type's own size.
template <typename T>
class Array {
 public:
  Array(int64_t count, bool aligned) : skipped_(aligned ? 0 : 1) {
    const size_t bytes = ((count + skipped_) * sizeof(T) + 63) / 64 * 64;
    memory_.reset(static_cast<T*>(std::aligned_alloc(64, bytes ? bytes : 64)));
    // From the end, so that the next byte is out of bounds; an aligned array may have a gap there.
    begin_ = aligned ? memory_.get() : memory_.get() + bytes / sizeof(T) - count;
  }
  T* begin() { return begin_; }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  int64_t skipped_;
  std::unique_ptr<T, Free> memory_;
  T* begin_;
};

template <typename T>
bool check(homomorph::TilesKernel& kernel, const char* name, Type type, double tolerance, const Sizes& sizes,
           bool aligned, bool one_hot) {
  const auto [batch, branches, steps, elements] = sizes;
  std::mt19937 random(0);
  std::uniform_real_distribution<float> uniform(-1, 1);
  Array<T> source(batch * elements, aligned), deltas(batch * branches * elements, aligned);
  Array<T> strengths(batch * steps * branches, aligned), result(batch * steps * elements, aligned);
  for (int64_t i = 0; i < batch * elements; ++i) source.begin()[i] = static_cast<T>(uniform(random));
  for (int64_t i = 0; i < batch * branches * elements; ++i) deltas.begin()[i] = static_cast<T>(uniform(random));
  for (int64_t i = 0; i < batch * steps * branches; ++i) {
    const bool used = one_hot ? i % branches == branches / 2 : random() % 4 != 0;
    strengths.begin()[i] = static_cast<T>(used ? uniform(random) : 0.0f);
  }
  // A branch that no step uses must not be read.
  for (int64_t b = 0; one_hot && b < batch; ++b) {
    for (int64_t k = 0; k < branches; ++k) {
      if (k == branches / 2) continue;
      T* delta = deltas.begin() + (b * branches + k) * elements;
      for (int64_t e = 0; e < elements; ++e) delta[e] = static_cast<T>(std::numeric_limits<float>::quiet_NaN());
    }
  }

  const InterpolateParams params{type,  source.begin(), deltas.begin(), strengths.begin(), result.begin(), batch, steps,
                                 branches, elements};
  const int64_t bytes = (homomorph::scratch_bytes(params) + 63) / 64 * 64;
  const std::unique_ptr<void, void (*)(void*)> scratch(std::aligned_alloc(64, bytes), std::free);
  const int64_t tiles = homomorph::tiles(params), half = tiles / 2;
  const bool streamed = homomorph::streamable(params);
  kernel(params, 0, half, false, static_cast<std::byte*>(scratch.get()));
  kernel(params, half, tiles, streamed, static_cast<std::byte*>(scratch.get()));

  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t s = 0; s < steps; ++s) {
      for (int64_t e = 0; e < elements; ++e) {
        double expected = static_cast<double>(source.begin()[b * elements + e]);
        for (int64_t k = 0; k < branches; ++k) {
          const double strength = static_cast<double>(strengths.begin()[(b * steps + s) * branches + k]);
          if (strength == 0) continue;
          expected += strength * static_cast<double>(deltas.begin()[(b * branches + k) * elements + e]);
        }
        const double computed = static_cast<double>(result.begin()[(b * steps + s) * elements + e]);
        if (!(std::abs(computed - expected) <= tolerance * (1 + std::abs(expected)))) {
          std::printf("%s: %g instead of %g at sample %ld, step %ld, element %ld of %ld\n", name, computed, expected,
                      static_cast<long>(b), static_cast<long>(s), static_cast<long>(e), static_cast<long>(elements));
          return false;
        }
      }
    }
  }
  return true;
}

bool check_all(homomorph::TilesKernel& kernel, const char* name) {
  bool right = true;
  for (const Sizes& sizes : kSizes) {
    for (const bool aligned : {false, true}) {
      for (const bool one_hot : {false, true}) {
        right &= check<float>(kernel, name, Type::kFloat32, 1e-5, sizes, aligned, one_hot);
        right &= check<double>(kernel, name, Type::kFloat64, 1e-13, sizes, aligned, one_hot);
        right &= check<c10::Half>(kernel, name, Type::kFloat16, 1e-3, sizes, aligned, one_hot);
        right &= check<c10::BFloat16>(kernel, name, Type::kBFloat16, 8e-3, sizes, aligned, one_hot);
      }
    }
  }
  std::printf("%s: %s\n", name, right ? "right" : "wrong");
  return right;
}

void dispatched(const InterpolateParams& params, int64_t begin, int64_t end, bool, std::byte*) {
  homomorph::interpolate_tiles(params, begin, end);
}

}  // namespace

int main() {
  bool right = check_all(dispatched, "dispatched") & check_all(homomorph::interpolate_tiles_baseline, "baseline");
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    right &= check_all(homomorph::interpolate_tiles_avx2, "avx2");
  }
  if (__builtin_cpu_supports("avx512f")) right &= check_all(homomorph::interpolate_tiles_avx512, "avx512");
#endif
  return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
