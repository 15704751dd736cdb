// Second derivatives of the message operator, and the entry points of the three; included by kernels_impl.h only.
#pragma once
#include "message_dual_impl.h"

namespace mlip {
namespace MLIP_ISA {

template <class T>
template <int L, bool PURE>
void Message<T>::double_backward(const T* da, const T* dy, const T* dbeta, const T* dtable, const T* g,
                                 T* ga, T* gy, T* gbeta, T* gtable) const {
  const Rows rows = sender_rows(s, kChunk);
  const int64_t nb = PURE ? 1 : L, radial_size = gtable ? s.edges * L * s.channels : 0;
  const Scratch<T> scratch(dbeta ? 2 * radial_size : radial_size);
  T *const gw_all = scratch.data(), *const gdw_all = gw_all && dbeta ? gw_all + radial_size : nullptr;
  parallel_chunks(rows, s.senders_n, s.threads, [&](int64_t, int64_t first, int64_t last) {
    std::vector<T> b(nb * factor.padded), db(nb * factor.padded, T(0)), gb(nb * factor.padded + Simd<T>::W);
    std::vector<T> gbeta_row(round_up(kMaxBasis, Simd<T>::W));
    AlignedBuffer<Vec<T>> gb_lanes(nb * factor.padded + Simd<T>::W), gbeta_lanes(kMaxBasis + Simd<T>::W);
    for (int64_t n = first; n < last; n++) {
      T* gan = ga + n * node_a;
      std::fill(gan, gan + node_a, T(0));
      const T* as = a + n * node_a;
      const T* das = da ? da + n * node_a : nullptr;
      for (int64_t i = rows.start[n]; i < rows.start[n + 1]; i++) {
        const int64_t e = rows.order[i];
        const T* gn = g + s.receivers[e] * node_z;
        factor.angular(y + e * harmonics, b.data());
        if (dy) factor.angular(dy + e * harmonics, db.data());
        gb_lanes.clear();
        gbeta_lanes.clear();
        for_blocks<T, 1>(s.channels, [&](int64_t c, auto nv, int part) {
          using B = Block<T, nv.value>;
          B w[L], dw[L], gw[L], gdw[L];
          for (int l = 0; l < L; l++) w[l] = dw[l] = gw[l] = gdw[l] = B::zero();
          const int64_t at = table_offset(e) + c;
          radial<T, L, 1>(beta + e * s.basis, table + at, s.basis, s.channels, part, w);
          if (dbeta) radial<T, L, 1>(dbeta + e * s.basis, table + at, s.basis, s.channels, part, dw);
          if (dtable) radial<T, L, 1>(beta + e * s.basis, dtable + at, s.basis, s.channels, part, dw);
          const int64_t points = s.points, channels = s.channels, stride = a_stride, padded = factor.padded;
          const int* degree_of = factor.degree_of.data();
          const T *bq = b.data(), *dbq = db.data(), *aq = as + c, *daq = das ? das + c : nullptr, *gq_at = gn + c;
          T* out_at = gan + c;
          Vec<T>* lanes = gb_lanes.data();
          for (int64_t q = 0; q < points; q++, bq++, dbq++, lanes++, aq += stride, out_at += stride, gq_at += channels) {
            const B gq = B::read(gq_at, part);
            const B gt = gq * B::read(aq, part);
            const B gdt = daq ? gq * B::read(daq + q * stride, part) : B::zero();
            B dt = B::zero();
            const int first_l = PURE ? degree_of[q] : 0, last_l = PURE ? first_l + 1 : L;
            for (int l = first_l; l < last_l; l++) {
              const int64_t j = PURE ? 0 : l * padded;
              dt.add(w[l], dbq[j]);
              dt.add(dw[l], bq[j]);
              gw[l].add(gdt, bq[j]);
              gw[l].add(gt, dbq[j]);
              gdw[l].add(gt, bq[j]);
              lanes[j] += gdt.dot(w[l]) + gt.dot(dw[l]);
            }
            B out = B::read(out_at, part);
            out.add(gq, dt);
            out.write(out_at, part);
          }
          for (int64_t k = 0; k < s.basis; k++)
            for (int l = 0; l < L; l++) {
              const int64_t kl = at + (k * L + l) * s.channels;
              gbeta_lanes[k] += gw[l].dot(B::read(table + kl, part));
              if (dtable) gbeta_lanes[k] += gdw[l].dot(B::read(dtable + kl, part));
            }
          for (int l = 0; l < L; l++) {
            if (gw_all) gw[l].write(gw_all + (e * L + l) * channels + c, part);
            if (gdw_all) gdw[l].write(gdw_all + (e * L + l) * channels + c, part);
          }
        });
        reduce_lanes<T>(gb_lanes.data(), nb * factor.padded, gb.data());
        reduce_lanes<T>(gbeta_lanes.data(), s.basis, gbeta_row.data());
        factor.angular_adjoint(gb.data(), gy + e * harmonics);
        std::copy(gbeta_row.begin(), gbeta_row.begin() + s.basis, gbeta + e * s.basis);
      }
    }
  });
  if (gtable) table_gradient<T>(s, beta, gw_all, dbeta, gdw_all, gtable);
}

template <class T>
int message(const MlipMessageShape* s, const T* a, const T* y, const T* beta, const T* table,
            const T* weight, T* z) {
  const Message<T> m(*s, a, y, beta, table, weight);
  return dispatch(m, [&](auto l, auto pure) { m.template forward<l.value, pure.value>(z); });
}

template <class T>
int message_backward(const MlipMessageShape* s, const T* g, const T* a, const T* y, const T* beta,
                     const T* table, const T* weight, T* ga, T* gy, T* gbeta, T* gtable) {
  const Message<T> m(*s, a, y, beta, table, weight);
  return dispatch(m, [&](auto l, auto pure) {
    m.template backward<l.value, pure.value>(g, ga, gy, gbeta, gtable);
  });
}

template <class T>
int message_double_backward(const MlipMessageShape* s, const T* da, const T* dy, const T* dbeta,
                            const T* dtable, const T* g, const T* a, const T* y, const T* beta,
                            const T* table, const T* weight, T* gg, T* ga, T* gy, T* gbeta, T* gtable) {
  const Message<T> m(*s, a, y, beta, table, weight);
  return dispatch(m, [&](auto l, auto pure) {
    m.template dual_forward<l.value, pure.value>(da, dy, dbeta, dtable, nullptr, gg);
    m.template double_backward<l.value, pure.value>(da, dy, dbeta, dtable, g, ga, gy, gbeta, gtable);
  });
}

}  // namespace MLIP_ISA
}  // namespace mlip
