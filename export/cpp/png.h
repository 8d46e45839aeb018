// Pictures from and to PNG files. Both functions throw std::runtime_error with a single line.
#pragma once

#include <filesystem>

#include "picture.h"

namespace homomorph {

// Takes every kind of PNG, as the Python client does: grey becomes RGB, 16 bits are rounded to 8, transparency is laid
// on white. Unlike there, a gAMA chunk that is not sRGB's is obeyed.
Picture read_png(const std::filesystem::path& path);

// 8 bits a channel, RGB.
void write_png(const std::filesystem::path& path, const Picture& picture);

}  // namespace homomorph
