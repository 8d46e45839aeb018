#include "interpolate.h"

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <type_traits>
#include <vector>

// Inlined into one function for each instruction set, which is what compiles it for that instruction set.
#define HOMOMORPH_INLINE inline __attribute__((always_inline))

namespace homomorph {
namespace {

// 16 and 32 bit numbers are summed in 32 bits, 64 bit numbers in 64.
template <typename T>
using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

// A register's worth of numbers, and the same anywhere in memory. Wider ones than the instruction set's registers
// would be computed in memory.
template <typename A, int Bytes>
struct Vector {
  typedef A type __attribute__((vector_size(Bytes)));
  typedef A unaligned __attribute__((vector_size(Bytes), aligned(alignof(A)), may_alias));
};

// Registers that are computed together for each step, so that one addition need not wait for the one before it.
constexpr int kUnroll = 2;

// Steps that are computed together share the loads of the deltas.
constexpr int kSteps = 4;

// The steps that are computed together, and the branches that they use.
template <typename A>
struct Block {
  std::vector<const A*> deltas;  // one tile of each branch in use
  std::vector<A> strengths;      // [branches in use, kSteps]
};

template <int Steps, int Bytes, typename A>
HOMOMORPH_INLINE void compute_block(const A* source, const Block<A>& block, A* const* results, int64_t count) {
  using V = typename Vector<A, Bytes>::type;
  using Unaligned = typename Vector<A, Bytes>::unaligned;
  constexpr int64_t width = Bytes / sizeof(A);
  const size_t used = block.deltas.size();
  const A* const* deltas = block.deltas.data();
  const A* strengths = block.strengths.data();
  int64_t i = 0;
  for (; i + kUnroll * width <= count; i += kUnroll * width) {
    V sums[Steps][kUnroll];
    for (int u = 0; u < kUnroll; ++u) {
      const V start = *reinterpret_cast<const Unaligned*>(source + i + u * width);
      for (int step = 0; step < Steps; ++step) sums[step][u] = start;
    }
    for (size_t k = 0; k < used; ++k) {
      for (int u = 0; u < kUnroll; ++u) {
        const V delta = *reinterpret_cast<const Unaligned*>(deltas[k] + i + u * width);
        for (int step = 0; step < Steps; ++step) sums[step][u] += strengths[k * kSteps + step] * delta;
      }
    }
    for (int step = 0; step < Steps; ++step) {
      for (int u = 0; u < kUnroll; ++u) *reinterpret_cast<Unaligned*>(results[step] + i + u * width) = sums[step][u];
    }
  }
  for (; i < count; ++i) {
    for (int step = 0; step < Steps; ++step) {
      A sum = source[i];
      for (size_t k = 0; k < used; ++k) sum += strengths[k * kSteps + step] * deltas[k][i];
      results[step][i] = sum;
    }
  }
}

// Whether any step uses branch k.
template <typename A>
HOMOMORPH_INLINE bool used(const A* strengths, int64_t k, int64_t steps, int64_t branches) {
  for (int64_t step = 0; step < steps; ++step) {
    if (strengths[step * branches + k] != 0) return true;
  }
  return false;
}

// How many of the steps from `step` on, up to kSteps, use the same branches: only those can be computed together
// without reading a delta whose strength is 0.
template <typename A>
HOMOMORPH_INLINE int alike(const A* strengths, int64_t step, int64_t steps, int64_t branches) {
  int run = 1;
  for (; run < kSteps && step + run < steps; ++run) {
    for (int64_t k = 0; k < branches; ++k) {
      if ((strengths[step * branches + k] != 0) != (strengths[(step + run) * branches + k] != 0)) return run;
    }
  }
  return run;
}

template <int Bytes, typename T>
HOMOMORPH_INLINE void compute(const InterpolateParams<T>& params, int64_t begin, int64_t end) {
  using A = Accumulator<T>;
  constexpr bool converts = !std::is_same_v<T, A>;
  const int64_t tiles_per_sample = (params.elements + kTile - 1) / kTile;
  const int64_t branches = params.branches;
  const int64_t steps = params.steps;

  std::vector<A> strengths(steps * branches);
  std::vector<const A*> deltas(branches);
  // One tile each of source and deltas, and of the results of one block if they are not stored as type A. Copied,
  // because the originals often lie a power of two apart and would evict each other from the same sets of the cache.
  std::vector<A> packed((1 + branches + kSteps) * kTile);
  Block<A> block;

  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t sample = tile / tiles_per_sample;
    const int64_t offset = tile % tiles_per_sample * kTile;
    const int64_t count = std::min(kTile, params.elements - offset);
    std::copy_n(params.strengths + sample * steps * branches, steps * branches, strengths.begin());

    const auto pack = [&](const T* from, int64_t slot) -> const A* {
      A* to = packed.data() + slot * kTile;
      std::copy_n(from, count, to);
      return to;
    };
    const A* source = pack(params.source + sample * params.elements + offset, 0);
    for (int64_t k = 0; k < branches; ++k) {
      if (!used(strengths.data(), k, steps, branches)) continue;
      deltas[k] = pack(params.deltas + (sample * branches + k) * params.elements + offset, 1 + k);
    }

    // Steps usually come in runs that use the same branches: a ramp of one slider, say.
    int run = 0;
    for (int64_t step = 0; step < steps; step += run) {
      run = alike(strengths.data(), step, steps, branches);
      block.deltas.clear();
      block.strengths.clear();
      for (int64_t k = 0; k < branches; ++k) {
        if (strengths[step * branches + k] == 0) continue;
        block.deltas.push_back(deltas[k]);
        for (int i = 0; i < kSteps; ++i) {
          block.strengths.push_back(i < run ? strengths[(step + i) * branches + k] : A(0));
        }
      }
      T* stored[kSteps];
      A* results[kSteps];
      for (int i = 0; i < run; ++i) {
        stored[i] = params.result + (sample * steps + step + i) * params.elements + offset;
        if constexpr (converts) {
          results[i] = packed.data() + (1 + branches + i) * kTile;
        } else {
          results[i] = stored[i];
        }
      }
      switch (run) {
        case 1: compute_block<1, Bytes>(source, block, results, count); break;
        case 2: compute_block<2, Bytes>(source, block, results, count); break;
        case 3: compute_block<3, Bytes>(source, block, results, count); break;
        default: compute_block<kSteps, Bytes>(source, block, results, count);
      }
      if constexpr (converts) {
        for (int i = 0; i < run; ++i) std::copy_n(results[i], count, stored[i]);
      }
    }
  }
}

#if defined(__x86_64__)
template <typename T>
__attribute__((target("avx512f"))) void compute_avx512(const InterpolateParams<T>& params, int64_t begin, int64_t end) {
  compute<64>(params, begin, end);
}

template <typename T>
__attribute__((target("avx2,fma"))) void compute_avx2(const InterpolateParams<T>& params, int64_t begin, int64_t end) {
  compute<32>(params, begin, end);
}
#endif

}  // namespace

template <typename T>
void interpolate_tiles(const InterpolateParams<T>& params, int64_t begin, int64_t end) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return compute_avx512(params, begin, end);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return compute_avx2(params, begin, end);
#endif
  compute<16>(params, begin, end);
}

template void interpolate_tiles(const InterpolateParams<float>&, int64_t, int64_t);
template void interpolate_tiles(const InterpolateParams<double>&, int64_t, int64_t);
template void interpolate_tiles(const InterpolateParams<torch::headeronly::Half>&, int64_t, int64_t);
template void interpolate_tiles(const InterpolateParams<torch::headeronly::BFloat16>&, int64_t, int64_t);

}  // namespace homomorph
