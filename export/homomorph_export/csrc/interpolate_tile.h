// The CPU kernel, in terms of Lanes<T>: a register of sums, and how numbers of type T get into and out of it. A file
// that includes this has defined Lanes for its instruction set before.
//
// Everything here has internal linkage, and nothing of the standard library is instantiated: what one file compiles for
// its instruction set must not be linked into another.
#pragma once

#include <cstring>

#include "interpolate_isa.h"

#define HOMOMORPH_INLINE inline __attribute__((always_inline))

namespace homomorph {
namespace {

// Steps that are computed together share the loads of the deltas. 6 of them, two registers each, fill the 16 registers
// that there are: 12 sums, 2 deltas, a strength.
constexpr int kSteps = 6;

// Registers that are computed together for each step, so that no sum has to wait for the one before it.
constexpr int unroll(int steps) { return steps <= 2 ? 4 : 2; }

// Steps that are computed together, and the branches that all of them use.
struct Block {
  int64_t first_step;
  int64_t steps;
  int64_t used;        // branches
  int64_t strengths;   // where its strengths begin in Plan::strengths
  int64_t branches;    // where its branches begin in Plan::branches
};

// What there is to do for one sample: the same for all of its tiles.
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

// How many of the steps from `step` on use the same branches: only those can be computed together without reading a
// delta whose strength is 0.
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
    // Blocks of about the same size: 9 steps are 5 and 4, not 6 and 3.
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

// The numbers of a register that lie before `count`, the rest zero, and back again.
template <typename T>
HOMOMORPH_INLINE typename Lanes<T>::Register load_some(const T* from, int64_t count) {
  T numbers[Lanes<T>::kWidth] = {};
  std::memcpy(numbers, from, count * sizeof(T));
  return Lanes<T>::load(numbers);
}

template <typename T>
HOMOMORPH_INLINE void store_some(T* to, typename Lanes<T>::Register sums, int64_t count) {
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

// Computes `Registers` registers of every step from element i on.
template <int Steps, int Registers, typename T, typename In, typename Sum>
HOMOMORPH_INLINE void compute_registers(const Tile<T, In>& tile, const Plan<Sum>& plan, const Block& block, int64_t i) {
  using Out = Lanes<T>;
  using Register = typename Out::Register;
  constexpr int64_t width = Out::kWidth;
  Register sums[Steps][Registers];
  for (int r = 0; r < Registers; ++r) {
    const Register start = Lanes<In>::load(tile.source + i + r * width);
    for (int step = 0; step < Steps; ++step) sums[step][r] = start;
  }
  const Sum* strengths = plan.strengths + block.strengths;
  const int64_t* branches = plan.branches + block.branches;
  for (int64_t j = 0; j < block.used; ++j) {
    const In* from = tile.deltas + branches[j] * tile.stride + i;
    Register delta[Registers];
    for (int r = 0; r < Registers; ++r) delta[r] = Lanes<In>::load(from + r * width);
    for (int step = 0; step < Steps; ++step) {
      const Register strength = Out::all(strengths[j * Steps + step]);
      for (int r = 0; r < Registers; ++r) sums[step][r] = Out::multiply_add(strength, delta[r], sums[step][r]);
    }
  }
  for (int step = 0; step < Steps; ++step) {
    T* to = tile.result + (block.first_step + step) * tile.elements + i;
    if (tile.streamed) {
      for (int r = 0; r < Registers; ++r) Out::stream(to + r * width, sums[step][r]);
    } else {
      for (int r = 0; r < Registers; ++r) Out::store(to + r * width, sums[step][r]);
    }
  }
}

template <int Steps, typename T, typename In, typename Sum>
void compute_block(const Tile<T, In>& tile, const Plan<Sum>& plan, const Block& block) {
  using Out = Lanes<T>;
  constexpr int64_t width = Out::kWidth;
  constexpr int registers = unroll(Steps);
  int64_t i = 0;
  for (; i + registers * width <= tile.count; i += registers * width) {
    compute_registers<Steps, registers>(tile, plan, block, i);
  }
  for (; i + width <= tile.count; i += width) compute_registers<Steps, 1>(tile, plan, block, i);
  if (i == tile.count) return;
  const int64_t rest = tile.count - i;
  for (int step = 0; step < Steps; ++step) {
    auto sums = load_some(tile.source + i, rest);
    for (int64_t j = 0; j < block.used; ++j) {
      const auto strength = Out::all(plan.strengths[block.strengths + j * Steps + step]);
      const auto delta = load_some(tile.deltas + plan.branches[block.branches + j] * tile.stride + i, rest);
      sums = Out::multiply_add(strength, delta, sums);
    }
    store_some(tile.result + (block.first_step + step) * tile.elements + i, sums, rest);
  }
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

// Widens count numbers, and the few after them that make up whole registers.
template <typename T, typename Sum>
void pack(const T* from, Sum* to, int64_t count) {
  constexpr int64_t width = Lanes<T>::kWidth;
  int64_t i = 0;
  for (; i + width <= count; i += width) Lanes<Sum>::store(to + i, Lanes<T>::load(from + i));
  if (i < count) Lanes<Sum>::store(to + i, load_some(from + i, count - i));
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
    // What is read several times is widened once, and lies together: the originals often lie a power of two apart and
    // would evict each other from the same sets of the cache.
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
