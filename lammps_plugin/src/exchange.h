// SPDX-License-Identifier: GPL-2.0-only
// The halo among MPI processes: each asks the owners of its copies directly, in one message each.
#pragma once
#include <mpi.h>

#include <vector>

#include "halo.h"

namespace mlip {

class Exchange : public Halo {
 public:
  // Where the owner of a copy keeps it.
  struct Owner {
    int rank, row;
  };

  explicit Exchange(MPI_Comm world);

  // Collective. `copies` are grouped by rank, ascending, none of this rank.
  void plan(const std::vector<Owner> &copies);

  void spread(const void *owned, void *copies, size_t row_bytes) override;
  void collect(const float *copies, float *owned, size_t width) override;
  void collect(const double *copies, double *owned, size_t width) override;

  double seconds = 0;  // spent here so far

 private:
  struct Peer {
    int rank;
    size_t first, count;  // rows
  };

  template <class T>
  void collect_rows(const T *copies, T *owned, size_t width);
  void pass(const char *out, const std::vector<Peer> &to, char *in, const std::vector<Peer> &from, size_t row_bytes);
  static std::vector<Peer> peers(const std::vector<int> &counts);

  MPI_Comm world;
  int processes;
  std::vector<Peer> owners, askers;  // of my copies; those who hold copies of mine
  std::vector<int> asked;            // rows that the askers want, asker by asker
  std::vector<char> buffer;
  std::vector<MPI_Request> requests;
};

}  // namespace mlip
