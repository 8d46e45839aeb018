// The CPU kernel as it is compiled for each instruction set, every one in a file of its own with its own flags.
#pragma once

#include <cstddef>

#include "interpolate.h"

namespace homomorph {

// Computes tiles [begin, end). `streamed` results go around the caches; `scratch` is aligned to 64 bytes and as long as
// scratch_bytes() says.
using TilesKernel = void(const InterpolateParams& params, int64_t begin, int64_t end, bool streamed, std::byte* scratch);

TilesKernel interpolate_tiles_baseline;
#if defined(__x86_64__)
TilesKernel interpolate_tiles_avx2;    // with FMA and F16C
TilesKernel interpolate_tiles_avx512;  // its foundation alone (F)
#endif

int64_t scratch_bytes(const InterpolateParams& params);

// Whether results can be stored in whole lines of the cache, which is what streaming them needs.
bool streamable(const InterpolateParams& params);

}  // namespace homomorph
