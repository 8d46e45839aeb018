// result = source + sum over k of strengths[k] * deltas[k], for every step of every sample. No torch in here.
#pragma once

#include <cstdint>

namespace homomorph {

enum class Type { kFloat32, kFloat64, kFloat16, kBFloat16 };

// 16 bit numbers are summed in 32 bits.
constexpr int64_t bytes(Type type) {
  return type == Type::kFloat64 ? 8 : type == Type::kFloat32 ? 4 : 2;
}

// Raw, dense arrays. A sample's elements (its channels, rows and columns) may lie in any order, if it is the same one
// in source, deltas and result.
struct InterpolateParams {
  Type type;
  const void* source;     // [batch, elements]
  const void* deltas;     // [batch, branches, elements]
  const void* strengths;  // [batch, steps, branches]
  void* result;           // [batch, steps, elements]
  int64_t batch;
  int64_t steps;
  int64_t branches;
  int64_t elements;
};

// Elements of one tile: source and the deltas of a dozen branches then fit into 32 KiB of first-level cache, so that
// all steps read them from there.
constexpr int64_t kTile = 512;

// How many tiles there are to compute, over all samples.
inline int64_t tiles(const InterpolateParams& params) {
  return params.batch * ((params.elements + kTile - 1) / kTile);
}

// Computes tiles [begin, end), with the widest vectors that the processor has. Tiles are independent of each other,
// so threads may share them out. A strength of 0 leaves its delta unread: it may be uninitialised memory.
void interpolate_tiles(const InterpolateParams& params, int64_t begin, int64_t end);

#if defined(HOMOMORPH_CUDA)
// Computes everything on a CUDA device, whose stream is a cudaStream_t. Returns what CUDA reports, or nullptr.
const char* interpolate_cuda(const InterpolateParams& params, int device, void* stream);
#endif

}  // namespace homomorph
