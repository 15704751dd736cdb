// SPDX-License-Identifier: GPL-2.0-only
#include "exchange.h"

#include <cstring>

namespace mlip {
namespace {

constexpr int kTag = 7313;

struct Row {  // one row as an MPI type, so that counts of rows, not of bytes, must fit an int
  MPI_Datatype type;
  explicit Row(size_t bytes) {
    MPI_Type_contiguous(int(bytes), MPI_BYTE, &type);
    MPI_Type_commit(&type);
  }
  ~Row() { MPI_Type_free(&type); }
};

struct Stopwatch {
  double &total;
  double start = MPI_Wtime();
  explicit Stopwatch(double &seconds) : total(seconds) {}
  ~Stopwatch() { total += MPI_Wtime() - start; }
};

}  // namespace

Exchange::Exchange(MPI_Comm comm) : world(comm) { MPI_Comm_size(world, &processes); }

std::vector<Exchange::Peer> Exchange::peers(const std::vector<int> &counts) {
  std::vector<Peer> result;
  size_t first = 0;
  for (size_t rank = 0; rank < counts.size(); rank++) {
    if (counts[rank] > 0) result.push_back({int(rank), first, size_t(counts[rank])});
    first += counts[rank];
  }
  return result;
}

void Exchange::plan(const std::vector<Owner> &copies) {
  if (processes == 1) return;
  std::vector<int> wanted(processes, 0), given(processes, 0), rows;
  rows.reserve(copies.size());
  for (const Owner &owner : copies) {
    wanted[owner.rank]++;
    rows.push_back(owner.row);
  }
  MPI_Alltoall(wanted.data(), 1, MPI_INT, given.data(), 1, MPI_INT, world);
  owners = peers(wanted);
  askers = peers(given);
  asked.resize(askers.empty() ? 0 : askers.back().first + askers.back().count);
  pass(reinterpret_cast<const char *>(rows.data()), owners, reinterpret_cast<char *>(asked.data()), askers, sizeof(int));
}

void Exchange::pass(const char *out, const std::vector<Peer> &to, char *in, const std::vector<Peer> &from,
                    size_t row_bytes) {
  const Row row(row_bytes);
  requests.resize(to.size() + from.size());
  MPI_Request *request = requests.data();
  for (const Peer &peer : from)
    MPI_Irecv(in + peer.first * row_bytes, int(peer.count), row.type, peer.rank, kTag, world, request++);
  for (const Peer &peer : to)
    MPI_Isend(out + peer.first * row_bytes, int(peer.count), row.type, peer.rank, kTag, world, request++);
  MPI_Waitall(int(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
}

void Exchange::spread(const void *owned, void *copies, size_t row_bytes) {
  if (processes == 1) return;
  const Stopwatch watch(seconds);
  buffer.resize(asked.size() * row_bytes);
  const char *rows = static_cast<const char *>(owned);
  for (size_t k = 0; k < asked.size(); k++)
    std::memcpy(buffer.data() + k * row_bytes, rows + asked[k] * row_bytes, row_bytes);
  pass(buffer.data(), askers, static_cast<char *>(copies), owners, row_bytes);
}

template <class T>
void Exchange::collect_rows(const T *copies, T *owned, size_t width) {
  if (processes == 1) return;
  const Stopwatch watch(seconds);
  const size_t row_bytes = width * sizeof(T);
  buffer.resize(asked.size() * row_bytes);
  pass(reinterpret_cast<const char *>(copies), owners, buffer.data(), askers, row_bytes);
  // In the order of the ranks, so that sums come out the same in every run.
  const T *row = reinterpret_cast<const T *>(buffer.data());
  for (size_t k = 0; k < asked.size(); k++, row += width) {
    T *target = owned + asked[k] * width;
    for (size_t i = 0; i < width; i++) target[i] += row[i];
  }
}

void Exchange::collect(const float *copies, float *owned, size_t width) { collect_rows(copies, owned, width); }
void Exchange::collect(const double *copies, double *owned, size_t width) { collect_rows(copies, owned, width); }

}  // namespace mlip
