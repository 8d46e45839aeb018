// The limits of an exported model's inputs. Everything here throws std::runtime_error with a single line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "picture.h"

namespace homomorph {

// The strength of each group in each frame.
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

  // Returns strengths that grow evenly from 0 to each group's end. Groups that are not named stay at 0. If no group is
  // named, all groups go to 1.
  Strengths ramp(const std::map<std::string, double>& ends, int64_t steps) const;

  // Throws if the model cannot take the pictures, or not with this number of frames.
  void check(const Picture& source, const Picture& target, int64_t steps) const;
};

// Reads the limits that the export wrote into the configuration of the served model `morph`.
Interface read_interface(const std::filesystem::path& repository);

}  // namespace homomorph
