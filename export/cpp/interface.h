// What an exported model takes. Everything here throws std::runtime_error with a single line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "picture.h"

namespace homomorph {

// How far each frame goes from the source to the target.
struct Strengths {
  int64_t steps;
  int64_t groups;
  std::vector<float> values;  // [steps, groups]
};

struct Interface {
  std::vector<std::string> groups;  // in the order of the strengths' columns
  int64_t picture_size;             // height and width that the model was trained at
  int64_t stride;                   // heights and widths are multiples of it
  int64_t max_picture_size;         // largest height or width
  int64_t max_steps;
  int64_t max_pixels;  // of all frames together
  double max_strength;

  // Returns strengths that grow evenly from 0 to each group's end. Groups that are not named stay at 0; where none is,
  // all go to 1.
  Strengths ramp(const std::map<std::string, double>& ends, int64_t steps) const;

  // Refuses pictures that the model cannot take, or not for so many frames.
  void check(const Picture& source, const Picture& target, int64_t steps) const;
};

// Reads what the export wrote for clients, into the configuration of the served model `morph`.
Interface read_interface(const std::filesystem::path& repository);

}  // namespace homomorph
