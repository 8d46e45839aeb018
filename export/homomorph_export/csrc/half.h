// The 16 bit types as they lie in memory, for kernels that convert them with their own instructions.
#pragma once

#include <cstdint>
#include <cstring>

namespace homomorph {
namespace {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

inline float widen(BFloat16 number) {
  const uint32_t bits = static_cast<uint32_t>(number.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof(wide));
  return wide;
}

// What the Lanes (see interpolate_tile.h) of both 16 bit types have in common: a load fills two registers of sums, those
// of Floats. Which sums lie in which of the two is up to load() and store(): cheapest is where no number has to move.
template <typename Floats>
struct PairsOf {
  using Sum = float;
  using Register = typename Floats::Register;
  static constexpr int64_t kWidth = 2 * Floats::kWidth;
  static constexpr int kRegisters = 2;
  static constexpr int kUnroll = Floats::kUnroll;
  static void load_sums(const float* from, Register* sums) {
    Floats::load(from, sums);
    Floats::load(from + Floats::kWidth, sums + 1);
  }
  static void store_sums(float* to, const Register* sums) {
    Floats::store(to, sums);
    Floats::store(to + Floats::kWidth, sums + 1);
  }
  static Register all(float number) { return Floats::all(number); }
  static Register multiply_add(Register a, Register b, Register c) { return Floats::multiply_add(a, b, c); }
};

}  // namespace
}  // namespace homomorph
