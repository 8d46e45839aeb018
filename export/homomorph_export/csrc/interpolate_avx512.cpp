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
  static constexpr int kRegisters = 1;
  static constexpr int kUnroll = 4;  // 6 steps of 4 registers: 24 sums, 4 deltas, a strength
  static Sum widen(float number) { return number; }
  static void load(const float* from, Register* sums) { *sums = _mm512_loadu_ps(from); }
  static void store(float* to, const Register* sums) { _mm512_storeu_ps(to, *sums); }
  static void stream(float* to, const Register* sums) { _mm512_stream_ps(to, *sums); }
  static void load_sums(const float* from, Register* sums) { load(from, sums); }
  static void store_sums(float* to, const Register* sums) { store(to, sums); }
  static Register all(Sum number) { return _mm512_set1_ps(number); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }
};

template <>
struct Lanes<Half> : PairsOf<Lanes<float>> {
  static float widen(Half number) { return _mm512_cvtss_f32(_mm512_cvtph_ps(_mm256_set1_epi16(number.bits))); }
  static void load(const Half* from, Register* sums) {
    const __m256i* numbers = reinterpret_cast<const __m256i*>(from);
    sums[0] = _mm512_cvtph_ps(_mm256_loadu_si256(numbers));
    sums[1] = _mm512_cvtph_ps(_mm256_loadu_si256(numbers + 1));
  }
  static void store(Half* to, const Register* sums) { _mm512_storeu_si512(to, narrow(sums)); }
  static void stream(Half* to, const Register* sums) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), narrow(sums));
  }
  static __m512i narrow(const Register* sums) {
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    const __m512i first = _mm512_castsi256_si512(_mm512_cvtps_ph(sums[0], nearest));
    return _mm512_inserti64x4(first, _mm512_cvtps_ph(sums[1], nearest), 1);
  }
};

// Two neighbours share 32 bits: the first is the lower half, the second the upper half.
template <>
struct Lanes<BFloat16> : PairsOf<Lanes<float>> {
  static float widen(BFloat16 number) { return homomorph::widen(number); }
  static void load(const BFloat16* from, Register* sums) {
    const __m512i numbers = _mm512_loadu_si512(from);
    sums[0] = _mm512_castsi512_ps(_mm512_slli_epi32(numbers, 16));
    sums[1] = _mm512_castsi512_ps(_mm512_and_si512(numbers, _mm512_set1_epi32(0xffff0000)));
  }
  static void store(BFloat16* to, const Register* sums) { _mm512_storeu_si512(to, narrow(sums)); }
  static void stream(BFloat16* to, const Register* sums) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), narrow(sums));
  }
  static __m512i narrow(const Register* sums) {
    const __m512i even = _mm512_srli_epi32(rounded(sums[0]), 16);
    const __m512i odd = _mm512_and_si512(rounded(sums[1]), _mm512_set1_epi32(0xffff0000));
    return _mm512_or_si512(even, odd);
  }

  // Rounds to the upper halves: to the nearest, ties to even. A NaN stays a NaN: it was widened from 16 bits, so the
  // lower half of its bits is 0, and rounding does not carry into its exponent.
  static __m512i rounded(Register sums) {
    const __m512i bits = _mm512_castps_si512(sums);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  }
};

template <>
struct Lanes<double> {
  using Sum = double;
  using Register = __m512d;
  static constexpr int64_t kWidth = 8;
  static constexpr int kRegisters = 1;
  static constexpr int kUnroll = 4;
  static Sum widen(double number) { return number; }
  static void load(const double* from, Register* sums) { *sums = _mm512_loadu_pd(from); }
  static void store(double* to, const Register* sums) { _mm512_storeu_pd(to, *sums); }
  static void stream(double* to, const Register* sums) { _mm512_stream_pd(to, *sums); }
  static void load_sums(const double* from, Register* sums) { load(from, sums); }
  static void store_sums(double* to, const Register* sums) { store(to, sums); }
  static Register all(Sum number) { return _mm512_set1_pd(number); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm512_fmadd_pd(a, b, c); }
};

}  // namespace
}  // namespace homomorph

#include "interpolate_tile.h"

void homomorph::interpolate_tiles_avx512(const InterpolateParams& params, int64_t begin, int64_t end, bool streamed,
                                         std::byte* scratch) {
  compute_any(params, begin, end, streamed, scratch);
  _mm_sfence();  // makes streamed results visible to other threads
}
