// The operator homomorph::interpolate: its schema, its checks and its kernels, through libtorch's stable ABI.

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <string>

#if defined(HOMOMORPH_CUDA)
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#endif

#include "interpolate.h"

namespace {

using homomorph::InterpolateParams;
using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

int32_t device_type(const Tensor& tensor) {
  int32_t type = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor.get(), &type));
  return type;
}

std::string describe(const Tensor& tensor) {
  std::ostringstream text;
  text << "[";
  for (int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  text << "] of " << torch::headeronly::toString(tensor.scalar_type());
  if (tensor.is_cpu()) {
    text << " on the CPU";
  } else if (tensor.is_cuda()) {
    text << " on cuda:" << tensor.get_device_index();
  } else {
    text << " on another device";
  }
  return text.str();
}

void require(bool condition, const char* expected, const Tensor& source, const Tensor& deltas,
             const Tensor& strengths) {
  if (condition) return;
  throw std::runtime_error(std::string("homomorph::interpolate: ") + expected + "; got source " + describe(source) +
                           ", deltas " + describe(deltas) + ", strengths " + describe(strengths));
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
  const ScalarType type = source.scalar_type();
  const bool same_type = deltas.scalar_type() == type && strengths.scalar_type() == type;
  require(same_type, "source, deltas and strengths must have the same dtype", source, deltas, strengths);
  const bool known_type = type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
                          type == ScalarType::BFloat16;
  require(known_type, "the dtype must be float32, float64, float16 or bfloat16", source, deltas, strengths);
  const int32_t device = device_type(source), index = source.get_device_index();
  const bool same_device = device_type(deltas) == device && deltas.get_device_index() == index &&
                           device_type(strengths) == device && strengths.get_device_index() == index;
  require(same_device, "source, deltas and strengths must be on the same device", source, deltas, strengths);
}

homomorph::Type kernel_type(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return homomorph::Type::kFloat32;
    case ScalarType::Double: return homomorph::Type::kFloat64;
    case ScalarType::Half: return homomorph::Type::kFloat16;
    default: return homomorph::Type::kBFloat16;
  }
}

// The strides of [outer, inner, C, h, w] without gaps, in either layout of the features.
struct Strides {
  int64_t values[5];

  Strides(int64_t inner, int64_t c, int64_t h, int64_t w, bool channels_last)
      : values{inner * c * h * w, c * h * w, channels_last ? 1 : h * w, channels_last ? w * c : w,
               channels_last ? c : 1} {}

  // Whether the tensor has these strides. The source has no inner dimension.
  bool are_of(const Tensor& tensor) const {
    const int64_t dimensions = tensor.dim();
    for (int64_t i = 0; i < dimensions; ++i) {
      const int64_t expected = values[i == 0 ? 0 : i + 5 - dimensions];
      if (tensor.size(i) != 1 && tensor.stride(i) != expected) return false;
    }
    return true;
  }
};

Tensor empty(const int64_t (&sizes)[5], const Strides& strides, const Tensor& like) {
  // torch::stable::empty with a view would take two dispatcher calls, which cost more than a small interpolation.
  int32_t dtype = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(5, sizes, strides.values, dtype, device_type(like),
                                                         like.get_device_index(), &handle));
  return Tensor(handle);
}

// The tensor itself if it has this layout already, else a copy. Its samples are those of [outer * inner, C, h, w].
Tensor dense(const Tensor& tensor, const Strides& strides, torch::headeronly::IntHeaderOnlyArrayRef samples,
             MemoryFormat format) {
  if (strides.are_of(tensor)) return tensor;
  return torch::stable::contiguous(torch::stable::reshape(tensor, samples), format);
}

using Compute = void(const InterpolateParams& params, const Tensor& result);

// The result is laid out like source: channels last if source is, else contiguous.
Tensor interpolate(const Tensor& source, const Tensor& deltas, const Tensor& strengths, Compute& compute) {
  check(source, deltas, strengths);
  const int64_t batch = source.size(0), c = source.size(1), h = source.size(2), w = source.size(3);
  const int64_t branches = strengths.size(2), steps = strengths.size(1);
  const bool channels_last = !source.is_contiguous() && Strides(1, c, h, w, true).are_of(source);
  const MemoryFormat format = channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;

  const Tensor result = empty({batch, steps, c, h, w}, Strides(steps, c, h, w, channels_last), source);
  if (result.numel() == 0) return result;
  const Tensor dense_source = dense(source, Strides(1, c, h, w, channels_last), {batch, c, h, w}, format);
  const Tensor dense_deltas =
      branches == 0 ? deltas
                    : dense(deltas, Strides(branches, c, h, w, channels_last), {batch * branches, c, h, w}, format);
  const Tensor dense_strengths = strengths.is_contiguous() ? strengths : torch::stable::contiguous(strengths);
  compute(
      {
          kernel_type(source.scalar_type()),
          dense_source.const_data_ptr(),
          dense_deltas.const_data_ptr(),
          dense_strengths.const_data_ptr(),
          result.mutable_data_ptr(),
          batch,
          steps,
          branches,
          c * h * w,
      },
      result);
  return result;
}

void compute_cpu(const InterpolateParams& params, const Tensor&) {
  const int64_t tiles = homomorph::tiles(params);
  // Below some 10 microseconds of work, waking another thread costs more than it saves.
  const int64_t grain =
      std::max<int64_t>(1, (1 << 17) / (homomorph::kTile * params.steps * (params.branches + 1)));
  if (tiles <= grain) return homomorph::interpolate_tiles(params, 0, tiles);
  torch::stable::parallel_for(0, tiles, grain, [&](int64_t begin, int64_t end) {
    homomorph::interpolate_tiles(params, begin, end);
  });
}

Tensor interpolate_cpu(const Tensor& source, const Tensor& deltas, const Tensor& strengths) {
  return interpolate(source, deltas, strengths, compute_cpu);
}

#if defined(HOMOMORPH_CUDA)
// torch's current stream on the device. The function is in libtorch_cuda. This library is not linked with that, because
// it must also load where torch has no CUDA. A process with a CUDA tensor has loaded libtorch_cuda already.
void* current_stream(int32_t device) {
  using GetStream = AOTITorchError(int32_t device, void** stream);  // as the header declares it in builds with CUDA
  static GetStream* const get_stream = [] {
    void* const library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    void* const symbol = library == nullptr ? nullptr : dlsym(library, "aoti_torch_get_current_cuda_stream");
    return reinterpret_cast<GetStream*>(symbol);
  }();
  if (get_stream == nullptr) {
    throw std::runtime_error("homomorph::interpolate: this torch has no CUDA streams: libtorch_cuda.so is not loaded");
  }
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(get_stream(device, &stream));
  return stream;
}

void compute_cuda(const InterpolateParams& params, const Tensor& result) {
  const int32_t device = result.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const char* const error = homomorph::interpolate_cuda(params, device, current_stream(device));
  if (error != nullptr) throw std::runtime_error(std::string("homomorph::interpolate: CUDA reports: ") + error);
}

Tensor interpolate_cuda(const Tensor& source, const Tensor& deltas, const Tensor& strengths) {
  return interpolate(source, deltas, strengths, compute_cuda);
}
#endif

}  // namespace

STABLE_TORCH_LIBRARY(homomorph, library) {
  library.def("interpolate(Tensor source, Tensor deltas, Tensor strengths) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(homomorph, CPU, library) {
  library.impl("interpolate", TORCH_BOX(&interpolate_cpu));
}

#if defined(HOMOMORPH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(homomorph, CUDA, library) {
  library.impl("interpolate", TORCH_BOX(&interpolate_cuda));
}
#endif
