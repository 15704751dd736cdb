// Work partition: rows of a graph cut into chunks of about equal edge counts.
// The cut depends on the graph alone, never on the number of threads, so sums are
// added in one order and results are the same bit for bit on any machine with one build.
#pragma once
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "message.h"

namespace mlip {
namespace MLIP_ISA {

struct Rows {
  std::vector<int64_t> start;  // [nodes + 1]
  std::vector<int64_t> order;  // [edges]; empty where edges are already in order
  int64_t chunks = 1;
};

constexpr int64_t kChunk = 48;  // edges of a chunk

inline int64_t chunk_count(int64_t edges, int64_t size) { return std::clamp<int64_t>(edges / size, 1, 64); }

inline Rows receiver_rows(const MlipMessageShape& s, int64_t chunk) {
  Rows r;
  r.start.assign(s.receivers_n + 1, 0);
  for (int64_t e = 0; e < s.edges; e++) r.start[s.receivers[e] + 1]++;
  for (int64_t n = 0; n < s.receivers_n; n++) r.start[n + 1] += r.start[n];
  r.chunks = chunk_count(s.edges, chunk);
  return r;
}

inline Rows sender_rows(const MlipMessageShape& s, int64_t chunk) {
  Rows r;
  r.start.assign(s.senders_n + 1, 0);
  r.order.resize(s.edges);
  for (int64_t e = 0; e < s.edges; e++) r.start[s.senders[e] + 1]++;
  for (int64_t n = 0; n < s.senders_n; n++) r.start[n + 1] += r.start[n];
  std::vector<int64_t> at(r.start.begin(), r.start.end() - 1);
  for (int64_t e = 0; e < s.edges; e++) r.order[at[s.senders[e]]++] = e;
  r.chunks = chunk_count(s.edges, chunk);
  return r;
}

// body(chunk, first node, last node) over chunks holding about the same number of edges.
template <class F>
void parallel_chunks(const Rows& rows, int64_t nodes, int64_t threads, F&& body) {
  const int64_t edges = rows.start[nodes], chunks = rows.chunks;
  std::vector<int64_t> cut(chunks + 1, nodes);
  cut[0] = 0;
  for (int64_t i = 1; i < chunks; i++)
    cut[i] = std::lower_bound(rows.start.begin(), rows.start.end() - 1, edges * i / chunks) - rows.start.begin();
  const int limit = threads > 0 ? int(threads) : omp_get_max_threads();
  const int used = int(std::min<int64_t>(limit, chunks));
#pragma omp parallel for schedule(dynamic, 1) num_threads(used) if (used > 1)
  for (int64_t i = 0; i < chunks; i++) body(i, cut[i], cut[i + 1]);
}

inline int64_t node_chunks(int64_t nodes) { return std::clamp<int64_t>(nodes / 6, 1, 32); }

// body(chunk, first node, last node) over chunks of about the same number of nodes.
template <class F>
void parallel_nodes(int64_t nodes, int64_t threads, F&& body) {
  const int64_t chunks = node_chunks(nodes);
  const int limit = threads > 0 ? int(threads) : omp_get_max_threads();
  const int used = int(std::min<int64_t>(limit, chunks));
#pragma omp parallel for schedule(dynamic, 1) num_threads(used) if (used > 1)
  for (int64_t i = 0; i < chunks; i++) body(i, nodes * i / chunks, nodes * (i + 1) / chunks);
}

template <class V>
class AlignedBuffer {
 public:
  explicit AlignedBuffer(size_t n) : size_(n), data_(static_cast<V*>(std::aligned_alloc(64, n * sizeof(V)))) {}
  ~AlignedBuffer() { std::free(data_); }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  V& operator[](size_t i) { return data_[i]; }
  V* data() { return data_; }
  void clear() { std::fill(data_, data_ + size_, V{}); }

 private:
  size_t size_;
  V* data_;
};

// Room for numbers that are all written before they are read; null where there are none. It stays with the
// calling thread, since fresh pages cost more than what is done with them: one at a time.
template <class T>
class Scratch {
 public:
  explicit Scratch(size_t n) {
    static thread_local std::vector<T> kept;
    if (kept.size() < n) kept.resize(n);
    data_ = n ? kept.data() : nullptr;
  }
  T* data() const { return data_; }

 private:
  T* data_;
};

// One private sum per chunk, added in chunk order.
template <class T>
class Partials {
 public:
  Partials(int64_t size, int64_t chunks) : size_(size), chunks_(size ? chunks : 0), data_(size_ * chunks_, T(0)) {}
  T* at(int64_t chunk) { return size_ ? data_.data() + chunk * size_ : nullptr; }
  void sum_into(T* out, int64_t threads) const {
    const int limit = threads > 0 ? int(threads) : omp_get_max_threads();
#pragma omp parallel for num_threads(limit) if (chunks_ > 1)
    for (int64_t i = 0; i < size_; i++) {
      T sum = 0;
      for (int64_t j = 0; j < chunks_; j++) sum += data_[j * size_ + i];
      out[i] = sum;
    }
  }

 private:
  int64_t size_, chunks_;
  std::vector<T> data_;
};

}  // namespace MLIP_ISA
}  // namespace mlip
