// The 16 bit types as they lie in memory, and the conversions that need no instruction set.
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

}  // namespace
}  // namespace homomorph
