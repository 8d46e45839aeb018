// The CPU kernel for processors with AVX2, FMA and F16C; compiled with -mavx2 -mfma -mf16c.

#include <immintrin.h>

#include "half.h"

namespace homomorph {
namespace {

template <typename T>
struct Lanes;

template <>
struct Lanes<float> {
  using Sum = float;
  using Register = __m256;
  static constexpr int64_t kWidth = 8;
  static Sum widen(float number) { return number; }
  static Register load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Register sums) { _mm256_storeu_ps(to, sums); }
  static void stream(float* to, Register sums) { _mm256_stream_ps(to, sums); }
  static Register all(Sum number) { return _mm256_set1_ps(number); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }
};

template <>
struct Lanes<Half> : Lanes<float> {
  static Sum widen(Half number) { return _cvtsh_ss(number.bits); }
  static Register load(const Half* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static void store(Half* to, Register sums) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), narrow(sums)); }
  static void stream(Half* to, Register sums) { _mm_stream_si128(reinterpret_cast<__m128i*>(to), narrow(sums)); }
  static __m128i narrow(Register sums) {
    return _mm256_cvtps_ph(sums, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
};

template <>
struct Lanes<BFloat16> : Lanes<float> {
  static Sum widen(BFloat16 number) { return homomorph::widen(number); }
  static Register load(const BFloat16* from) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static void store(BFloat16* to, Register sums) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), narrow(sums)); }
  static void stream(BFloat16* to, Register sums) { _mm_stream_si128(reinterpret_cast<__m128i*>(to), narrow(sums)); }

  // To the nearest, ties to even. A NaN could be rounded to infinity, so it becomes the one that torch writes.
  static __m128i narrow(Register sums) {
    const __m256i bits = _mm256_castps_si256(sums);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, bias), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(sums, sums, _CMP_UNORD_Q));
    const __m256i wide = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  }
};

template <>
struct Lanes<double> {
  using Sum = double;
  using Register = __m256d;
  static constexpr int64_t kWidth = 4;
  static Sum widen(double number) { return number; }
  static Register load(const double* from) { return _mm256_loadu_pd(from); }
  static void store(double* to, Register sums) { _mm256_storeu_pd(to, sums); }
  static void stream(double* to, Register sums) { _mm256_stream_pd(to, sums); }
  static Register all(Sum number) { return _mm256_set1_pd(number); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm256_fmadd_pd(a, b, c); }
};

}  // namespace
}  // namespace homomorph

#include "interpolate_tile.h"

void homomorph::interpolate_tiles_avx2(const InterpolateParams& params, int64_t begin, int64_t end, bool streamed,
                                       std::byte* scratch) {
  compute_any(params, begin, end, streamed, scratch);
  _mm_sfence();  // streamed results must be there for whoever waits for this thread
}
