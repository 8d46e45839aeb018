#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace homomorph {

struct Options {
  std::filesystem::path repository;
  std::filesystem::path source;
  std::filesystem::path target;
  std::filesystem::path out;
  int64_t steps = 9;
  std::map<std::string, double> sliders;  // last strength of each named group; empty: all groups go to 1
  std::optional<int> threads;
  int repeat = 1;
};

// Prints the help and returns nothing if it was asked for. Throws std::runtime_error with a single line.
std::optional<Options> parse_options(int argc, char** argv);

}  // namespace homomorph
