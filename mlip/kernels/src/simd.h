// Portable SIMD: GCC/Clang vector extensions, 64 bytes wide whatever the target.
// The compiler splits a 64-byte vector into what the instruction set offers.
#pragma once
#include <cstdint>
#include <cstring>

namespace mlip {
namespace MLIP_ISA {  // one copy per build: the linker must never merge them

template <class T>
struct Simd;
template <>
struct Simd<float> {
  typedef float V __attribute__((vector_size(64)));
  static constexpr int W = 16;
};
template <>
struct Simd<double> {
  typedef double V __attribute__((vector_size(64)));
  static constexpr int W = 8;
};

template <class T>
using Vec = typename Simd<T>::V;

template <class T>
inline Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
inline void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}
template <class T>
inline Vec<T> load_part(const T* p, int n) {
  Vec<T> v = {};
  std::memcpy(&v, p, n * sizeof(T));
  return v;
}
template <class T>
inline void store_part(T* p, Vec<T> v, int n) {
  std::memcpy(p, &v, n * sizeof(T));
}

// e^x to a few units in the last place: x = n ln 2 + r with |r| <= ln(2) / 2, and the series of e^r. A number so
// large that its last bit is worth 1 rounds x / ln 2 and holds n in its low bits, from where it goes to the exponent.
template <class T>
struct Exponential;
template <>
struct Exponential<float> {
  typedef int32_t Bits __attribute__((vector_size(64)));
  static constexpr int kMantissa = 23, kBias = 127, kTerms = 7;
  static constexpr float kRound = 12582912.0f, kLow = -87.0f, kHigh = 88.0f;
  static constexpr float kLn2High = 0.693145751953125f, kLn2Low = 1.42860682030941723e-6f;
};
template <>
struct Exponential<double> {
  typedef int64_t Bits __attribute__((vector_size(64)));
  static constexpr int kMantissa = 52, kBias = 1023, kTerms = 13;
  static constexpr double kRound = 6755399441055744.0, kLow = -708.0, kHigh = 709.0;
  static constexpr double kLn2High = 6.93147180369123816490e-1, kLn2Low = 1.90821492927058770002e-10;
};

template <class T>
inline Vec<T> exp_lanes(Vec<T> x) {
  using E = Exponential<T>;
  x = x < E::kLow ? Vec<T>{} + E::kLow : x;
  x = x > E::kHigh ? Vec<T>{} + E::kHigh : x;
  const Vec<T> shifted = x * T(1.44269504088896340736) + E::kRound;
  const Vec<T> n = shifted - E::kRound;
  const Vec<T> r = (x - n * E::kLn2High) - n * E::kLn2Low;
  Vec<T> sum = Vec<T>{} + T(1);
  for (int k = E::kTerms; k > 0; k--) sum = T(1) + sum * r * T(1.0 / k);
  typename E::Bits bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + E::kBias) << E::kMantissa;
  Vec<T> power;
  std::memcpy(&power, &bits, sizeof power);
  return sum * power;
}

// Sums of the lanes of W vectors at once: log2(W) levels of pairwise additions.
inline Vec<float> pair_add(Vec<float> a, Vec<float> b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
inline Vec<double> pair_add(Vec<double> a, Vec<double> b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
}
template <class T>
inline Vec<T> lane_sums(Vec<T>* v) {
  for (int n = Simd<T>::W; n > 1; n /= 2)
    for (int i = 0; i < n / 2; i++) v[i] = pair_add(v[2 * i], v[2 * i + 1]);
  return v[0];
}

}  // namespace MLIP_ISA
}  // namespace mlip
