// Runs an exported model without Python: reads two PNG files and writes the frames between them.

#include <cstdio>
#include <exception>
#include <string>

#include "interface.h"
#include "morph.h"
#include "options.h"
#include "output.h"
#include "png.h"

namespace {

using namespace homomorph;

void run(const Options& options) {
  // Check all arguments before the networks are loaded.
  check_output(options.out);
  const Interface interface = read_interface(options.repository);
  const Strengths strengths = interface.ramp(options.sliders, options.steps);
  const Picture source = read_png(options.source);
  const Picture target = read_png(options.target);
  interface.check(source, target, options.steps);
  if (source.height != interface.picture_size || source.width != interface.picture_size) {
    const long size = static_cast<long>(interface.picture_size);
    std::fprintf(stderr, "homomorph-morph: note: the model was trained at %ldx%ld pixels, and is at its best there\n",
                 size, size);
  }

  if (options.threads) set_threads(*options.threads);
  const Morph morph(options.repository);
  Result result;
  for (int i = 0; i < options.repeat; ++i) result = morph(source, target, strengths);

  write_frames(options.out, result.frames);
  std::printf("%zu frames of %ldx%ld pixels: %.1f ms (E %.1f, interpolation %.1f, D %.1f)\n", result.frames.size(),
              static_cast<long>(source.width), static_cast<long>(source.height),
              result.encoder_ms + result.interpolator_ms + result.decoder_ms, result.encoder_ms,
              result.interpolator_ms, result.decoder_ms);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (const std::optional<Options> options = parse_options(argc, argv)) run(*options);
    return 0;
  } catch (const std::exception& error) {
    // torch's messages continue with a stack trace; only the first line is printed.
    const std::string message = error.what();
    std::fprintf(stderr, "homomorph-morph: %s\n", message.substr(0, message.find('\n')).c_str());
    return 2;
  }
}
