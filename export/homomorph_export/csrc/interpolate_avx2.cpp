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
  static constexpr int kRegisters = 1;
  static constexpr int kUnroll = 2;  // 6 steps of 2 registers: 12 sums, 2 deltas, a strength
  static Sum widen(float number) { return number; }
  static void load(const float* from, Register* sums) { *sums = _mm256_loadu_ps(from); }
  static void store(float* to, const Register* sums) { _mm256_storeu_ps(to, *sums); }
  static void stream(float* to, const Register* sums) { _mm256_stream_ps(to, *sums); }
  static void load_sums(const float* from, Register* sums) { load(from, sums); }
  static void store_sums(float* to, const Register* sums) { store(to, sums); }
  static Register all(Sum number) { return _mm256_set1_ps(number); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }
};

template <>
struct Lanes<Half> : PairsOf<Lanes<float>> {
  static float widen(Half number) { return _cvtsh_ss(number.bits); }
  static void load(const Half* from, Register* sums) {
    const __m128i* numbers = reinterpret_cast<const __m128i*>(from);
    sums[0] = _mm256_cvtph_ps(_mm_loadu_si128(numbers));
    sums[1] = _mm256_cvtph_ps(_mm_loadu_si128(numbers + 1));
  }
  static void store(Half* to, const Register* sums) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(sums));
  }
  static void stream(Half* to, const Register* sums) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), narrow(sums));
  }
  static __m256i narrow(const Register* sums) {
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return _mm256_set_m128i(_mm256_cvtps_ph(sums[1], nearest), _mm256_cvtps_ph(sums[0], nearest));
  }
};

// Two neighbours share 32 bits: the first is the lower half, the second the upper half.
template <>
struct Lanes<BFloat16> : PairsOf<Lanes<float>> {
  static float widen(BFloat16 number) { return homomorph::widen(number); }
  static void load(const BFloat16* from, Register* sums) {
    const __m256i numbers = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    sums[0] = _mm256_castsi256_ps(_mm256_slli_epi32(numbers, 16));
    sums[1] = _mm256_castsi256_ps(_mm256_and_si256(numbers, _mm256_set1_epi32(0xffff0000)));
  }
  static void store(BFloat16* to, const Register* sums) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(sums));
  }
  static void stream(BFloat16* to, const Register* sums) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), narrow(sums));
  }
  static __m256i narrow(const Register* sums) {
    return _mm256_blend_epi16(_mm256_srli_epi32(rounded(sums[0]), 16), rounded(sums[1]), 0xaa);
  }

  // Rounds to the upper halves: to the nearest, ties to even. A NaN stays a NaN: it was widened from 16 bits, so the
  // lower half of its bits is 0, and rounding does not carry into its exponent.
  static __m256i rounded(Register sums) {
    const __m256i bits = _mm256_castps_si256(sums);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  }
};

template <>
struct Lanes<double> {
  using Sum = double;
  using Register = __m256d;
  static constexpr int64_t kWidth = 4;
  static constexpr int kRegisters = 1;
  static constexpr int kUnroll = 2;
  static Sum widen(double number) { return number; }
  static void load(const double* from, Register* sums) { *sums = _mm256_loadu_pd(from); }
  static void store(double* to, const Register* sums) { _mm256_storeu_pd(to, *sums); }
  static void stream(double* to, const Register* sums) { _mm256_stream_pd(to, *sums); }
  static void load_sums(const double* from, Register* sums) { load(from, sums); }
  static void store_sums(double* to, const Register* sums) { store(to, sums); }
  static Register all(Sum number) { return _mm256_set1_pd(number); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm256_fmadd_pd(a, b, c); }
};

}  // namespace
}  // namespace homomorph

#include "interpolate_tile.h"

void homomorph::interpolate_tiles_avx2(const InterpolateParams& params, int64_t begin, int64_t end, bool streamed,
                                       std::byte* scratch) {
  compute_any(params, begin, end, streamed, scratch);
  _mm_sfence();  // makes streamed results visible to other threads
}
