// result = source + sum over k of strengths[k] * deltas[k], for every step of every sample. No torch in here.
#pragma once

#include <cstdint>

namespace homomorph {

// Raw, dense arrays. A sample's elements (its channels, rows and columns) may lie in any order, if it is the same one
// in source, deltas and result.
template <typename T>
struct InterpolateParams {
  const T* source;     // [batch, elements]
  const T* deltas;     // [batch, branches, elements]
  const T* strengths;  // [batch, steps, branches]
  T* result;           // [batch, steps, elements]
  int64_t batch;
  int64_t steps;
  int64_t branches;
  int64_t elements;
};

// Elements of one tile: source and the deltas of a dozen branches then fit into 32 KiB of first-level cache, so that
// all steps read them from there.
constexpr int64_t kTile = 512;

// How many tiles there are to compute, over all samples.
template <typename T>
int64_t tiles(const InterpolateParams<T>& params) {
  return params.batch * ((params.elements + kTile - 1) / kTile);
}

// Computes tiles [begin, end), with the widest vectors that the processor has. Tiles are independent of each other,
// so threads may share them out. A strength of 0 leaves its delta unread: it may be uninitialised memory.
template <typename T>
void interpolate_tiles(const InterpolateParams<T>& params, int64_t begin, int64_t end);

}  // namespace homomorph
