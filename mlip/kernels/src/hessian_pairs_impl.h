// Some pairs at a time, whose numbers stay in the cache from the distance to the block.
#pragma once
#include <cmath>

#include "hessian_pairs.h"
#include "linear_impl.h"
#include "parallel.h"
#include "simd.h"

namespace mlip {
namespace MLIP_ISA {

constexpr int kTensorParts = 5, kParts = 8;
constexpr int kPairsAtOnce = 4 * kTileRows;

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
inline void silu_in_place(T* x, int64_t size) {
  by_vectors<T>(size, [&](int64_t c, int n) {
    const Vec<T> v = load_lanes(x + c, n);
    store_lanes<T>(x + c, v / (T(1) + exp_lanes<T>(-v)), n);
  });
}

// 1 - 28 x^6 + 48 x^7 - 21 x^8 up to 1, and 0 from there on.
template <class T>
inline T envelope(T x) {
  if (x >= T(1)) return T(0);
  const T x3 = x * x * x;
  return T(1) + x3 * x3 * (T(-28) + x * (T(48) - T(21) * x));
}

template <class T>
struct PairWeights {
  const T *radial, *gain, *bias, *angular, *pair_hidden, *pair_out, *arm_hidden, *arm_out, *arm_mix, *tensor;
};

// What is known of some pairs.
template <class T>
class PairTile {
 public:
  PairTile(const MlipPairShape& shape, const T* scalars, const T* geometry, const T* vectors,
           const PairWeights<T>& weights)
      : s(shape),
        w(weights),
        scalars_(scalars),
        geometry_(geometry),
        vectors_(vectors),
        k(s.channels),
        columns_(2 + 11 * k),
        beside_(4 * k + s.coordinates),
        room_(kPairsAtOnce * size_t(3 + 1 + s.radials + 12 * k + 5 * k + 3 * s.width + columns_ + beside_ + 12 * k +
                                    3 * s.coordinates)) {
    T* at = room_.data();
    for (auto [part, size] : {Part{&u, 3}, Part{&prior, 1}, Part{&bessel, s.radials}, Part{&basis, 12 * k},
                              Part{&projections, 5 * k}, Part{&hidden, s.width}, Part{&other, s.width},
                              Part{&second, s.width}, Part{&coefficients, columns_}, Part{&beside, beside_},
                              Part{&scaled, 12 * k}, Part{&mixed, 3 * s.coordinates}}) {
      *part = at;
      at += kPairsAtOnce * size;
    }
  }

  void compute(int64_t start, int64_t end, T* blocks, T* weight, T* arms) {
    first = start, count = end - start;
    for (int64_t r = 0; r < count; r++) {
      place(r);
      turn(r);
    }
    begin_networks();
    product(count, s.width, s.width, hidden, w.pair_hidden, second);
    silu_in_place(second, count * s.width);
    product(count, s.width, columns_, second, w.pair_out, coefficients);
    for (int64_t r = 0; r < count; r++) {
      const T size = prior[r] * envelope(distance[r] / T(s.cutoff));
      weight[first + r] = size;
      block(r, size, blocks + 9 * (first + r));
    }
    reach(arms);
  }

 private:
  struct Part {
    T** start;
    int64_t size;
  };

  const MlipPairShape& s;
  const PairWeights<T>& w;
  const T *scalars_, *geometry_, *vectors_;
  const int64_t k, columns_, beside_;
  Scratch<T> room_;
  T *u, *prior, *bessel, *basis, *projections, *hidden, *other, *second, *coefficients, *beside, *scaled, *mixed;
  T distance[kPairsAtOnce];
  int64_t first = 0, count = 0;

  const T* end_of(int64_t r, bool sender) const {
    return geometry_ + (sender ? s.senders : s.receivers)[first + r] * kParts * k;
  }

  // Distance, direction and radial functions: sin(n x) by the recurrence of Chebyshev.
  void place(int64_t r) {
    const T* const v = vectors_ + 3 * (first + r);
    const double length = std::sqrt(double(v[0]) * v[0] + double(v[1]) * v[1] + double(v[2]) * v[2]);
    distance[r] = T(length);
    for (int a = 0; a < 3; a++) u[3 * r + a] = T(v[a] / length);
    const double square = length * length;
    prior[r] = T(s.scale / (s.shorten + square * square));
    const double x = M_PI * length / s.cutoff, twice = 2 * std::cos(x), norm = std::sqrt(2 / s.cutoff) / length;
    double before = 0, now = norm * std::sin(x);
    for (int64_t n = 0; n < s.radials; n++) {
      bessel[r * s.radials + n] = T(now);
      const double next = twice * now - before;
      before = now, now = next;
    }
  }

  // Basis and projections.
  void turn(int64_t r) {
    const T third = T(1 / std::sqrt(3.0)), *const to = u + 3 * r;
    const T *const receiver = end_of(r, false), *const sender = end_of(r, true);
    T turns[3][kTensorParts];
    for (int a = 0; a < 3; a++)
      for (int m = 0; m < kTensorParts; m++) {
        turns[a][m] = 0;
        for (int b = 0; b < 3; b++) turns[a][m] += to[b] * w.tensor[(b * 3 + a) * kTensorParts + m];
      }
    T* const rows = basis + r * 12 * k;
    T* const along_all = projections + r * 5 * k;
    by_vectors<T>(k, [&](int64_t c, int n) {
      Vec<T> inner = {};
      for (int a = 0; a < 3; a++) inner += load_lanes(receiver + a * k + c, n) * load_lanes(sender + a * k + c, n);
      store_lanes<T>(along_all + 4 * k + c, inner * third, n);
      for (int end = 0; end < 2; end++) {
        const T* const parts = end ? sender : receiver;
        Vec<T> along = {}, turned_along = {};
        for (int a = 0; a < 3; a++) {
          const Vec<T> vector = load_lanes(parts + a * k + c, n);
          Vec<T> turned = {};
          for (int m = 0; m < kTensorParts; m++) turned += turns[a][m] * load_lanes(parts + (3 + m) * k + c, n);
          store_lanes<T>(rows + (a * 4 + end) * k + c, vector, n);
          store_lanes<T>(rows + (a * 4 + 2 + end) * k + c, turned, n);
          along += to[a] * vector;
          turned_along += to[a] * turned;
        }
        store_lanes<T>(along_all + end * k + c, along, n);
        store_lanes<T>(along_all + (2 + end) * k + c, turned_along, n);
      }
    });
  }

  void begin_networks() {
    const int64_t width = s.width;
    product(count, s.radials, width, bessel, w.radial, other);
    product(count, 5 * k, width, projections, w.angular, hidden);
    for (int64_t r = 0; r < count; r++) {
      const int64_t p = first + r, kind = s.kinds[p] * width;
      const T* const receiver = scalars_ + s.receivers[p] * 2 * width;
      const T* const sender = scalars_ + s.senders[p] * 2 * width + width;
      by_vectors<T>(width, [&](int64_t c, int n) {
        const Vec<T> sum = load_lanes(hidden + r * width + c, n) + load_lanes(receiver + c, n) +
                           load_lanes(sender + c, n) + load_lanes(w.bias + kind + c, n) +
                           load_lanes(other + r * width + c, n) * load_lanes(w.gain + kind + c, n);
        store_lanes<T>(hidden + r * width + c, sum, n);
      });
    }
    silu_in_place(hidden, count * width);
  }

  void block(int64_t r, T size, T* out) const {
    constexpr int W = Simd<T>::W, kSums = 3 + 3 + 9 + kTensorParts, kRoom = (kSums + W - 1) / W * W;
    const T *const from = coefficients + r * columns_, *const to = u + 3 * r;
    const T *const left = from + 2, *const right = left + 4 * k, *const tensors = right + 4 * k;
    const T *const products = tensors + 2 * k, *const rows = basis + r * 12 * k;
    const T *const receiver_parts = end_of(r, false), *const sender_parts = end_of(r, true);
    Vec<T> sums[kRoom] = {};  // before, after, products, tensors
    by_vectors<T>(4 * k, [&](int64_t c, int n) {
      const Vec<T> l = load_lanes(left + c, n), h = load_lanes(right + c, n);
      for (int a = 0; a < 3; a++) {
        const Vec<T> b = load_lanes(rows + a * 4 * k + c, n);
        sums[a] += l * b;
        sums[3 + a] += h * b;
      }
    });
    by_vectors<T>(k, [&](int64_t c, int n) {
      const Vec<T> q = load_lanes(products + c, n);
      Vec<T> sender[3];
      for (int b = 0; b < 3; b++) sender[b] = load_lanes(sender_parts + b * k + c, n);
      for (int a = 0; a < 3; a++) {
        const Vec<T> receiver = q * load_lanes(receiver_parts + a * k + c, n);
        for (int b = 0; b < 3; b++) sums[6 + 3 * a + b] += receiver * sender[b];
      }
      const Vec<T> mine = load_lanes(tensors + c, n), theirs = load_lanes(tensors + k + c, n);
      for (int m = 0; m < kTensorParts; m++)
        sums[15 + m] += mine * load_lanes(receiver_parts + (3 + m) * k + c, n) +
                        theirs * load_lanes(sender_parts + (3 + m) * k + c, n);
    });
    T total[kRoom];
    for (int at = 0; at < kRoom; at += W) store(total + at, lane_sums<T>(sums + at));
    for (int a = 0; a < 3; a++)
      for (int b = 0; b < 3; b++) {
        T sum = (total[a] + from[1] * to[a]) * to[b] + to[a] * total[3 + b] + total[6 + 3 * a + b];
        for (int m = 0; m < kTensorParts; m++) sum += w.tensor[(a * 3 + b) * kTensorParts + m] * total[15 + m];
        out[3 * a + b] = size * (a == b ? sum + from[0] : sum);
      }
  }

  // Arms of the pairs that are near: their rows are gathered first.
  void reach(T* arms) {
    int64_t near[kPairsAtOnce], number = 0;
    for (int64_t r = 0; r < count; r++)
      if (s.place[first + r] >= 0) near[number++] = r;
    if (!number) return;
    for (int64_t q = 0; q < number; q++)
      std::copy_n(hidden + near[q] * s.width, s.width, other + q * s.width);
    product(number, s.width, s.width, other, w.arm_hidden, second);
    silu_in_place(second, number * s.width);
    product(number, s.width, beside_, second, w.arm_out, beside);
    for (int64_t q = 0; q < number; q++)
      for (int a = 0; a < 3; a++) {
        const T* const from = basis + (near[q] * 3 + a) * 4 * k;
        T* const to = scaled + (q * 3 + a) * 4 * k;
        for (int64_t c = 0; c < 4 * k; c++) to[c] = from[c] * beside[q * beside_ + c];
      }
    product(3 * number, 4 * k, s.coordinates, scaled, w.arm_mix, mixed);
    for (int64_t q = 0; q < number; q++) {
      const int64_t r = near[q];
      const T size = std::sqrt(prior[r]) * envelope(2 * distance[r] / T(s.cutoff));
      const T* const along = beside + q * beside_ + 4 * k;
      for (int a = 0; a < 3; a++) {
        T* const to = arms + (s.place[first + r] * 3 + a) * s.coordinates;
        const T* const from = mixed + (q * 3 + a) * s.coordinates;
        for (int64_t c = 0; c < s.coordinates; c++) to[c] = size * (from[c] + u[3 * r + a] * along[c]);
      }
    }
  }
};

template <class T>
int hessian_pairs(const MlipPairShape* s, const T* scalars, const T* geometry, const T* vectors, const T* radial,
                  const T* gain, const T* bias, const T* angular, const T* pair_hidden, const T* pair_out,
                  const T* arm_hidden, const T* arm_out, const T* arm_mix, const T* tensor, T* blocks, T* weight,
                  T* arms) {
  const PairWeights<T> weights{radial,   gain,       bias,    angular, pair_hidden,
                               pair_out, arm_hidden, arm_out, arm_mix, tensor};
  parallel_nodes(s->pairs, s->threads, [&](int64_t, int64_t first, int64_t last) {
    PairTile<T> tile(*s, scalars, geometry, vectors, weights);
    for (int64_t p = first; p < last; p += kPairsAtOnce)
      tile.compute(p, std::min(p + kPairsAtOnce, last), blocks, weight, arms);
  });
  return 0;
}

}  // namespace MLIP_ISA
}  // namespace mlip
