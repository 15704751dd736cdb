// The message operator on dual numbers, value and tangent, and its backward pass; included by kernels_impl.h only.
// It serves training on forces: a loss of forces needs the derivative of a directional derivative of the energy.
#pragma once
#include "message_impl.h"

namespace mlip {
namespace MLIP_ISA {

// The derivative of the message along the tangents, of which a missing one is zero, and the message itself
// unless `z` is null.
template <class T>
template <int L, bool PURE>
void Message<T>::dual_forward(const T* da, const T* dy, const T* dbeta, const T* dtable, T* z, T* dz) const {
  const Rows rows = receiver_rows(s, kChunk);
  const int64_t nb = PURE ? 1 : L;
  parallel_chunks(rows, s.receivers_n, s.threads, [&](int64_t, int64_t first, int64_t last) {
    std::vector<T> b(nb * factor.padded), db(nb * factor.padded, T(0));
    for (int64_t n = first; n < last; n++) {
      T *zn = z ? z + n * node_z : nullptr, *dzn = dz + n * node_z;
      if (zn) std::fill(zn, zn + node_z, T(0));
      std::fill(dzn, dzn + node_z, T(0));
      for (int64_t e = rows.start[n]; e < rows.start[n + 1]; e++) {
        factor.angular(y + e * harmonics, b.data());
        if (dy) factor.angular(dy + e * harmonics, db.data());
        const T* as = a + s.senders[e] * node_a;
        const T* das = da ? da + s.senders[e] * node_a : nullptr;
        for_blocks<T, 2>(s.channels, [&](int64_t c, auto nv, int part) {
          using B = Block<T, nv.value>;
          B w[L], dw[L];
          for (int l = 0; l < L; l++) w[l] = dw[l] = B::zero();
          const int64_t at = table_offset(e) + c;
          radial<T, L, nv.value>(beta + e * s.basis, table + at, s.basis, s.channels, part, w);
          if (dbeta) radial<T, L, nv.value>(dbeta + e * s.basis, table + at, s.basis, s.channels, part, dw);
          if (dtable) radial<T, L, nv.value>(beta + e * s.basis, dtable + at, s.basis, s.channels, part, dw);
          const int64_t points = s.points, channels = s.channels, stride = a_stride, padded = factor.padded;
          const int* degree_of = factor.degree_of.data();
          const T *bq = b.data(), *dbq = db.data(), *aq = as + c, *daq = das ? das + c : nullptr;
          T *zq = zn ? zn + c : nullptr, *dzq = dzn + c;
          for (int64_t q = 0; q < points; q++, bq++, dbq++, aq += stride, dzq += channels) {
            B t = B::zero(), dt = B::zero();
            const int first_l = PURE ? degree_of[q] : 0, last_l = PURE ? first_l + 1 : L;
            for (int l = first_l; l < last_l; l++) {
              const int64_t j = PURE ? 0 : l * padded;
              t.add(w[l], bq[j]);
              dt.add(w[l], dbq[j]);
              dt.add(dw[l], bq[j]);
            }
            const B from = B::read(aq, part);
            B tangent = B::read(dzq, part);
            tangent.add(from, dt);
            if (daq) tangent.add(B::read(daq + q * stride, part), t);
            tangent.write(dzq, part);
            if (!zq) continue;
            B value = B::read(zq + q * channels, part);
            value.add(from, t);
            value.write(zq + q * channels, part);
          }
        });
      }
    }
  });
}

// Gradients of the sum of gz z + gdz dz.
template <class T>
template <int L, bool PURE>
void Message<T>::dual_backward(const T* gz, const T* gdz, const T* da, const T* dy, const T* dbeta, T* ga, T* gda,
                               T* gtable) const {
  const Rows rows = sender_rows(s, kChunk);
  const int64_t nb = PURE ? 1 : L;
  const int64_t radial_size = s.edges * L * s.channels;
  const Scratch<T> scratch(2 * radial_size);
  T *const gw_all = scratch.data(), *const gdw_all = gw_all + radial_size;
  parallel_chunks(rows, s.senders_n, s.threads, [&](int64_t, int64_t first, int64_t last) {
    std::vector<T> b(nb * factor.padded), db(nb * factor.padded);
    for (int64_t n = first; n < last; n++) {
      T *gan = ga + n * node_a, *gdan = gda ? gda + n * node_a : nullptr;
      std::fill(gan, gan + node_a, T(0));
      if (gdan) std::fill(gdan, gdan + node_a, T(0));
      const T* as = a + n * node_a;
      const T* das = da ? da + n * node_a : nullptr;
      for (int64_t i = rows.start[n]; i < rows.start[n + 1]; i++) {
        const int64_t e = rows.order[i];
        const T *gzn = gz + s.receivers[e] * node_z, *gdzn = gdz + s.receivers[e] * node_z;
        factor.angular(y + e * harmonics, b.data());
        factor.angular(dy + e * harmonics, db.data());
        for_blocks<T, 1>(s.channels, [&](int64_t c, auto nv, int part) {
          using B = Block<T, nv.value>;
          B w[L], dw[L], gw[L], gdw[L];
          for (int l = 0; l < L; l++) w[l] = dw[l] = gw[l] = gdw[l] = B::zero();
          const T* p = table + table_offset(e) + c;
          radial<T, L, nv.value>(beta + e * s.basis, p, s.basis, s.channels, part, w);
          radial<T, L, nv.value>(dbeta + e * s.basis, p, s.basis, s.channels, part, dw);
          const int64_t points = s.points, channels = s.channels, stride = a_stride, padded = factor.padded;
          const int* degree_of = factor.degree_of.data();
          const T *bq = b.data(), *dbq = db.data(), *aq = as + c, *daq = das ? das + c : nullptr;
          const T *gq = gzn + c, *gdq = gdzn + c;
          T *to = gan + c, *dto = gdan ? gdan + c : nullptr;
          for (int64_t q = 0; q < points; q++, bq++, dbq++, gq += channels, gdq += channels) {
            const B g = B::read(gq, part), gd = B::read(gdq, part), from = B::read(aq + q * stride, part);
            B gt = g * from, t = B::zero(), dt = B::zero();
            const B gdt = gd * from;
            if (daq) gt.add(gd, B::read(daq + q * stride, part));
            const int first_l = PURE ? degree_of[q] : 0, last_l = PURE ? first_l + 1 : L;
            for (int l = first_l; l < last_l; l++) {
              const int64_t j = PURE ? 0 : l * padded;
              t.add(w[l], bq[j]);
              dt.add(w[l], dbq[j]);
              dt.add(dw[l], bq[j]);
              gw[l].add(gt, bq[j]);
              gw[l].add(gdt, dbq[j]);
              gdw[l].add(gdt, bq[j]);
            }
            B out = B::read(to + q * stride, part);
            out.add(g, t);
            out.add(gd, dt);
            out.write(to + q * stride, part);
            if (!dto) continue;
            B dout = B::read(dto + q * stride, part);
            dout.add(gd, t);
            dout.write(dto + q * stride, part);
          }
          for (int l = 0; l < L; l++) {
            gw[l].write(gw_all + (e * L + l) * channels + c, part);
            gdw[l].write(gdw_all + (e * L + l) * channels + c, part);
          }
        });
      }
    }
  });
  table_gradient<T>(s, beta, gw_all, dbeta, gdw_all, gtable);
}

template <class T>
int message_dual(const MlipMessageShape* s, const T* da, const T* dy, const T* dbeta, const T* a, const T* y,
                 const T* beta, const T* table, const T* weight, T* z, T* dz) {
  const Message<T> m(*s, a, y, beta, table, weight);
  return dispatch(m, [&](auto l, auto pure) {
    m.template dual_forward<l.value, pure.value>(da, dy, dbeta, nullptr, z, dz);
  });
}

template <class T>
int message_dual_backward(const MlipMessageShape* s, const T* gz, const T* gdz, const T* da, const T* dy,
                          const T* dbeta, const T* a, const T* y, const T* beta, const T* table,
                          const T* weight, T* ga, T* gda, T* gtable) {
  const Message<T> m(*s, a, y, beta, table, weight);
  return dispatch(m, [&](auto l, auto pure) {
    m.template dual_backward<l.value, pure.value>(gz, gdz, da, dy, dbeta, ga, gda, gtable);
  });
}

}  // namespace MLIP_ISA
}  // namespace mlip
