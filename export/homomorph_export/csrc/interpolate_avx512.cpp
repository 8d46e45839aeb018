// The CPU kernel for processors with AVX-512; compiled with -mavx512f, and uses no more than that.

#include <immintrin.h>

#include "half.h"

namespace homomorph {
namespace {

template <typename T>
struct Lanes;

template <>
struct Lanes<float> {
  using Sum = float;
  using Register = __m512;
  static constexpr int64_t kWidth = 16;
  static Sum widen(float number) { return number; }
  static Register load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Register sums) { _mm512_storeu_ps(to, sums); }
  static void stream(float* to, Register sums) { _mm512_stream_ps(to, sums); }
  static Register all(Sum number) { return _mm512_set1_ps(number); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }
};

template <>
struct Lanes<Half> : Lanes<float> {
  static Sum widen(Half number) { return _mm512_cvtss_f32(_mm512_cvtph_ps(_mm256_set1_epi16(number.bits))); }
  static Register load(const Half* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static void store(Half* to, Register sums) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(sums)); }
  static void stream(Half* to, Register sums) { _mm256_stream_si256(reinterpret_cast<__m256i*>(to), narrow(sums)); }
  static __m256i narrow(Register sums) {
    return _mm512_cvtps_ph(sums, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
};

template <>
struct Lanes<BFloat16> : Lanes<float> {
  static Sum widen(BFloat16 number) { return homomorph::widen(number); }
  static Register load(const BFloat16* from) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static void store(BFloat16* to, Register sums) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(sums));
  }
  static void stream(BFloat16* to, Register sums) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), narrow(sums));
  }

  // To the nearest, ties to even. A NaN could be rounded to infinity, so it becomes the one that torch writes.
  static __m256i narrow(Register sums) {
    const __m512i bits = _mm512_castps_si512(sums);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, bias), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(sums, sums, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0)));
  }
};

template <>
struct Lanes<double> {
  using Sum = double;
  using Register = __m512d;
  static constexpr int64_t kWidth = 8;
  static Sum widen(double number) { return number; }
  static Register load(const double* from) { return _mm512_loadu_pd(from); }
  static void store(double* to, Register sums) { _mm512_storeu_pd(to, sums); }
  static void stream(double* to, Register sums) { _mm512_stream_pd(to, sums); }
  static Register all(Sum number) { return _mm512_set1_pd(number); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm512_fmadd_pd(a, b, c); }
};

}  // namespace
}  // namespace homomorph

#include "interpolate_tile.h"

void homomorph::interpolate_tiles_avx512(const InterpolateParams& params, int64_t begin, int64_t end, bool streamed,
                                         std::byte* scratch) {
  compute_any(params, begin, end, streamed, scratch);
  _mm_sfence();  // streamed results must be there for whoever waits for this thread
}
