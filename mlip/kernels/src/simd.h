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
