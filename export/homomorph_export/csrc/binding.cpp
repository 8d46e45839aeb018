// The operator homomorph::interpolate: its schema, what it refuses, and its CPU kernel, through libtorch's stable ABI.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <sstream>
#include <stdexcept>

#include "interpolate.h"

namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

std::string shape(const Tensor& tensor) {
  std::ostringstream text;
  text << "[";
  for (int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  text << "]";
  return text.str();
}

void require(bool condition, const std::string& expected, const Tensor& source, const Tensor& deltas,
             const Tensor& strengths) {
  if (condition) return;
  throw std::runtime_error("homomorph::interpolate: " + expected + "; got source " + shape(source) + ", deltas " +
                           shape(deltas) + ", strengths " + shape(strengths));
}

void check(const Tensor& source, const Tensor& deltas, const Tensor& strengths) {
  require(source.dim() == 4 && deltas.dim() == 5 && strengths.dim() == 3,
          "source must be [B, C, h, w], deltas [B, K, C, h, w] and strengths [B, S, K]", source, deltas, strengths);
  const bool same_batch = deltas.size(0) == source.size(0) && strengths.size(0) == source.size(0);
  require(same_batch, "the batch sizes must be the same", source, deltas, strengths);
  const bool same_features = deltas.size(2) == source.size(1) && deltas.size(3) == source.size(2) &&
                             deltas.size(4) == source.size(3);
  require(same_features, "each delta must have the source's C, h and w", source, deltas, strengths);
  require(deltas.size(1) == strengths.size(2), "there must be one delta for each column of strengths", source, deltas,
          strengths);
  const bool same_type = deltas.scalar_type() == source.scalar_type() && strengths.scalar_type() == source.scalar_type();
  require(same_type, "source, deltas and strengths must have the same dtype", source, deltas, strengths);
  require(deltas.is_cpu() && strengths.is_cpu(), "all tensors must be on the CPU", source, deltas, strengths);
}

bool is_channels_last(const Tensor& tensor) {
  const int64_t c = tensor.size(1), h = tensor.size(2), w = tensor.size(3);
  const int64_t expected[4] = {h * w * c, 1, w * c, c};
  for (int64_t i = 0; i < 4; ++i) {
    if (tensor.size(i) != 1 && tensor.stride(i) != expected[i]) return false;
  }
  return true;
}

// The tensor itself if its elements already lie densely in the given order, else a copy. The shape only tells what is
// a sample of it; calls through the dispatcher cost more than a small interpolation, so the common case makes none.
Tensor dense(const Tensor& tensor, torch::headeronly::IntHeaderOnlyArrayRef shape, MemoryFormat format) {
  if (format == MemoryFormat::Contiguous && tensor.is_contiguous()) return tensor;
  return torch::stable::contiguous(torch::stable::reshape(tensor, shape), format);
}

template <typename T>
void run(const Tensor& source, const Tensor& deltas, const Tensor& strengths, const Tensor& result, int64_t branches,
         int64_t steps) {
  const int64_t elements = source.size(1) * source.size(2) * source.size(3);
  const homomorph::InterpolateParams<T> params{
      static_cast<const T*>(source.const_data_ptr()),
      static_cast<const T*>(deltas.const_data_ptr()),
      static_cast<const T*>(strengths.const_data_ptr()),
      static_cast<T*>(result.mutable_data_ptr()),
      source.size(0),
      steps,
      branches,
      elements,
  };
  // Below some 10 microseconds of work, waking another thread costs more than it saves.
  const int64_t grain = std::max<int64_t>(1, (1 << 17) / (homomorph::kTile * steps * (branches + 1)));
  torch::stable::parallel_for(0, homomorph::tiles(params), grain, [&](int64_t begin, int64_t end) {
    homomorph::interpolate_tiles(params, begin, end);
  });
}

// The result is laid out like source: channels last if source is, else contiguous.
Tensor interpolate_cpu(const Tensor& source, const Tensor& deltas, const Tensor& strengths) {
  check(source, deltas, strengths);
  const int64_t batch = source.size(0), c = source.size(1), h = source.size(2), w = source.size(3);
  const int64_t branches = strengths.size(2), steps = strengths.size(1);
  const bool channels_last = !source.is_contiguous() && is_channels_last(source);
  const MemoryFormat format = channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;

  const Tensor frames = torch::stable::empty({batch * steps, c, h, w}, source.scalar_type(), std::nullopt,
                                             source.device(), std::nullopt, format);
  if (frames.numel() > 0) {
    const Tensor dense_source = dense(source, source.sizes(), format);
    const Tensor dense_deltas = dense(deltas, {batch * branches, c, h, w}, format);
    const Tensor dense_strengths = dense(strengths, strengths.sizes(), MemoryFormat::Contiguous);
    switch (source.scalar_type()) {
      case ScalarType::Float:
        run<float>(dense_source, dense_deltas, dense_strengths, frames, branches, steps);
        break;
      case ScalarType::Double:
        run<double>(dense_source, dense_deltas, dense_strengths, frames, branches, steps);
        break;
      case ScalarType::Half:
        run<torch::headeronly::Half>(dense_source, dense_deltas, dense_strengths, frames, branches, steps);
        break;
      case ScalarType::BFloat16:
        run<torch::headeronly::BFloat16>(dense_source, dense_deltas, dense_strengths, frames, branches, steps);
        break;
      default:
        require(false, "the dtype must be float32, float64, float16 or bfloat16", source, deltas, strengths);
    }
  }
  return torch::stable::view(frames, {batch, steps, c, h, w});
}

}  // namespace

STABLE_TORCH_LIBRARY(homomorph, library) {
  library.def("interpolate(Tensor source, Tensor deltas, Tensor strengths) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(homomorph, CPU, library) {
  library.impl("interpolate", TORCH_BOX(&interpolate_cpu));
}
