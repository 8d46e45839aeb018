// The exported model. No torch in here: only morph.cpp is compiled with its headers.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "interface.h"
#include "picture.h"

namespace homomorph {

struct Result {
  std::vector<Picture> frames;
  double encoder_ms;
  double interpolator_ms;
  double decoder_ms;
};

class Morph {
 public:
  // Loads the networks and the operator. Throws std::runtime_error if a file is missing or damaged.
  explicit Morph(const std::filesystem::path& repository);
  ~Morph();

  // The caller has checked the pictures (Interface::check). Several threads may call this at once.
  Result operator()(const Picture& source, const Picture& target, const Strengths& strengths) const;

 private:
  struct Modules;
  std::unique_ptr<Modules> modules_;
};

// Sets the number of threads of one network operation in this process. The default is the number of cores.
void set_threads(int threads);

}  // namespace homomorph
