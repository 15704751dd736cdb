// One instruction set's build of the edge basis; included by kernels_impl.h only.
// A vector register holds as many edges as it has lanes.
#pragma once
#include <algorithm>
#include <cmath>

#include "dual.h"
#include "edge_basis.h"
#include "parallel.h"

namespace mlip {
namespace MLIP_ISA {

constexpr int kMaxDegrees = 6, kSplines = 6;

// A value and its gradient with respect to the edge vector.
template <class V>
struct Gradient {
  V v, d[3];
};

template <class V>
inline Gradient<V> operator+(Gradient<V> a, Gradient<V> b) {
  return {a.v + b.v, {a.d[0] + b.d[0], a.d[1] + b.d[1], a.d[2] + b.d[2]}};
}
template <class V>
inline Gradient<V> operator*(Gradient<V> a, Gradient<V> b) {
  return {a.v * b.v, {a.v * b.d[0] + a.d[0] * b.v, a.v * b.d[1] + a.d[1] * b.v, a.v * b.d[2] + a.d[2] * b.v}};
}

template <class V, class T>
inline V scaled(V a, T s) { return a * s; }
template <class V, class T>
inline Dual<V> scaled(Dual<V> a, T s) { return {a.v * s, a.d * s}; }
template <class V, class T>
inline Gradient<V> scaled(Gradient<V> a, T s) {
  return {scaled(a.v, s), {scaled(a.d[0], s), scaled(a.d[1], s), scaled(a.d[2], s)}};
}

template <class T>
inline Vec<T> inverse_root(Vec<T> a) {
  Vec<T> r;
  for (int i = 0; i < Simd<T>::W; i++) r[i] = T(1) / std::sqrt(a[i]);
  return r;
}
template <class T>
inline Dual<Vec<T>> inverse_root(Dual<Vec<T>> a) {
  const Vec<T> r = inverse_root<T>(a.v);
  return {r, a.d * (r * r * r * T(-0.5))};
}
template <class T, class V>
inline Gradient<V> inverse_root(Gradient<V> a) {
  const V r = inverse_root<T>(a.v), slope = scaled(r * r * r, T(-0.5));
  return {r, {slope * a.d[0], slope * a.d[1], slope * a.d[2]}};
}

template <class T>
inline Vec<T> plain(Vec<T> a) { return a; }
template <class T>
inline Vec<T> plain(Dual<Vec<T>> a) { return a.v; }
template <class T, class V>
inline Vec<T> plain(Gradient<V> a) { return plain<T>(a.v); }

// a + s, and a masked by zero or one in each lane.
template <class T>
inline Vec<T> shifted(Vec<T> a, Vec<T> s) { return a + s; }
template <class T>
inline Dual<Vec<T>> shifted(Dual<Vec<T>> a, Vec<T> s) { return {a.v + s, a.d}; }
template <class T, class V>
inline Gradient<V> shifted(Gradient<V> a, Vec<T> s) { return {shifted<T>(a.v, s), {a.d[0], a.d[1], a.d[2]}}; }
template <class T>
inline Vec<T> masked(Vec<T> a, Vec<T> m) { return a * m; }
template <class T>
inline Dual<Vec<T>> masked(Dual<Vec<T>> a, Vec<T> m) { return {a.v * m, a.d * m}; }
template <class T, class V>
inline Gradient<V> masked(Gradient<V> a, Vec<T> m) {
  return {masked<T>(a.v, m), {masked<T>(a.d[0], m), masked<T>(a.d[1], m), masked<T>(a.d[2], m)}};
}

// Coefficients of the recurrence, the same as in mlip.o3.harmonics.
struct Legendre {
  double diagonal[kMaxDegrees], a[kMaxDegrees][kMaxDegrees], b[kMaxDegrees][kMaxDegrees];
  explicit Legendre(int64_t degrees) {
    double product = 2.0;  // sqrt(2) for every m > 0
    diagonal[0] = 1.0;
    for (int m = 1; m < degrees; m++) {
      product *= (2.0 * m + 1.0) / (2.0 * m);
      diagonal[m] = std::sqrt(product);
    }
    for (int m = 0; m < degrees; m++)
      for (int l = m + 1; l < degrees; l++) {
        a[l][m] = std::sqrt((4.0 * l * l - 1.0) / (double(l) * l - double(m) * m));
        const double k = l - 1.0;
        b[l][m] = l > m + 1 ? a[l][m] * std::sqrt((k * k - double(m) * m) / (4.0 * k * k - 1.0)) : 0.0;
      }
  }
};

template <class T>
struct EdgeBasis {
  static constexpr int W = Simd<T>::W;
  const MlipEdgeShape& s;
  const Legendre legendre;
  T polynomials[kSplines][kSplines];

  explicit EdgeBasis(const MlipEdgeShape& shape) : s(shape), legendre(shape.degrees) {
    for (int p = 0; p < kSplines; p++)
      for (int k = 0; k < kSplines; k++) polynomials[p][k] = T(shape.polynomials[p * kSplines + k]);
  }

  // Harmonics y and splines beta of the vectors x; returns the interval in each lane.
  template <class S>
  Vec<T> evaluate(const S (&x)[3], S* y, S (&beta)[kSplines]) const {
    const S squared = x[0] * x[0] + x[1] * x[1] + x[2] * x[2];
    const S inverse = inverse_root<T>(squared), r = squared * inverse;
    const S sine = x[0] * inverse, polar = x[1] * inverse, cosine = x[2] * inverse;
    S re = scaled(r, T(0)), im = re;
    re = shifted<T>(re, Vec<T>{} + T(1));
    for (int m = 0; m < s.degrees; m++) {
      S before = scaled(re, T(0)), now = shifted<T>(before, Vec<T>{} + T(legendre.diagonal[m]));
      for (int l = m; l < s.degrees; l++) {
        if (l > m) {
          const S next = scaled(polar * now, T(legendre.a[l][m])) + scaled(before, T(-legendre.b[l][m]));
          before = now;
          now = next;
        }
        y[l * l + l + m] = now * re;
        if (m > 0) y[l * l + l - m] = now * im;
      }
      const S grown = re * cosine + scaled(im * sine, T(-1));
      im = re * sine + im * cosine;
      re = grown;
    }
    const Vec<T> distance = plain<T>(r);
    const T step = T(s.intervals / s.cutoff);
    Vec<T> interval, inside;
    for (int i = 0; i < W; i++) {
      interval[i] = std::min(std::max(std::floor(distance[i] * step), T(0)), T(s.intervals - 1));
      inside[i] = distance[i] < T(s.cutoff) ? T(1) : T(0);
    }
    const S f = shifted<T>(scaled(r, step), -interval);
    for (int k = 0; k < kSplines; k++) {
      S sum = shifted<T>(scaled(f, T(0)), Vec<T>{} + polynomials[kSplines - 1][k]);
      for (int p = kSplines - 2; p >= 0; p--) sum = shifted<T>(sum * f, Vec<T>{} + polynomials[p][k]);
      beta[k] = masked<T>(sum, inside);
    }
    return interval;
  }

  // Lanes of component i of rows of `width` numbers, from row e on; missing rows repeat the last.
  Vec<T> gather(const T* rows, int64_t width, int64_t e, int64_t i) const {
    Vec<T> v;
    for (int lane = 0; lane < W; lane++) v[lane] = rows[std::min(e + lane, s.edges - 1) * width + i];
    return v;
  }
  template <class Write>
  void scatter(int64_t e, Write&& write) const {
    const int lanes = int(std::min<int64_t>(W, s.edges - e));
    for (int lane = 0; lane < lanes; lane++) write(e + lane, lane);
  }

  template <class F>
  void for_edges(F&& body) const {
    const int64_t groups = (s.edges + W - 1) / W;
    const int limit = s.threads > 0 ? int(s.threads) : omp_get_max_threads();
    const int used = int(std::clamp<int64_t>(groups / 32, 1, limit));
#pragma omp parallel for schedule(static) num_threads(used) if (used > 1)
    for (int64_t i = 0; i < groups; i++) body(i * W);
  }

  void forward(const T* vectors, T* y, T* beta, int64_t* interval) const {
    const int64_t D = s.degrees * s.degrees;
    for_edges([&](int64_t e) {
      Vec<T> x[3], ye[kMaxDegrees * kMaxDegrees], be[kSplines];
      for (int i = 0; i < 3; i++) x[i] = gather(vectors, 3, e, i);
      const Vec<T> at = evaluate(x, ye, be);
      scatter(e, [&](int64_t row, int lane) {
        for (int64_t i = 0; i < D; i++) y[row * D + i] = ye[i][lane];
        for (int k = 0; k < kSplines; k++) beta[row * kSplines + k] = be[k][lane];
        interval[row] = int64_t(at[lane]);
      });
    });
  }

  // The gradient of sum gy y + gbeta beta with respect to the vectors x (plain or dual).
  template <class V>
  void pull_back(const V (&x)[3], const T* gy, const T* gbeta, int64_t e, Gradient<V>* ye,
                 Gradient<V> (&be)[kSplines], V (&out)[3]) const {
    const int64_t D = s.degrees * s.degrees;
    Gradient<V> at[3];
    const V zero = scaled(x[0], T(0)), one = shifted<T>(zero, Vec<T>{} + T(1));
    for (int i = 0; i < 3; i++) {
      at[i] = {x[i], {zero, zero, zero}};
      at[i].d[i] = one;
      out[i] = zero;
    }
    evaluate(at, ye, be);
    for (int64_t j = 0; j < D; j++) {
      const Vec<T> g = gather(gy, D, e, j);
      for (int i = 0; i < 3; i++) out[i] += masked<T>(ye[j].d[i], g);
    }
    for (int k = 0; k < kSplines; k++) {
      const Vec<T> g = gather(gbeta, kSplines, e, k);
      for (int i = 0; i < 3; i++) out[i] += masked<T>(be[k].d[i], g);
    }
  }

  void backward(const T* gy, const T* gbeta, const T* vectors, T* gvectors) const {
    for_edges([&](int64_t e) {
      Vec<T> x[3], out[3];
      Gradient<Vec<T>> ye[kMaxDegrees * kMaxDegrees], be[kSplines];
      for (int i = 0; i < 3; i++) x[i] = gather(vectors, 3, e, i);
      pull_back(x, gy, gbeta, e, ye, be, out);
      scatter(e, [&](int64_t row, int lane) {
        for (int i = 0; i < 3; i++) gvectors[row * 3 + i] = out[i][lane];
      });
    });
  }

  void double_backward(const T* dvectors, const T* gy, const T* gbeta, const T* vectors, T* ggy, T* ggbeta,
                       T* gvectors) const {
    using V = Dual<Vec<T>>;
    const int64_t D = s.degrees * s.degrees;
    for_edges([&](int64_t e) {
      V x[3], out[3];
      Gradient<V> ye[kMaxDegrees * kMaxDegrees], be[kSplines];
      for (int i = 0; i < 3; i++) x[i] = {gather(vectors, 3, e, i), gather(dvectors, 3, e, i)};
      pull_back(x, gy, gbeta, e, ye, be, out);
      scatter(e, [&](int64_t row, int lane) {
        for (int64_t i = 0; i < D; i++) ggy[row * D + i] = ye[i].v.d[lane];
        for (int k = 0; k < kSplines; k++) ggbeta[row * kSplines + k] = be[k].v.d[lane];
        for (int i = 0; i < 3; i++) gvectors[row * 3 + i] = out[i].d[lane];
      });
    });
  }
};

template <class T>
int edge_basis(const MlipEdgeShape* s, const T* vectors, T* y, T* beta, int64_t* interval) {
  if (s->degrees > kMaxDegrees) return 1;
  EdgeBasis<T>(*s).forward(vectors, y, beta, interval);
  return 0;
}

template <class T>
int edge_basis_backward(const MlipEdgeShape* s, const T* gy, const T* gbeta, const T* vectors, T* gvectors) {
  if (s->degrees > kMaxDegrees) return 1;
  EdgeBasis<T>(*s).backward(gy, gbeta, vectors, gvectors);
  return 0;
}

template <class T>
int edge_basis_double_backward(const MlipEdgeShape* s, const T* dvectors, const T* gy, const T* gbeta,
                               const T* vectors, T* ggy, T* ggbeta, T* gvectors) {
  if (s->degrees > kMaxDegrees) return 1;
  EdgeBasis<T>(*s).double_backward(dvectors, gy, gbeta, vectors, ggy, ggbeta, gvectors);
  return 0;
}

}  // namespace MLIP_ISA
}  // namespace mlip
