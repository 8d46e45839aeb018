// Frames as a folder of PNG files, which appears whole or not at all. Both functions throw std::runtime_error.
#pragma once

#include <filesystem>
#include <vector>

#include "picture.h"

namespace homomorph {

// Throws if the folder exists already. Called before the frames are computed.
void check_output(const std::filesystem::path& folder);

// Writes frame-000.png, frame-001.png, ... as the Python client names them.
void write_frames(const std::filesystem::path& folder, const std::vector<Picture>& frames);

}  // namespace homomorph
