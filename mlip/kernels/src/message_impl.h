// One instruction set's build of the message operator; included by isa_*.cpp only.
// Everything here lies in namespace MLIP_ISA, so that three builds can live in one library.
#pragma once
#include <algorithm>
#include <vector>

#include "message.h"
#include "parallel.h"
#include "simd.h"

namespace mlip {
namespace MLIP_ISA {

constexpr int kMaxBasis = 64, kMaxHarmonics = 25;

inline int64_t round_up(int64_t n, int64_t m) { return (n + m - 1) / m * m; }

// Sums the lanes of `count` vectors into `out`, W at a time.
template <class T>
inline void reduce_lanes(Vec<T>* v, int64_t count, T* out) {
  constexpr int W = Simd<T>::W;
  for (int64_t i = 0; i < count; i += W) {
    for (int64_t j = count; j < i + W; j++) v[j] = Vec<T>{};
    store<T>(out + i, lane_sums<T>(v + i));
  }
}

// The angular factor, transposed and padded, and whether each point sees one degree only.
template <class T>
struct Factor {
  int64_t points, padded, degrees, harmonics;
  std::vector<T> transposed;    // [lm, padded points]
  std::vector<int> degree_of;   // [points], valid if pure
  bool pure = true;

  Factor(const MlipMessageShape& s, const T* weight)
      : points(s.points), padded(round_up(s.points, Simd<T>::W)), degrees(s.degrees),
        harmonics(s.degrees * s.degrees), transposed(harmonics * padded, T(0)), degree_of(points, 0) {
    for (int64_t q = 0; q < points; q++) {
      int seen = -1;
      for (int64_t l = 0; l < degrees; l++)
        for (int64_t i = l * l; i < (l + 1) * (l + 1); i++) {
          T value = weight[q * harmonics + i];
          transposed[i * padded + q] = value;
          if (value == T(0)) continue;
          if (seen >= 0 && seen != l) pure = false;
          seen = int(l);
        }
      degree_of[q] = std::max(seen, 0);
    }
  }

  // b[l, q]; for a pure factor one row, since each q has one degree.
  void angular(const T* y, T* b) const {
    constexpr int W = Simd<T>::W;
    for (int64_t p = 0; p < padded; p += W) {
      Vec<T> sum = {};
      for (int64_t l = 0; l < degrees; l++) {
        for (int64_t i = l * l; i < (l + 1) * (l + 1); i++)
          sum += load<T>(&transposed[i * padded + p]) * y[i];
        if (!pure) {
          store<T>(b + l * padded + p, sum);
          sum = Vec<T>{};
        }
      }
      if (pure) store<T>(b + p, sum);
    }
  }

  // gy[lm] from gb[l, q], the adjoint of `angular`.
  void angular_adjoint(const T* gb, T* gy) const {
    constexpr int W = Simd<T>::W;
    Vec<T> sums[kMaxHarmonics + W];
    for (int64_t l = 0; l < degrees; l++)
      for (int64_t i = l * l; i < (l + 1) * (l + 1); i++) {
        Vec<T> sum = {};
        for (int64_t p = 0; p < padded; p += W)
          sum += load<T>(&transposed[i * padded + p]) * load<T>(gb + (pure ? 0 : l * padded) + p);
        sums[i] = sum;
      }
    T rounded[kMaxHarmonics + W];
    reduce_lanes<T>(sums, harmonics, rounded);
    std::copy(rounded, rounded + harmonics, gy);
  }
};

// NV vectors of channels from c on; the last block of a row may be partial (n < W).
template <class T, int NV>
struct Block {
  Vec<T> v[NV];
  static Block zero() {
    Block r;
    for (int i = 0; i < NV; i++) r.v[i] = Vec<T>{};
    return r;
  }
  static inline Block read(const T* p, int part) {
    Block r;
    if (NV == 1 && part) {
      r.v[0] = load_part<T>(p, part);
      return r;
    }
    for (int i = 0; i < NV; i++) r.v[i] = load<T>(p + i * Simd<T>::W);
    return r;
  }
  inline void write(T* p, int part) const {
    if (NV == 1 && part) return store_part<T>(p, v[0], part);
    for (int i = 0; i < NV; i++) store<T>(p + i * Simd<T>::W, v[i]);
  }
  inline void add(const Block& a, const Block& b) {
    for (int i = 0; i < NV; i++) v[i] += a.v[i] * b.v[i];
  }
  inline void add(const Block& a, T b) {
    for (int i = 0; i < NV; i++) v[i] += a.v[i] * b;
  }
  inline Block operator*(const Block& o) const {
    Block r;
    for (int i = 0; i < NV; i++) r.v[i] = v[i] * o.v[i];
    return r;
  }
  inline Vec<T> dot(const Block& o) const {
    Vec<T> s = v[0] * o.v[0];
    for (int i = 1; i < NV; i++) s += v[i] * o.v[i];
    return s;
  }
};

// Calls body(first channel, block width tag, partial width) over a row of channels.
template <class T, int NV, class F>
inline void for_blocks(int64_t channels, F&& body) {
  constexpr int W = Simd<T>::W;
  int64_t c = 0;
  for (; c + NV * W <= channels; c += NV * W) body(c, std::integral_constant<int, NV>{}, 0);
  for (; c < channels; c += W)
    body(c, std::integral_constant<int, 1>{}, int(channels - c < W ? channels - c : 0));
}

// w[l] = sum_k beta[k] table[k, l, c..]
template <class T, int L, int NV>
inline void radial(const T* beta, const T* table, int64_t basis, int64_t channels, int part,
                   Block<T, NV>* w) {
  for (int64_t k = 0; k < basis; k++)
    for (int l = 0; l < L; l++) w[l].add(Block<T, NV>::read(table + (k * L + l) * channels, part), beta[k]);
}

// The gradient of the radial table from that of each edge's radial functions, gtable[row + k] = sum of
// beta[k] gw + dbeta[k] gdw. Each thread takes its part of every row and all edges in their order: no private
// copies of the table, and the same numbers on any number of threads.
template <class T>
void table_gradient(const MlipMessageShape& s, const T* beta, const T* gw, const T* dbeta, const T* gdw,
                    T* gtable) {
  constexpr int W = Simd<T>::W;
  const int64_t row_size = s.degrees * s.channels, vectors = round_up(row_size, W) / W;
  const int64_t limit = s.threads > 0 ? s.threads : omp_get_max_threads();
  const int64_t parts = s.edges > kChunk ? std::min(limit, vectors) : 1;
#pragma omp parallel for schedule(static) num_threads(int(parts)) if (parts > 1)
  for (int64_t i = 0; i < parts; i++) {
    const int64_t first = vectors * i / parts * W, last = std::min(row_size, vectors * (i + 1) / parts * W);
    for (int64_t r = 0; r < s.rows; r++) std::fill(gtable + r * row_size + first, gtable + r * row_size + last, T(0));
    for (int64_t e = 0; e < s.edges; e++)
      for (int64_t k = 0; k < s.basis; k++) {
        const T value = beta[e * s.basis + k], tangent = dbeta ? dbeta[e * s.basis + k] : T(0);
        T* __restrict to = gtable + (s.row[e] + k) * row_size;
        const T *__restrict from = gw + e * row_size, *__restrict dfrom = dbeta ? gdw + e * row_size : from;
        for (int64_t c = first; c < last; c++) to[c] += from[c] * value + dfrom[c] * tangent;
      }
  }
}

template <class T>
struct Message {
  const MlipMessageShape& s;
  const T *a, *y, *beta, *table;
  const Factor<T> factor;
  int64_t a_stride, node_a, node_z, harmonics;

  Message(const MlipMessageShape& shape, const T* a, const T* y, const T* beta, const T* table,
          const T* weight)
      : s(shape), a(a), y(y), beta(beta), table(table), factor(shape, weight),
        a_stride(shape.a_points == 1 ? 0 : shape.channels), node_a(shape.a_points * shape.channels),
        node_z(shape.points * shape.channels), harmonics(shape.degrees * shape.degrees) {}

  int64_t table_offset(int64_t e) const { return s.row[e] * s.degrees * s.channels; }

  template <int L, bool PURE>
  void forward(T* z) const;
  template <int L, bool PURE>
  void backward(const T* g, T* ga, T* gy, T* gbeta, T* gtable) const;
  template <int L, bool PURE>
  void dual_forward(const T* da, const T* dy, const T* dbeta, const T* dtable, T* z, T* dz) const;
  template <int L, bool PURE>
  void dual_backward(const T* gz, const T* gdz, const T* da, const T* dy, const T* dbeta, T* ga, T* gda,
                     T* gtable) const;
  template <int L, bool PURE>
  void double_backward(const T* da, const T* dy, const T* dbeta, const T* dtable, const T* g, T* ga,
                       T* gy, T* gbeta, T* gtable) const;
};

template <class T>
template <int L, bool PURE>
void Message<T>::forward(T* z) const {
  const Rows rows = receiver_rows(s, kChunk);
  parallel_chunks(rows, s.receivers_n, s.threads, [&](int64_t, int64_t first, int64_t last) {
    std::vector<T> b(L * factor.padded);
    for (int64_t n = first; n < last; n++) {
      T* zn = z + n * node_z;
      std::fill(zn, zn + node_z, T(0));
      for (int64_t e = rows.start[n]; e < rows.start[n + 1]; e++) {
        factor.angular(y + e * harmonics, b.data());
        const T* as = a + s.senders[e] * node_a;
        for_blocks<T, 2>(s.channels, [&](int64_t c, auto nv, int part) {
          using B = Block<T, nv.value>;
          B w[L];
          for (int l = 0; l < L; l++) w[l] = B::zero();
          radial<T, L, nv.value>(beta + e * s.basis, table + table_offset(e) + c, s.basis, s.channels, part, w);
          // Locals: the compiler must not read shapes and pointers again after every store.
          const int64_t points = s.points, channels = s.channels, stride = a_stride, padded = factor.padded;
          const int* degree_of = factor.degree_of.data();
          const T *bq = b.data(), *aq = as + c;
          T* zq = zn + c;
          for (int64_t q = 0; q < points; q++, bq++, aq += stride, zq += channels) {
            B t = B::zero();
            if (PURE) t.add(w[degree_of[q]], *bq);
            else
              for (int l = 0; l < L; l++) t.add(w[l], bq[l * padded]);
            B out = B::read(zq, part);
            out.add(B::read(aq, part), t);
            out.write(zq, part);
          }
        });
      }
    }
  });
}

template <class T>
template <int L, bool PURE>
void Message<T>::backward(const T* g, T* ga, T* gy, T* gbeta, T* gtable) const {
  const Rows rows = sender_rows(s, kChunk);
  const int64_t nb = PURE ? 1 : L;
  const Scratch<T> scratch(gtable ? s.edges * L * s.channels : 0);
  T* const gw_all = scratch.data();
  parallel_chunks(rows, s.senders_n, s.threads, [&](int64_t, int64_t first, int64_t last) {
    std::vector<T> b(nb * factor.padded), gb(round_up(nb * factor.padded, Simd<T>::W));
    std::vector<T> gbeta_row(round_up(kMaxBasis, Simd<T>::W));
    AlignedBuffer<Vec<T>> gb_lanes(nb * factor.padded + Simd<T>::W), gbeta_lanes(kMaxBasis + Simd<T>::W);
    for (int64_t n = first; n < last; n++) {
      T* gan = ga + n * node_a;
      std::fill(gan, gan + node_a, T(0));
      const T* as = a + n * node_a;
      for (int64_t i = rows.start[n]; i < rows.start[n + 1]; i++) {
        const int64_t e = rows.order[i];
        const T* gn = g + s.receivers[e] * node_z;
        factor.angular(y + e * harmonics, b.data());
        gb_lanes.clear();
        gbeta_lanes.clear();
        for_blocks<T, 2>(s.channels, [&](int64_t c, auto nv, int part) {
          using B = Block<T, nv.value>;
          B w[L], gw[L];
          for (int l = 0; l < L; l++) w[l] = gw[l] = B::zero();
          const T* p = table + table_offset(e) + c;
          radial<T, L, nv.value>(beta + e * s.basis, p, s.basis, s.channels, part, w);
          const int64_t points = s.points, channels = s.channels, stride = a_stride, padded = factor.padded;
          const int* degree_of = factor.degree_of.data();
          const T *bq = b.data(), *aq = as + c, *gq_at = gn + c;
          T* out_at = gan + c;
          Vec<T>* lanes = gb_lanes.data();
          for (int64_t q = 0; q < points; q++, bq++, lanes++, aq += stride, out_at += stride, gq_at += channels) {
            const B gq = B::read(gq_at, part);
            const B gt = gq * B::read(aq, part);
            B t = B::zero();
            const int first_l = PURE ? degree_of[q] : 0, last_l = PURE ? first_l + 1 : L;
            for (int l = first_l; l < last_l; l++) {
              const int64_t j = PURE ? 0 : l * padded;
              t.add(w[l], bq[j]);
              gw[l].add(gt, bq[j]);
              lanes[j] += gt.dot(w[l]);
            }
            B out = B::read(out_at, part);
            out.add(gq, t);
            out.write(out_at, part);
          }
          for (int64_t k = 0; k < s.basis; k++)
            for (int l = 0; l < L; l++) {
              const int64_t at = (k * L + l) * s.channels;
              gbeta_lanes[k] += gw[l].dot(B::read(p + at, part));
            }
          if (gw_all)
            for (int l = 0; l < L; l++) gw[l].write(gw_all + (e * L + l) * channels + c, part);
        });
        reduce_lanes<T>(gb_lanes.data(), nb * factor.padded, gb.data());
        reduce_lanes<T>(gbeta_lanes.data(), s.basis, gbeta_row.data());
        factor.angular_adjoint(gb.data(), gy + e * harmonics);
        std::copy(gbeta_row.begin(), gbeta_row.begin() + s.basis, gbeta + e * s.basis);
      }
    }
  });
  if (gtable) table_gradient<T>(s, beta, gw_all, nullptr, nullptr, gtable);
}

// Chooses the compiled case for a factor and a number of degrees; 1 where there is none.
template <class T, class F>
int dispatch(const Message<T>& m, F&& call) {
  if (m.s.basis > kMaxBasis) return 1;
#define MLIP_CASE(L)                                                                          \
  case L:                                                                                     \
    if (m.factor.pure) call(std::integral_constant<int, L>{}, std::true_type{});              \
    else call(std::integral_constant<int, L>{}, std::false_type{});                           \
    return 0;
  switch (m.s.degrees) {
    MLIP_CASE(1)
    MLIP_CASE(2)
    MLIP_CASE(3)
    MLIP_CASE(4)
    MLIP_CASE(5)
  }
#undef MLIP_CASE
  return 1;
}

}  // namespace MLIP_ISA
}  // namespace mlip
