// Small matrix products kept in registers. Libraries for large ones pack their operands first, which for the
// few rows of a molecule takes as long as the product.
#pragma once
#include <type_traits>

#include "linear.h"
#include "parallel.h"
#include "simd.h"

namespace mlip {
namespace MLIP_ISA {

// A tile is so many rows by so many vectors; its sums fill the registers, and no more.
#if defined(__AVX512F__)
constexpr int kTileRows = 6, kTileVectors = 4;
#else
constexpr int kTileRows = 6, kTileVectors = 1;
#endif

// out(i)[0, width) = sum_p factor(i, p) * row(p)[0, width) for i < ROWS; the last vector may be a part. Of the
// first `safe` rows whole vectors may be read, since more rows follow.
template <class T, int ROWS, int VECTORS, class Factor, class Row, class Out>
inline void tile(int64_t terms, int64_t safe, int width, Factor&& factor, Row&& row, Out&& out) {
  using V = Vec<T>;
  constexpr int W = Simd<T>::W;
  const int rest = width - (VECTORS - 1) * W;
  V sum[ROWS][VECTORS] = {};
  const auto add = [&](int64_t p, const V* b) {
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) {
      const T a = factor(i, p);
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++) sum[i][v] += a * b[v];
    }
  };
  for (int64_t p = 0; p < safe; p++) {
    V b[VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) b[v] = load(row(p) + v * W);
    add(p, b);
  }
  for (int64_t p = safe; p < terms; p++) {
    V b[VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v + 1 < VECTORS; v++) b[v] = load(row(p) + v * W);
    b[VECTORS - 1] = load_part(row(p) + (VECTORS - 1) * W, rest);
    add(p, b);
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; i++) {
    T* to = out(i);
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) {
      if (v + 1 < VECTORS || rest == W)
        store(to + v * W, sum[i][v]);
      else
        store_part(to + v * W, sum[i][v], rest);
    }
  }
}

// Calls body(integral_constant<N>) for the N in 1..MOST that `n` is.
template <int MOST, class F>
inline void with_constant(int n, F&& body) {
  if constexpr (MOST > 1) {
    if (n < MOST) return with_constant<MOST - 1>(n, body);
  }
  body(std::integral_constant<int, MOST>{});
}

// All columns of up to kTileRows rows; the rows that are added up lie one after the other.
template <class T, class Factor, class Row, class Out>
inline void tiles(int rows, int64_t terms, int64_t columns, Factor&& factor, Row&& row, Out&& out) {
  constexpr int W = Simd<T>::W;
  for (int64_t first = 0; first < columns; first += kTileVectors * W) {
    const int width = int(std::min<int64_t>(columns - first, kTileVectors * W));
    const int64_t beyond = first + (width + W - 1) / W * W - columns;  // what whole vectors read too much
    const int64_t safe = std::max<int64_t>(0, terms - std::max<int64_t>(0, (beyond + columns - 1) / columns));
    const auto from = [&](int64_t p) { return row(p) + first; };
    const auto to = [&](int i) { return out(i) + first; };
    with_constant<kTileVectors>((width + W - 1) / W, [&](auto vectors) {
      with_constant<kTileRows>(
          rows, [&](auto count) { tile<T, count(), vectors()>(terms, safe, width, factor, from, to); });
    });
  }
}

// out[rows, columns] = x[rows, terms] matrix[terms, columns], all dense.
template <class T>
inline void product(int64_t rows, int64_t terms, int64_t columns, const T* x, const T* matrix, T* out) {
  for (int64_t r = 0; r < rows; r += kTileRows)
    tiles<T>(
        int(std::min<int64_t>(kTileRows, rows - r)), terms, columns,
        [&](int i, int64_t p) { return x[(r + i) * terms + p]; }, [&](int64_t p) { return matrix + p * columns; },
        [&](int i) { return out + (r + i) * columns; });
}

// Row (n, m) of degree l is row first + n * harmonics + m of all.
template <class T>
int linear(const MlipLinearShape* s, const T* x, const T* weight, T* out) {
  const int64_t in = s->channels_in, to = s->channels_out, harmonics = s->degrees * s->degrees;
  parallel_nodes(s->nodes, s->threads, [&](int64_t, int64_t first, int64_t last) {
    for (int64_t l = 0; l < s->degrees; l++) {
      const T* matrix = weight + l * in * to;
      const int64_t size = 2 * l + 1, rows = (last - first) * size;
      for (int64_t r = 0; r < rows; r += kTileRows) {
        const int count = int(std::min<int64_t>(kTileRows, rows - r));
        int64_t place[kTileRows];
        for (int i = 0; i < count; i++) place[i] = (first + (r + i) / size) * harmonics + l * l + (r + i) % size;
        tiles<T>(
            count, in, to, [&](int i, int64_t p) { return x[place[i] * in + p]; },
            [&](int64_t p) { return matrix + p * to; }, [&](int i) { return out + place[i] * to; });
      }
    }
  });
  return 0;
}

template <class T>
int project(const MlipProjectShape* s, const T* x, const T* matrix, T* out) {
  const int64_t in = s->components_in, to = s->components_out, channels = s->channels;
  parallel_nodes(s->nodes, s->threads, [&](int64_t, int64_t first, int64_t last) {
    for (int64_t n = first; n < last; n++) {
      const T* const node = x + n * in * channels;
      for (int64_t q = 0; q < to; q += kTileRows) {
        const T* const rows = matrix + q * in;
        T* const target = out + (n * to + q) * channels;
        tiles<T>(
            int(std::min<int64_t>(kTileRows, to - q)), in, channels,
            [&](int i, int64_t p) { return rows[i * in + p]; }, [&](int64_t p) { return node + p * channels; },
            [&](int i) { return target + i * channels; });
      }
    }
  });
  return 0;
}

}  // namespace MLIP_ISA
}  // namespace mlip
