// The CUDA kernel. No torch in here.
//
// A block of threads computes some of the steps for one tile of one sample. Each thread computes 16 bytes of elements.
// It computes kSteps steps at a time, with their sums in registers, and reads each delta in use once for them. For the
// next steps the same thread reads the same deltas again, now from the caches. So each number passes through the
// device's memory once.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "interpolate.h"

namespace homomorph {
namespace {

constexpr int kThreads = 128;

// Number of branches whose strengths are in shared memory at once. Each thread fetches two.
constexpr int kBranches = 256;

// Least number of blocks that must fit on a multiprocessor. Fewer could not keep its memory busy.
constexpr int kResident = 4;

// Number of loads of deltas that a thread has in flight.
constexpr int kAhead = 4;

template <typename T>
using SumOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

// The kernel's parameters, with typed pointers.
template <typename T>
struct Arrays {
  const T* source;     // [batch, elements]
  const T* deltas;     // [batch, branches, elements]
  const T* strengths;  // [batch, steps, branches]
  T* result;           // [batch, steps, elements]
  int64_t steps;
  int64_t branches;
  int64_t elements;
  int64_t tiles;            // of one sample
  int64_t parts;            // that the steps of one tile are divided into
  int64_t blocks_per_part;  // blocks of kSteps steps
  int64_t work;             // batch * tiles * parts
};

template <typename T, int Width>
struct alignas(sizeof(T) * Width) Pack {
  T numbers[Width];
};

template <typename Sum, typename T>
__device__ __forceinline__ Sum widen(T number) {
  return static_cast<Sum>(number);
}

// Results leave the caches first, so that the deltas stay there.
template <typename T, int Width>
__device__ __forceinline__ void store(T* to, const SumOf<T> (&sums)[Width]) {
  Pack<T, Width> pack;
#pragma unroll
  for (int i = 0; i < Width; ++i) pack.numbers[i] = static_cast<T>(sums[i]);
  if constexpr (sizeof(pack) == 16) {
    float4 raw;
    memcpy(&raw, &pack, sizeof(raw));
    __stcs(reinterpret_cast<float4*>(to), raw);
  } else {
    *reinterpret_cast<Pack<T, Width>*>(to) = pack;
  }
}

// The numbers of one memory access. No kernel that runs at the same time writes the deltas.
template <typename T, int Width>
__device__ __forceinline__ Pack<T, Width> load(const T* from) {
  if constexpr (sizeof(T) * Width == 16) {
    const float4 raw = __ldg(reinterpret_cast<const float4*>(from));
    Pack<T, Width> pack;
    memcpy(&pack, &raw, sizeof(pack));
    return pack;
  } else {
    return *reinterpret_cast<const Pack<T, Width>*>(from);
  }
}

// Shared memory of a block, for kSteps steps and kBranches branches.
template <typename Sum, int Steps>
struct Shared {
  alignas(16) Sum strengths[kBranches][Steps];  // of the branches in use, without gaps
  int branches[kBranches];                      // indices of these branches
  unsigned steps[kBranches];                    // a bit for each step that uses it
  int used;                                     // number of these branches
  bool dense;                                   // whether every step uses all of them
};

// Fetches the strengths of `count` steps and up to kBranches branches, and lists the branches that any step uses.
// All threads of the block call this.
template <typename T, int Steps>
__device__ void fetch_strengths(const T* strengths, int64_t stride, int count, int branches,
                                Shared<SumOf<T>, Steps>& shared) {
  using Sum = SumOf<T>;
  __syncthreads();  // all threads have read the previous strengths
  if (threadIdx.x == 0) {
    shared.used = 0;
    shared.dense = true;
  }
  __syncthreads();
  // In the branches' order, one warp at a time, so that sums do not depend on the order in which threads run.
  if (threadIdx.x < 32) {
    for (int first = 0; first < branches; first += 32) {
      const int k = first + static_cast<int>(threadIdx.x);
      Sum own[Steps];
      unsigned steps = 0;
#pragma unroll
      for (int i = 0; i < Steps; ++i) {
        own[i] = k < branches && i < count ? widen<Sum>(strengths[i * stride + k]) : Sum(0);
        if (own[i] != Sum(0)) steps |= 1u << i;
      }
      const unsigned used = __ballot_sync(0xffffffffu, steps != 0);
      if (steps != 0) {
        const int slot = shared.used + __popc(used & ((1u << threadIdx.x) - 1u));
        shared.branches[slot] = k;
        shared.steps[slot] = steps;
#pragma unroll
        for (int i = 0; i < Steps; ++i) shared.strengths[slot][i] = own[i];
        if (steps != (1u << count) - 1u) shared.dense = false;
      }
      __syncwarp();
      if (threadIdx.x == 0) shared.used += __popc(used);
      __syncwarp();
    }
  }
  __syncthreads();
}

// Adds the listed branches to the sums of all steps. With a mask, a step skips branches that it does not use, because 0
// times a number that is not finite is not 0.
template <bool Masked, typename T, int Width, int Steps>
__device__ __forceinline__ void add_branches(const T* deltas, int64_t stride,
                                             const Shared<SumOf<T>, Steps>& shared, SumOf<T> (&sums)[Steps][Width]) {
  using Sum = SumOf<T>;
  const int used = shared.used;
  for (int first = 0; first < used; first += kAhead) {
    Pack<T, Width> packs[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      if (first + a < used) packs[a] = load<T, Width>(deltas + shared.branches[first + a] * stride);
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      if (first + a >= used) break;
      Sum delta[Width];
#pragma unroll
      for (int i = 0; i < Width; ++i) delta[i] = widen<Sum>(packs[a].numbers[i]);
      const unsigned steps = shared.steps[first + a];
#pragma unroll
      for (int step = 0; step < Steps; ++step) {
        if (Masked && !(steps >> step & 1u)) continue;
        const Sum strength = shared.strengths[first + a][step];
#pragma unroll
        for (int i = 0; i < Width; ++i) sums[step][i] += strength * delta[i];
      }
    }
  }
}

template <typename T, int Width, int Steps>
__global__ void __launch_bounds__(kThreads, kResident) interpolate_kernel(const Arrays<T> arrays) {
  using Sum = SumOf<T>;
  __shared__ Shared<Sum, Steps> shared;
  for (int64_t work = blockIdx.x; work < arrays.work; work += gridDim.x) {
    const int64_t part = work % arrays.parts;
    const int64_t tile = work / arrays.parts % arrays.tiles;
    const int64_t sample = work / arrays.parts / arrays.tiles;
    const int64_t element = (tile * kThreads + threadIdx.x) * Width;
    // Threads beyond the end help to fetch strengths. The number of elements is a multiple of Width.
    const bool inside = element < arrays.elements;
    const T* const strengths = arrays.strengths + sample * arrays.steps * arrays.branches;
    const T* const deltas = arrays.deltas + sample * arrays.branches * arrays.elements + element;
    T* const results = arrays.result + sample * arrays.steps * arrays.elements + element;

    Sum source[Width];
    if (inside) {
      const Pack<T, Width> pack = load<T, Width>(arrays.source + sample * arrays.elements + element);
#pragma unroll
      for (int i = 0; i < Width; ++i) source[i] = widen<Sum>(pack.numbers[i]);
    }
    const int64_t begin = part * arrays.blocks_per_part * Steps;
    const int64_t end = min(begin + arrays.blocks_per_part * Steps, arrays.steps);
    for (int64_t first_step = begin; first_step < end; first_step += Steps) {
      const int count = static_cast<int>(min(static_cast<int64_t>(Steps), end - first_step));
      Sum sums[Steps][Width];
#pragma unroll
      for (int step = 0; step < Steps; ++step) {
#pragma unroll
        for (int i = 0; i < Width; ++i) sums[step][i] = source[i];
      }
      for (int64_t first_branch = 0; first_branch < arrays.branches; first_branch += kBranches) {
        const int branches = static_cast<int>(min(static_cast<int64_t>(kBranches), arrays.branches - first_branch));
        fetch_strengths<T, Steps>(strengths + first_step * arrays.branches + first_branch, arrays.branches, count,
                                  branches, shared);
        if (!inside) continue;
        const T* const from = deltas + first_branch * arrays.elements;
        if (shared.dense) {
          add_branches<false, T, Width, Steps>(from, arrays.elements, shared, sums);
        } else {
          add_branches<true, T, Width, Steps>(from, arrays.elements, shared, sums);
        }
      }
      if (!inside) continue;
#pragma unroll
      for (int step = 0; step < Steps; ++step) {
        if (step < count) store<T, Width>(results + (first_step + step) * arrays.elements, sums[step]);
      }
    }
  }
}

template <typename T, int Width, int Steps>
cudaError_t launch(const InterpolateParams& params, int processors, cudaStream_t stream) {
  Arrays<T> arrays{
      static_cast<const T*>(params.source),
      static_cast<const T*>(params.deltas),
      static_cast<const T*>(params.strengths),
      static_cast<T*>(params.result),
      params.steps,
      params.branches,
      params.elements,
  };
  constexpr int64_t tile = int64_t{kThreads} * Width;
  arrays.tiles = (params.elements + tile - 1) / tile;
  // If there are too few tiles to keep the device busy, several blocks share the steps of one tile. They read the same
  // deltas again, but from the second-level cache.
  const int64_t step_blocks = (params.steps + Steps - 1) / Steps;
  const int64_t wanted = (4 * int64_t{processors} + params.batch * arrays.tiles - 1) / (params.batch * arrays.tiles);
  arrays.blocks_per_part = (step_blocks + wanted - 1) / wanted;
  arrays.parts = (step_blocks + arrays.blocks_per_part - 1) / arrays.blocks_per_part;
  arrays.work = params.batch * arrays.tiles * arrays.parts;
  constexpr int64_t largest_grid = 0x7fffffff;
  const unsigned grid = static_cast<unsigned>(std::min(arrays.work, largest_grid));
  interpolate_kernel<T, Width, Steps><<<grid, kThreads, 0, stream>>>(arrays);
  return cudaGetLastError();
}

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

template <typename T>
cudaError_t launch(const InterpolateParams& params, int processors, cudaStream_t stream) {
  constexpr int width = 16 / sizeof(T);
  // Then every sample, delta and step begins at a multiple of 16 bytes.
  const bool wide = params.elements % width == 0 && aligned(params.source) && aligned(params.deltas) &&
                    aligned(params.result);
  if (!wide) return launch<T, 1, 8>(params, processors, stream);
  if (params.steps == 1) return launch<T, width, 1>(params, processors, stream);
  return launch<T, width, 8>(params, processors, stream);
}

cudaError_t launch(const InterpolateParams& params, int device, cudaStream_t stream) {
  // This library has its own CUDA runtime, which does not know the device that torch has selected.
  if (const cudaError_t error = cudaSetDevice(device); error != cudaSuccess) return error;
  int processors = 0;
  const cudaError_t error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  switch (params.type) {
    case Type::kFloat32: return launch<float>(params, processors, stream);
    case Type::kFloat64: return launch<double>(params, processors, stream);
    case Type::kFloat16: return launch<__half>(params, processors, stream);
    case Type::kBFloat16: return launch<__nv_bfloat16>(params, processors, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

const char* interpolate_cuda(const InterpolateParams& params, int device, void* stream) {
  const cudaError_t error = launch(params, device, static_cast<cudaStream_t>(stream));
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace homomorph
