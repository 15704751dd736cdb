// A pair at a time, channels in the lanes of vectors.
#pragma once
#include <cmath>

#include "hessian_pairs.h"
#include "parallel.h"
#include "simd.h"

namespace mlip {
namespace MLIP_ISA {

constexpr int kTensorParts = 5, kParts = 8;

// What is known of one pair.
template <class T>
struct PairOperands {
  const T *receiver, *sender;  // [kParts, channels]
  const T* u;                  // [3]

  PairOperands(const MlipPairShape& s, const T* geometry, const T* direction, int64_t p)
      : receiver(geometry + s.receivers[p] * kParts * s.channels),
        sender(geometry + s.senders[p] * kParts * s.channels),
        u(direction + 3 * p) {}
};

// body(p) over all pairs.
template <class F>
void parallel_pairs(const MlipPairShape& s, F&& body) {
  const int limit = s.threads > 0 ? int(s.threads) : omp_get_max_threads();
  const int used = int(std::min<int64_t>(limit, (s.pairs + 63) / 64));
#pragma omp parallel for schedule(static) num_threads(used) if (used > 1)
  for (int64_t p = 0; p < s.pairs; p++) body(p);
}

// body(first channel, whole vector or how many lanes).
template <class T, class F>
inline void by_vectors(int64_t channels, F&& body) {
  constexpr int W = Simd<T>::W;
  for (int64_t c = 0; c < channels; c += W) body(c, int(std::min<int64_t>(W, channels - c)));
}

template <class T>
inline Vec<T> load_lanes(const T* p, int n) {
  return n == Simd<T>::W ? load(p) : load_part(p, n);
}
template <class T>
inline void store_lanes(T* p, Vec<T> v, int n) {
  if (n == Simd<T>::W)
    store(p, v);
  else
    store_part(p, v, n);
}

template <class T>
int hessian_ends(const MlipPairShape* s, const T* geometry, const T* direction, const T* tensor, T* basis,
                 T* projections) {
  const int64_t k = s->channels;
  const T third = T(1 / std::sqrt(3.0));
  parallel_pairs(*s, [&](int64_t p) {
    const PairOperands<T> pair(*s, geometry, direction, p);
    T turn[3][kTensorParts];
    for (int a = 0; a < 3; a++)
      for (int m = 0; m < kTensorParts; m++) {
        turn[a][m] = 0;
        for (int b = 0; b < 3; b++) turn[a][m] += pair.u[b] * tensor[(b * 3 + a) * kTensorParts + m];
      }
    by_vectors<T>(k, [&](int64_t c, int n) {
      Vec<T> inner = {};
      for (int a = 0; a < 3; a++) inner += load_lanes(pair.receiver + a * k + c, n) * load_lanes(pair.sender + a * k + c, n);
      store_lanes<T>(projections + (p * 5 + 4) * k + c, inner * third, n);
      for (int end = 0; end < 2; end++) {
        const T* const parts = end ? pair.sender : pair.receiver;
        Vec<T> along = {}, turned_along = {};
        for (int a = 0; a < 3; a++) {
          const Vec<T> vector = load_lanes(parts + a * k + c, n);
          Vec<T> turned = {};
          for (int m = 0; m < kTensorParts; m++) turned += turn[a][m] * load_lanes(parts + (3 + m) * k + c, n);
          T* const to = basis + (p * 3 + a) * 4 * k + c;
          store_lanes<T>(to + end * k, vector, n);
          store_lanes<T>(to + (2 + end) * k, turned, n);
          along += pair.u[a] * vector;
          turned_along += pair.u[a] * turned;
        }
        store_lanes<T>(projections + (p * 5 + end) * k + c, along, n);
        store_lanes<T>(projections + (p * 5 + 2 + end) * k + c, turned_along, n);
      }
    });
  });
  return 0;
}

template <class T>
int hessian_blocks(const MlipPairShape* s, const T* geometry, const T* direction, const T* tensor, const T* basis,
                   const T* coefficients, T* blocks) {
  const int64_t k = s->channels, width = 2 + 11 * k;
  constexpr int W = Simd<T>::W, kSums = 3 + 3 + 9 + kTensorParts, kRoom = (kSums + W - 1) / W * W;
  parallel_pairs(*s, [&](int64_t p) {
    const PairOperands<T> pair(*s, geometry, direction, p);
    const T* const from = coefficients + p * width;
    const T *const left = from + 2, *const right = left + 4 * k, *const tensors = right + 4 * k;
    const T* const products = tensors + 2 * k;
    Vec<T> sums[kRoom] = {};  // before, after, products, tensors
    by_vectors<T>(4 * k, [&](int64_t c, int n) {
      const Vec<T> l = load_lanes(left + c, n), r = load_lanes(right + c, n);
      for (int a = 0; a < 3; a++) {
        const Vec<T> b = load_lanes(basis + (p * 3 + a) * 4 * k + c, n);
        sums[a] += l * b;
        sums[3 + a] += r * b;
      }
    });
    by_vectors<T>(k, [&](int64_t c, int n) {
      const Vec<T> q = load_lanes(products + c, n);
      Vec<T> sender[3];
      for (int b = 0; b < 3; b++) sender[b] = load_lanes(pair.sender + b * k + c, n);
      for (int a = 0; a < 3; a++) {
        const Vec<T> receiver = q * load_lanes(pair.receiver + a * k + c, n);
        for (int b = 0; b < 3; b++) sums[6 + 3 * a + b] += receiver * sender[b];
      }
      const Vec<T> mine = load_lanes(tensors + c, n), other = load_lanes(tensors + k + c, n);
      for (int m = 0; m < kTensorParts; m++)
        sums[15 + m] += mine * load_lanes(pair.receiver + (3 + m) * k + c, n) +
                        other * load_lanes(pair.sender + (3 + m) * k + c, n);
    });
    T total[kRoom];
    for (int first = 0; first < kRoom; first += W) store(total + first, lane_sums<T>(sums + first));
    T* const block = blocks + 9 * p;
    for (int a = 0; a < 3; a++)
      for (int b = 0; b < 3; b++) {
        T sum = (total[a] + from[1] * pair.u[a]) * pair.u[b] + pair.u[a] * total[3 + b] + total[6 + 3 * a + b];
        for (int m = 0; m < kTensorParts; m++) sum += tensor[(a * 3 + b) * kTensorParts + m] * total[15 + m];
        block[3 * a + b] = a == b ? sum + from[0] : sum;
      }
  });
  return 0;
}

}  // namespace MLIP_ISA
}  // namespace mlip
