// A structure at a time, whose matrix stays in the cache.
#pragma once
#include <cmath>

#include "hessian_matrix.h"
#include "linear_impl.h"
#include "parallel.h"

namespace mlip {
namespace MLIP_ISA {

template <class T>
class StructureMatrix {
 public:
  StructureMatrix(const MlipMatrixShape& shape, int64_t structure, const T* blocks, const T* weight, const T* arms,
                  const T* metric, T* out)
      : s(shape),
        first_atom(s.atoms[structure]),
        n(s.atoms[structure + 1] - first_atom),
        first_pair(s.pairs[structure]),
        pairs(s.pairs[structure + 1] - first_pair),
        first_near(s.nears[structure]),
        nears(s.nears[structure + 1] - first_near),
        blocks_(blocks),
        weight_(weight),
        arms_(arms),
        metric_(metric),
        h(out) {}

  void compute() {
    std::fill(h, h + 9 * n * n, T(0));
    if (pairs) {
      const std::vector<double> potential = balance();
      for (int64_t p = 0; p < pairs; p++) add_block(p, potential);
    }
    add_products();
    for (int64_t r = 0; r < 3 * n; r++)
      for (int64_t c = 0; c < r; c++) {
        const T mean = T(0.5) * (h[r * 3 * n + c] + h[c * 3 * n + r]);
        h[r * 3 * n + c] = h[c * 3 * n + r] = mean;
      }
  }

 private:
  const MlipMatrixShape& s;
  const int64_t first_atom, n, first_pair, pairs, first_near, nears;
  const T *blocks_, *weight_, *arms_, *metric_;
  T* const h;

  int64_t receiver(int64_t p) const { return s.receivers[first_pair + p] - first_atom; }
  int64_t sender(int64_t p) const { return s.senders[first_pair + p] - first_atom; }

  // Potential of every atom, three components, in which currents carry the axial vectors of the blocks away.
  std::vector<double> balance() const {
    std::vector<double> laplacian(n * n, 0.0), excess(3 * n, 0.0);
    for (int64_t p = 0; p < pairs; p++) {
      const int64_t i = receiver(p), j = sender(p);
      const T* const b = blocks_ + 9 * (first_pair + p);
      const double axial[3] = {0.5 * (double(b[7]) - b[5]), 0.5 * (double(b[2]) - b[6]), 0.5 * (double(b[3]) - b[1])};
      for (int a = 0; a < 3; a++) excess[3 * i + a] += axial[a], excess[3 * j + a] -= axial[a];
      const double w = weight_[first_pair + p];
      laplacian[i * n + j] -= w;
      laplacian[j * n + i] -= w;
    }
    double largest = 1.0;
    for (int64_t i = 0; i < n; i++) {
      double degree = 0;
      for (int64_t j = 0; j < n; j++) degree -= laplacian[i * n + j];
      laplacian[i * n + i] += degree;  // an atom's own images carry nothing
      largest = std::max(largest, degree);
    }
    std::vector<double> factor = laplacian;
    for (int64_t i = 0; i < n; i++) factor[i * n + i] += s.tiny * largest;
    cholesky(factor);
    std::vector<double> potential = excess;
    solve(factor, potential);
    // What the small number has left undone.
    std::vector<double> rest = excess;
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < n; j++)
        for (int a = 0; a < 3; a++) rest[3 * i + a] -= laplacian[i * n + j] * potential[3 * j + a];
    solve(factor, rest);
    for (int64_t i = 0; i < 3 * n; i++) potential[i] += rest[i];
    return potential;
  }

  // The lower triangle L of A = L L^T, in the place of A.
  void cholesky(std::vector<double>& a) const {
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j <= i; j++) {
        double sum = a[i * n + j];
        for (int64_t k = 0; k < j; k++) sum -= a[i * n + k] * a[j * n + k];
        a[i * n + j] = i == j ? std::sqrt(sum) : sum / a[j * n + j];
      }
  }

  void solve(const std::vector<double>& lower, std::vector<double>& x) const {
    for (int a = 0; a < 3; a++) {
      for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < i; k++) x[3 * i + a] -= lower[i * n + k] * x[3 * k + a];
        x[3 * i + a] /= lower[i * n + i];
      }
      for (int64_t i = n; i-- > 0;) {
        for (int64_t k = i + 1; k < n; k++) x[3 * i + a] -= lower[k * n + i] * x[3 * k + a];
        x[3 * i + a] /= lower[i * n + i];
      }
    }
  }

  void add_block(int64_t p, const std::vector<double>& potential) {
    const int64_t i = receiver(p), j = sender(p);
    const T* const b = blocks_ + 9 * (first_pair + p);
    double c[3];
    for (int a = 0; a < 3; a++) c[a] = weight_[first_pair + p] * (potential[3 * i + a] - potential[3 * j + a]);
    const T block[3][3] = {{b[0], T(b[1] + c[2]), T(b[2] - c[1])},
                           {T(b[3] - c[2]), b[4], T(b[5] + c[0])},
                           {T(b[6] + c[1]), T(b[7] - c[0]), b[8]}};
    for (int a = 0; a < 3; a++)
      for (int d = 0; d < 3; d++) {
        const T own = T(0.5) * (block[a][d] + block[d][a]);
        at(i, a, j, d) -= block[a][d];
        at(j, a, i, d) -= block[d][a];
        at(i, a, i, d) += own;
        at(j, a, j, d) += own;
      }
  }

  T& at(int64_t i, int a, int64_t j, int d) { return h[(3 * i + a) * 3 * n + 3 * j + d]; }

  // Products of the internal coordinates of each atom, whose own arm is minus the sum of the others.
  void add_products() {
    for (int64_t begin = 0; begin < nears;) {
      const int64_t centre = receiver(s.near[first_near + begin] - first_pair);
      int64_t end = begin;
      while (end < nears && receiver(s.near[first_near + end] - first_pair) == centre) end++;
      add_product(centre, begin, end);
      begin = end;
    }
  }

  void add_product(int64_t centre, int64_t begin, int64_t end) {
    const int64_t columns = s.coordinates, members = end - begin + 1, rows = 3 * members;
    Scratch<T> room(size_t(rows) * (3 * columns + rows));
    T *const own = room.data(), *const turned = own + rows * columns, *const scaled = turned + rows * columns;
    T* const products = scaled + rows * columns;
    const T* const others = arms_ + (first_near + begin) * 3 * columns;
    std::fill(own, own + 3 * columns, T(0));
    for (int64_t q = 0; q < (members - 1) * 3 * columns; q++) {
      own[3 * columns + q] = others[q];
      own[q % (3 * columns)] -= others[q];
    }
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < columns; c++) turned[c * rows + r] = own[r * columns + c];
    product(rows, columns, columns, own, metric_ + (first_atom + centre) * columns * columns, scaled);
    product(rows, columns, rows, scaled, turned, products);
    std::vector<int64_t> place(members, centre);
    for (int64_t m = 1; m < members; m++) place[m] = sender(s.near[first_near + begin + m - 1] - first_pair);
    for (int64_t r = 0; r < rows; r++) {
      const T* const from = products + r * rows;
      T* const to = h + (3 * place[r / 3] + r % 3) * 3 * n;
      for (int64_t m = 0; m < members; m++)
        for (int d = 0; d < 3; d++) to[3 * place[m] + d] += from[3 * m + d];
    }
  }
};

template <class T>
int hessian_matrix(const MlipMatrixShape* s, const T* blocks, const T* weight, const T* arms, const T* metric,
                   T* out) {
  std::vector<int64_t> start(s->structures + 1, 0);
  for (int64_t k = 0; k < s->structures; k++) {
    const int64_t size = 3 * (s->atoms[k + 1] - s->atoms[k]);
    start[k + 1] = start[k] + size * size;
  }
  const int limit = s->threads > 0 ? int(s->threads) : omp_get_max_threads();
  const int used = int(std::clamp<int64_t>(s->structures, 1, limit));
#pragma omp parallel for schedule(dynamic, 1) num_threads(used) if (used > 1)
  for (int64_t k = 0; k < s->structures; k++)
    StructureMatrix<T>(*s, k, blocks, weight, arms, metric, out + start[k]).compute();
  return 0;
}

}  // namespace MLIP_ISA
}  // namespace mlip
