// One instruction set's build of the node product; included by kernels_impl.h only.
#pragma once
#include <algorithm>
#include <type_traits>

#include "dual.h"
#include "parallel.h"
#include "sphere_product.h"

namespace mlip {
namespace MLIP_ISA {

// How a kernel reads operands and writes results: plain numbers, or value and tangent.
template <class T>
struct PlainOperand {
  using V = Vec<T>;
  const T* value;
  V read(int64_t at, int part) const { return part ? load_part<T>(value + at, part) : load<T>(value + at); }
};
template <class T>
struct DualOperand {
  using V = Dual<Vec<T>>;
  const T *value, *tangent;  // a missing tangent is zero
  V read(int64_t at, int part) const {
    if (part) return {load_part<T>(value + at, part), tangent ? load_part<T>(tangent + at, part) : Vec<T>{}};
    return {load<T>(value + at), tangent ? load<T>(tangent + at) : Vec<T>{}};
  }
};
// The derivative that a backward pass is run for: its result, or on dual numbers the tangent of it.
template <class T>
inline Vec<T> wanted(Vec<T> x) { return x; }
template <class T>
inline Vec<T> wanted(Dual<Vec<T>> x) { return x.d; }

template <class T>
inline void write(T* p, Vec<T> x, int part) {
  if (part) store_part<T>(p, x, part);
  else store<T>(p, x);
}
// Where results go; what is not asked for is null.
template <class T>
struct Results {
  T *value, *tangent;
  void write_at(int64_t at, Vec<T> x, int part) const { write<T>(value + at, x, part); }
  void write_at(int64_t at, Dual<Vec<T>> x, int part) const {
    if (value) write<T>(value + at, x.v, part);
    if (tangent) write<T>(tangent + at, x.d, part);
  }
};
template <class T>
inline void accumulate(T* p, Vec<T> x, int part) {
  if (part) store_part<T>(p, load_part<T>(p, part) + x, part);
  else store<T>(p, load<T>(p) + x);
}

// The species parameters of one node and one block of channels.
template <class T, int J, int L, class Operand>
struct SphereParameters {
  using V = typename Operand::V;
  V scale[J][L], weight[J];
  SphereParameters(const Operand& s, const Operand& w, int64_t species, int64_t channels, int64_t c, int part) {
    for (int j = 0; j < J; j++) {
      for (int l = 0; l < L; l++) scale[j][l] = s.read(((species * J + j) * L + l) * channels + c, part);
      weight[j] = w.read((species * J + j) * channels + c, part);
    }
  }
};

// f[j] at one point, and its parts by degree.
template <int J, int L, class V, class T>
inline void evaluate(const V* a, const V (&scale)[J][L], const T* to, V (&by_degree)[L], V (&f)[J]) {
  for (int l = 0; l < L; l++) {
    V sum = {};
    for (int i = l * l; i < (l + 1) * (l + 1); i++) add_scaled(sum, a[i], to[i]);
    by_degree[l] = sum;
  }
  for (int j = 0; j < J; j++) {
    V sum = scale[j][0] * by_degree[0];
    for (int l = 1; l < L; l++) sum += scale[j][l] * by_degree[l];
    f[j] = sum;
  }
}

template <class T, int J, int L, class Operand>
void sphere_forward(const MlipSphereShape& s, Operand a, Operand scale, Operand weight, const T* to,
                    const T* from, Results<T> out) {
  using V = typename Operand::V;
  constexpr int D = L * L, W = Simd<T>::W;
  const int64_t C = s.channels;
  parallel_nodes(s.nodes, s.threads, [&](int64_t, int64_t first, int64_t last) {
    for (int64_t n = first; n < last; n++)
      for (int64_t c = 0; c < C; c += W) {
        const int part = int(C - c < W ? C - c : 0);
        const SphereParameters<T, J, L, Operand> p(scale, weight, s.species[n], C, c, part);
        V an[D], sum[D] = {};
        for (int i = 0; i < D; i++) an[i] = a.read((n * D + i) * C + c, part);
        for (int64_t q = 0; q < s.points; q++) {
          V by_degree[L], f[J];
          evaluate<J, L>(an, p.scale, to + q * D, by_degree, f);
          V product = f[J - 1] * p.weight[J - 1];
          for (int j = J - 2; j >= 0; j--) product = f[j] * (product + p.weight[j]);
          for (int64_t k = 0; k < s.harmonics_out; k++) add_scaled(sum[k], product, from[k * s.points + q]);
        }
        for (int64_t k = 0; k < s.harmonics_out; k++)
          out.write_at((n * s.harmonics_out + k) * C + c, sum[k], part);
      }
  });
}

template <class T, int J, int L, class Operand>
void sphere_backward(const MlipSphereShape& s, Operand g, Operand a, Operand scale, Operand weight, const T* to,
                     const T* from, Results<T> ga, T* gscale, T* gweight) {
  using V = typename Operand::V;
  constexpr int D = L * L, W = Simd<T>::W;
  const int64_t C = s.channels;
  const bool parameters = gscale != nullptr;
  const int64_t scale_size = s.species_n * J * L * C, weight_size = s.species_n * J * C;
  Partials<T> partials(parameters ? scale_size + weight_size : 0, node_chunks(s.nodes));
  parallel_nodes(s.nodes, s.threads, [&](int64_t chunk, int64_t first, int64_t last) {
    T* sums = partials.at(chunk);
    for (int64_t n = first; n < last; n++)
      for (int64_t c = 0; c < C; c += W) {
        const int part = int(C - c < W ? C - c : 0);
        const SphereParameters<T, J, L, Operand> p(scale, weight, s.species[n], C, c, part);
        V an[D], gan[D] = {}, gn[D], gs[J][L] = {}, gw[J] = {};
        for (int i = 0; i < D; i++) an[i] = a.read((n * D + i) * C + c, part);
        for (int64_t k = 0; k < s.harmonics_out; k++) gn[k] = g.read((n * s.harmonics_out + k) * C + c, part);
        for (int64_t q = 0; q < s.points; q++) {
          V by_degree[L], f[J], u[J];
          evaluate<J, L>(an, p.scale, to + q * D, by_degree, f);
          u[J - 1] = p.weight[J - 1];
          for (int j = J - 2; j >= 0; j--) u[j] = p.weight[j] + f[j + 1] * u[j + 1];
          V gu = {}, gdegree[L] = {};
          for (int64_t k = 0; k < s.harmonics_out; k++) add_scaled(gu, gn[k], from[k * s.points + q]);
          for (int j = 0; j < J; j++) {
            const V gf = gu * u[j];
            gu = gu * f[j];
            gw[j] += gu;
            for (int l = 0; l < L; l++) {
              gdegree[l] += p.scale[j][l] * gf;
              gs[j][l] += by_degree[l] * gf;
            }
          }
          const T* row = to + q * D;
          for (int l = 0; l < L; l++)
            for (int i = l * l; i < (l + 1) * (l + 1); i++) add_scaled(gan[i], gdegree[l], row[i]);
        }
        for (int i = 0; i < D; i++) ga.write_at((n * D + i) * C + c, gan[i], part);
        if (!parameters) continue;
        for (int j = 0; j < J; j++) {
          const int64_t at = s.species[n] * J + j;
          for (int l = 0; l < L; l++) accumulate<T>(sums + (at * L + l) * C + c, wanted<T>(gs[j][l]), part);
          accumulate<T>(sums + scale_size + at * C + c, wanted<T>(gw[j]), part);
        }
      }
  });
  if (parameters) {
    std::vector<T> total(scale_size + weight_size);
    partials.sum_into(total.data(), s.threads);
    std::copy(total.begin(), total.begin() + scale_size, gscale);
    std::copy(total.begin() + scale_size, total.end(), gweight);
  }
}

// Calls with the compiled correlation and number of degrees; 1 where there is none.
template <class F>
int dispatch_sphere(const MlipSphereShape& s, F&& call) {
  if (s.harmonics_out > s.degrees * s.degrees) return 1;
#define MLIP_CASE(J, L)                                                                                  \
  if (s.correlation == J && s.degrees == L) {                                                            \
    call(std::integral_constant<int, J>{}, std::integral_constant<int, L>{});                            \
    return 0;                                                                                            \
  }
  MLIP_CASE(2, 2) MLIP_CASE(2, 3) MLIP_CASE(2, 4) MLIP_CASE(3, 2) MLIP_CASE(3, 3) MLIP_CASE(3, 4)
#undef MLIP_CASE
  return 1;
}

template <class T>
int sphere_product(const MlipSphereShape* s, const T* a, const T* scale, const T* weight, const T* to,
                   const T* from, T* out) {
  return dispatch_sphere(*s, [&](auto j, auto l) {
    using P = PlainOperand<T>;
    sphere_forward<T, j.value, l.value>(*s, P{a}, P{scale}, P{weight}, to, from, {out, nullptr});
  });
}

template <class T>
int sphere_product_backward(const MlipSphereShape* s, const T* g, const T* a, const T* scale, const T* weight,
                            const T* to, const T* from, T* ga, T* gscale, T* gweight) {
  return dispatch_sphere(*s, [&](auto j, auto l) {
    using P = PlainOperand<T>;
    const Results<T> out{ga, nullptr};
    sphere_backward<T, j.value, l.value>(*s, P{g}, P{a}, P{scale}, P{weight}, to, from, out, gscale, gweight);
  });
}

template <class T>
int sphere_product_double_backward(const MlipSphereShape* s, const T* da, const T* dscale, const T* dweight,
                                   const T* g, const T* a, const T* scale, const T* weight, const T* to,
                                   const T* from, T* gg, T* ga, T* gscale, T* gweight) {
  return dispatch_sphere(*s, [&](auto j, auto l) {
    using P = DualOperand<T>;
    const P pg{g, nullptr}, pa{a, da}, ps{scale, dscale}, pw{weight, dweight};
    sphere_forward<T, j.value, l.value>(*s, pa, ps, pw, to, from, {nullptr, gg});
    sphere_backward<T, j.value, l.value>(*s, pg, pa, ps, pw, to, from, {nullptr, ga}, gscale, gweight);
  });
}

template <class T>
int sphere_product_dual(const MlipSphereShape* s, const T* da, const T* a, const T* scale, const T* weight,
                        const T* to, const T* from, T* out, T* dout) {
  return dispatch_sphere(*s, [&](auto j, auto l) {
    using P = DualOperand<T>;
    const P ps{scale, nullptr}, pw{weight, nullptr};
    sphere_forward<T, j.value, l.value>(*s, P{a, da}, ps, pw, to, from, {out, dout});
  });
}

// With J the Jacobian at a: gda = J' gdout, and ga = J' gout + d(J' gdout) along da, which is what the backward
// pass gives for the dual number gdout + gout eps.
template <class T>
int sphere_product_dual_backward(const MlipSphereShape* s, const T* gout, const T* gdout, const T* da,
                                 const T* a, const T* scale, const T* weight, const T* to, const T* from,
                                 T* ga, T* gda, T* gscale, T* gweight) {
  return dispatch_sphere(*s, [&](auto j, auto l) {
    using P = DualOperand<T>;
    const P pg{gdout, gout}, ps{scale, nullptr}, pw{weight, nullptr};
    sphere_backward<T, j.value, l.value>(*s, pg, P{a, da}, ps, pw, to, from, {gda, ga}, gscale, gweight);
  });
}

}  // namespace MLIP_ISA
}  // namespace mlip
