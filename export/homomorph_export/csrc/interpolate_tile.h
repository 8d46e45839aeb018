// The CPU kernel, written with Lanes<T>: kRegisters registers of sums, which load and store kWidth numbers of type T.
// A file defines Lanes for its instruction set, then includes this one.
//
// Everything here has internal linkage, and no standard library template is instantiated. Otherwise the linker could
// use one file's code, with its instruction set, in place of another's.
#pragma once

#include <cstring>
#include <type_traits>

#include "interpolate_isa.h"

#define HOMOMORPH_INLINE inline __attribute__((always_inline))
// Early enough that arrays of registers become registers.
#define HOMOMORPH_UNROLL _Pragma("GCC unroll 8")

namespace homomorph {
namespace {

// Number of steps that are computed together. They share the loads of the deltas.
constexpr int kSteps = 6;

// Number of registers that are computed together for each step. Their sums are independent, so none waits for another.
// With kSteps steps, Lanes<T>::kUnroll of them fill the processor's registers.
template <typename T>
constexpr int unroll(int steps) {
  return steps <= 2 ? 4 : Lanes<T>::kUnroll;
}

// Steps that are computed together, and the branches that all of them use.
struct Block {
  int64_t first_step;
  int64_t steps;
  int64_t used;        // branches
  int64_t strengths;   // where its strengths begin in Plan::strengths
  int64_t branches;    // where its branches begin in Plan::branches
};

// The work of one sample. It is the same for all tiles of the sample.
template <typename Sum>
struct Plan {
  Sum* strengths;      // block by block: [used, steps]
  int64_t* branches;   // block by block: [used]
  Block* blocks;
  int64_t block_count;
  bool* used;          // [branches], whether any step uses it
};

// The parts of the scratch memory, each beginning at a multiple of 64 bytes.
class Scratch {
 public:
  explicit Scratch(std::byte* memory) : memory_(memory) {}

  template <typename T>
  T* take(int64_t count) {
    T* part = reinterpret_cast<T*>(memory_);
    memory_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return part;
  }

 private:
  std::byte* memory_;
};

// Number of consecutive steps from `step` on that use the same branches. Steps with different branches cannot be
// computed together, because a delta whose strength is 0 must not be read.
template <typename T>
int64_t alike(const T* strengths, int64_t step, int64_t steps, int64_t branches) {
  for (int64_t next = step + 1; next < steps; ++next) {
    for (int64_t k = 0; k < branches; ++k) {
      const bool now = Lanes<T>::widen(strengths[step * branches + k]) != 0;
      if (now != (Lanes<T>::widen(strengths[next * branches + k]) != 0)) return next - step;
    }
  }
  return steps - step;
}

template <typename T, typename Sum>
void make_plan(const T* strengths, int64_t steps, int64_t branches, Plan<Sum>& plan) {
  int64_t strengths_end = 0, branches_end = 0;
  plan.block_count = 0;
  for (int64_t k = 0; k < branches; ++k) plan.used[k] = false;
  for (int64_t run = 0, step = 0; step < steps; step += run) {
    run = alike(strengths, step, steps, branches);
    // The blocks have about the same size: 9 steps become 5 and 4, not 6 and 3.
    const int64_t parts = (run + kSteps - 1) / kSteps;
    for (int64_t part = 0; part < parts; ++part) {
      Block& block = plan.blocks[plan.block_count++];
      block.first_step = step + run * part / parts;
      block.steps = step + run * (part + 1) / parts - block.first_step;
      block.used = 0;
      block.strengths = strengths_end;
      block.branches = branches_end;
      for (int64_t k = 0; k < branches; ++k) {
        if (Lanes<T>::widen(strengths[step * branches + k]) == 0) continue;
        plan.used[k] = true;
        plan.branches[branches_end++] = k;
        ++block.used;
        for (int64_t i = 0; i < block.steps; ++i) {
          plan.strengths[strengths_end++] = Lanes<T>::widen(strengths[(block.first_step + i) * branches + k]);
        }
      }
    }
  }
}

// Fills registers with numbers of type T, or with sums that pack() has written.
template <typename T, typename In>
HOMOMORPH_INLINE void load(const In* from, typename Lanes<T>::Register* sums) {
  if constexpr (std::is_same_v<T, In>) {
    Lanes<T>::load(from, sums);
  } else {
    Lanes<T>::load_sums(from, sums);
  }
}

// The same for the last `count` numbers; the rest is zero. pack() has already filled up its last register.
template <typename T, typename In>
HOMOMORPH_INLINE void load_some(const In* from, int64_t count, typename Lanes<T>::Register* sums) {
  if constexpr (std::is_same_v<T, In>) {
    T numbers[Lanes<T>::kWidth] = {};
    std::memcpy(numbers, from, count * sizeof(T));
    Lanes<T>::load(numbers, sums);
  } else {
    Lanes<T>::load_sums(from, sums);
  }
}

template <typename T>
HOMOMORPH_INLINE void store_some(T* to, const typename Lanes<T>::Register* sums, int64_t count) {
  T numbers[Lanes<T>::kWidth];
  Lanes<T>::store(numbers, sums);
  std::memcpy(to, numbers, count * sizeof(T));
}

// What compute_block() reads and writes: one tile of each array. In is T, or Sum where the tile has been packed.
template <typename T, typename In>
struct Tile {
  const In* source;
  const In* deltas;   // that of branch 0
  int64_t stride;     // from one delta to the next
  T* result;          // that of step 0
  int64_t elements;   // from one result to the next
  int64_t count;
  bool streamed;
};

// Computes `Loads` times kWidth numbers of every step from element i on, or only `count` of them.
template <int Steps, int Loads, bool Some, typename T, typename In, typename Sum>
HOMOMORPH_INLINE void compute_numbers(Tile<T, In> tile, const Sum* strengths, const int64_t* branches, int64_t used,
                                      int64_t i, int64_t count) {
  using Out = Lanes<T>;
  using Register = typename Out::Register;
  constexpr int64_t width = Out::kWidth;
  constexpr int registers = Loads * Out::kRegisters;
  const auto fill = [=](const In* from, Register* to) {
    HOMOMORPH_UNROLL
    for (int n = 0; n < Loads; ++n) {
      if constexpr (Some) {
        load_some<T>(from, count, to);
      } else {
        load<T>(from + n * width, to + n * Out::kRegisters);
      }
    }
  };
  Register sums[Steps][registers], delta[registers];
  HOMOMORPH_UNROLL
  for (int step = 0; step < Steps; ++step) fill(tile.source + i, sums[step]);
  for (int64_t j = 0; j < used; ++j) {
    fill(tile.deltas + branches[j] * tile.stride + i, delta);
    HOMOMORPH_UNROLL
    for (int step = 0; step < Steps; ++step) {
      const Register strength = Out::all(strengths[j * Steps + step]);
      HOMOMORPH_UNROLL
      for (int r = 0; r < registers; ++r) sums[step][r] = Out::multiply_add(strength, delta[r], sums[step][r]);
    }
  }
  HOMOMORPH_UNROLL
  for (int step = 0; step < Steps; ++step) {
    T* to = tile.result + step * tile.elements + i;
    HOMOMORPH_UNROLL
    for (int n = 0; n < Loads; ++n) {
      const Register* from = sums[step] + n * Out::kRegisters;
      if constexpr (Some) {
        store_some(to, from, count);
      } else if (tile.streamed) {
        Out::stream(to + n * width, from);
      } else {
        Out::store(to + n * width, from);
      }
    }
  }
}

template <int Steps, typename T, typename In, typename Sum>
void compute_block(const Tile<T, In>& whole, const Plan<Sum>& plan, const Block& block) {
  constexpr int64_t width = Lanes<T>::kWidth;
  constexpr int loads = unroll<T>(Steps) / Lanes<T>::kRegisters;
  // Local copies: the compiler knows that storing results does not change them.
  Tile<T, In> tile = whole;
  tile.result += block.first_step * tile.elements;
  const Sum* strengths = plan.strengths + block.strengths;
  const int64_t* branches = plan.branches + block.branches;
  const int64_t used = block.used;
  int64_t i = 0;
  for (; i + loads * width <= tile.count; i += loads * width) {
    compute_numbers<Steps, loads, false>(tile, strengths, branches, used, i, loads * width);
  }
  for (; i + width <= tile.count; i += width) {
    compute_numbers<Steps, 1, false>(tile, strengths, branches, used, i, width);
  }
  if (i < tile.count) compute_numbers<Steps, 1, true>(tile, strengths, branches, used, i, tile.count - i);
}

template <typename T, typename In, typename Sum>
void compute_tile(const Tile<T, In>& tile, const Plan<Sum>& plan) {
  for (int64_t b = 0; b < plan.block_count; ++b) {
    const Block& block = plan.blocks[b];
    switch (block.steps) {
      case 1: compute_block<1>(tile, plan, block); break;
      case 2: compute_block<2>(tile, plan, block); break;
      case 3: compute_block<3>(tile, plan, block); break;
      case 4: compute_block<4>(tile, plan, block); break;
      case 5: compute_block<5>(tile, plan, block); break;
      default: compute_block<kSteps>(tile, plan, block);
    }
  }
}

// Widens `count` numbers, rounded up to whole registers.
template <typename T, typename Sum>
void pack(const T* from, Sum* to, int64_t count) {
  constexpr int64_t width = Lanes<T>::kWidth;
  typename Lanes<T>::Register sums[Lanes<T>::kRegisters];
  for (int64_t i = 0; i < count; i += width) {
    if (i + width <= count) {
      Lanes<T>::load(from + i, sums);
    } else {
      load_some<T>(from + i, count - i, sums);
    }
    Lanes<T>::store_sums(to + i, sums);
  }
}

template <typename T>
void compute(const InterpolateParams& params, int64_t begin, int64_t end, bool streamed, std::byte* memory) {
  using Sum = typename Lanes<T>::Sum;
  const int64_t steps = params.steps, branches = params.branches, elements = params.elements;
  const int64_t tiles_per_sample = (elements + kTile - 1) / kTile;
  const T* all_sources = static_cast<const T*>(params.source);
  const T* all_deltas = static_cast<const T*>(params.deltas);

  Scratch scratch(memory);
  Sum* packed = scratch.take<Sum>((1 + branches) * kTile);
  Plan<Sum> plan;
  plan.strengths = scratch.take<Sum>(steps * branches);
  plan.branches = scratch.take<int64_t>(steps * branches);
  plan.blocks = scratch.take<Block>(steps);
  plan.used = scratch.take<bool>(branches);

  int64_t planned = -1;
  for (int64_t index = begin; index < end; ++index) {
    const int64_t sample = index / tiles_per_sample;
    const int64_t offset = index % tiles_per_sample * kTile;
    const int64_t count = elements - offset < kTile ? elements - offset : kTile;
    if (sample != planned) {
      make_plan(static_cast<const T*>(params.strengths) + sample * steps * branches, steps, branches, plan);
      planned = sample;
    }
    const T* source = all_sources + sample * elements + offset;
    const T* deltas = all_deltas + sample * branches * elements + offset;
    T* result = static_cast<T*>(params.result) + sample * steps * elements + offset;
    if (plan.block_count == 1) {
      compute_tile(Tile<T, T>{source, deltas, elements, result, elements, count, streamed}, plan);
      continue;
    }
    // Numbers that are read several times are widened once, into one buffer. The originals are often a power of two
    // apart, so they would evict each other from the same cache sets.
    pack(source, packed, count);
    for (int64_t k = 0; k < branches; ++k) {
      if (plan.used[k]) pack(deltas + k * elements, packed + (1 + k) * kTile, count);
    }
    compute_tile(Tile<T, Sum>{packed, packed + kTile, kTile, result, elements, count, streamed}, plan);
  }
}

inline void compute_any(const InterpolateParams& params, int64_t begin, int64_t end, bool streamed,
                        std::byte* scratch) {
  switch (params.type) {
    case Type::kFloat32: return compute<float>(params, begin, end, streamed, scratch);
    case Type::kFloat64: return compute<double>(params, begin, end, streamed, scratch);
    case Type::kFloat16: return compute<Half>(params, begin, end, streamed, scratch);
    case Type::kBFloat16: return compute<BFloat16>(params, begin, end, streamed, scratch);
  }
}

}  // namespace
}  // namespace homomorph
