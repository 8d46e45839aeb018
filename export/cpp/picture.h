#pragma once

#include <cstdint>
#include <vector>

namespace homomorph {

// RGB, row by row from the top, values in [0, 255].
struct Picture {
  int64_t height;
  int64_t width;
  std::vector<uint8_t> pixels;  // [height, width, 3]
};

}  // namespace homomorph
