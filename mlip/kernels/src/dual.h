// Dual numbers v + d eps: the eps part of a backward pass run on them is the second derivative
// along d, so each kernel's double backward is its backward once more.
#pragma once
#include "simd.h"

namespace mlip {
namespace MLIP_ISA {

template <class V>
struct Dual {
  V v, d;
};

template <class V>
inline Dual<V> operator+(Dual<V> a, Dual<V> b) { return {a.v + b.v, a.d + b.d}; }
template <class V>
inline Dual<V> operator-(Dual<V> a, Dual<V> b) { return {a.v - b.v, a.d - b.d}; }
template <class V>
inline Dual<V> operator*(Dual<V> a, Dual<V> b) { return {a.v * b.v, a.v * b.d + a.d * b.v}; }
template <class V>
inline Dual<V>& operator+=(Dual<V>& a, Dual<V> b) {
  a.v += b.v;
  a.d += b.d;
  return a;
}

// a += b * s with a plain number s.
template <class V, class T>
inline void add_scaled(V& a, V b, T s) { a += b * s; }
template <class V, class T>
inline void add_scaled(Dual<V>& a, Dual<V> b, T s) {
  a.v += b.v * s;
  a.d += b.d * s;
}

}  // namespace MLIP_ISA
}  // namespace mlip
