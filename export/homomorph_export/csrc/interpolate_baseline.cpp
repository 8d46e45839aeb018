// The CPU kernel for any processor: arrays that the compiler may turn into registers.

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstring>
#include <type_traits>

namespace homomorph {
namespace {

using Half = torch::headeronly::Half;
using BFloat16 = torch::headeronly::BFloat16;

template <typename Sum>
struct Sums {
  static constexpr int64_t kWidth = 16 / sizeof(Sum);
  Sum numbers[kWidth];
};

template <typename T>
struct Lanes {
  using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;
  using Register = Sums<Sum>;
  static constexpr int64_t kWidth = Register::kWidth;
  static constexpr int kRegisters = 1;
  static constexpr int kUnroll = 2;
  static Sum widen(T number) { return static_cast<Sum>(number); }
  static void load(const T* from, Register* sums) {
    for (int64_t i = 0; i < kWidth; ++i) sums->numbers[i] = static_cast<Sum>(from[i]);
  }
  static void store(T* to, const Register* sums) {
    for (int64_t i = 0; i < kWidth; ++i) to[i] = static_cast<T>(sums->numbers[i]);
  }
  static void stream(T* to, const Register* sums) { store(to, sums); }
  static void load_sums(const Sum* from, Register* sums) { std::memcpy(sums, from, sizeof(*sums)); }
  static void store_sums(Sum* to, const Register* sums) { std::memcpy(to, sums, sizeof(*sums)); }
  static Register all(Sum number) {
    Register sums;
    for (int64_t i = 0; i < kWidth; ++i) sums.numbers[i] = number;
    return sums;
  }
  static Register multiply_add(Register a, Register b, Register c) {
    for (int64_t i = 0; i < kWidth; ++i) c.numbers[i] += a.numbers[i] * b.numbers[i];
    return c;
  }
};

}  // namespace
}  // namespace homomorph

#include "interpolate_tile.h"

void homomorph::interpolate_tiles_baseline(const InterpolateParams& params, int64_t begin, int64_t end, bool streamed,
                                           std::byte* scratch) {
  compute_any(params, begin, end, streamed, scratch);
}
