#include "morph.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <torch/script.h>

#include <chrono>
#include <stdexcept>
#include <string>

namespace homomorph {
namespace {

// Loads the operator homomorph::interpolate, which the interpolator calls. Does nothing if the program is linked with
// the operator already, because a second registration would end the process.
void load_operator(const std::filesystem::path& library) {
  if (c10::Dispatcher::singleton().findSchema({"homomorph::interpolate", ""})) return;
  // The library is never closed, because its registration must stay valid.
  if (dlopen(library.c_str(), RTLD_NOW) == nullptr) {
    throw std::runtime_error(std::string("the operator's library cannot be loaded: ") + dlerror());
  }
}

torch::jit::Module load_module(const std::filesystem::path& path) {
  try {
    return torch::jit::load(path.string(), torch::kCPU);
  } catch (const c10::Error& error) {
    const std::string reason = error.what_without_backtrace();
    throw std::runtime_error(path.string() + " cannot be loaded: " + reason.substr(0, reason.find('\n')));
  }
}

// A batch of one picture, as a view of its memory.
at::Tensor as_tensor(const Picture& picture) {
  return torch::from_blob(const_cast<uint8_t*>(picture.pixels.data()), {1, picture.height, picture.width, 3},
                          torch::kUInt8);
}

at::Tensor as_tensor(const Strengths& strengths) {
  return torch::from_blob(const_cast<float*>(strengths.values.data()), {1, strengths.steps, strengths.groups},
                          torch::kFloat32);
}

// From the decoder's [1, S, H, W, 3].
std::vector<Picture> as_pictures(const at::Tensor& frames) {
  const int64_t height = frames.size(2), width = frames.size(3), bytes = height * width * 3;
  const uint8_t* const pixels = frames.const_data_ptr<uint8_t>();
  std::vector<Picture> pictures;
  for (int64_t step = 0; step < frames.size(1); ++step) {
    pictures.push_back({height, width, {pixels + step * bytes, pixels + (step + 1) * bytes}});
  }
  return pictures;
}

class Stopwatch {
 public:
  // Milliseconds since the last lap, or since the beginning.
  double lap_ms() {
    const auto now = std::chrono::steady_clock::now();
    const std::chrono::duration<double, std::milli> lap = now - begin_;
    begin_ = now;
    return lap.count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace

struct Morph::Modules {
  torch::jit::Module encoder_pair;
  torch::jit::Module interpolator;
  torch::jit::Module decoder;
};

Morph::Morph(const std::filesystem::path& repository) {
  const auto file = [&](const char* model, const char* name) { return repository / model / "1" / name; };
  load_operator(file("interpolator", "libhomomorph_ops.so"));
  modules_ = std::make_unique<Modules>(Modules{
      load_module(file("encoder_pair", "model.pt")),
      load_module(file("interpolator", "model.pt")),
      load_module(file("decoder", "model.pt")),
  });
}

Morph::~Morph() = default;

Result Morph::operator()(const Picture& source, const Picture& target, const Strengths& strengths) const {
  const c10::InferenceMode no_gradients;
  Result result;
  Stopwatch stopwatch;
  const auto both = modules_->encoder_pair.forward({as_tensor(source), as_tensor(target)}).toTuple();
  result.encoder_ms = stopwatch.lap_ms();
  const c10::IValue features =
      modules_->interpolator.forward({both->elements()[0], both->elements()[1], as_tensor(strengths)});
  result.interpolator_ms = stopwatch.lap_ms();
  result.frames = as_pictures(modules_->decoder.forward({features}).toTensor());
  result.decoder_ms = stopwatch.lap_ms();
  return result;
}

void set_threads(int threads) { at::set_num_threads(threads); }

}  // namespace homomorph
