// SPDX-License-Identifier: GPL-2.0-only
// A package written by `mlip export --format lammps`, loaded and evaluated. Knows nothing of LAMMPS.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "halo.h"

namespace mlip {

// Edges of the owned atoms; edge e goes from atom senders[e] to atom receivers[e], which is owned.
struct Graph {
  int64_t owned = 0, total = 0;
  std::vector<int64_t> numbers;             // atomic number of every atom, copies last
  std::vector<int64_t> senders, receivers;  // sorted by receiver
  std::vector<double> vectors;              // position of the sender less that of the receiver, Å
};

struct Result {
  std::vector<double> energies;   // of each owned atom, eV
  std::vector<double> gradient;   // of the total energy by each edge vector, eV/Å
  double kernel_seconds = 0;      // spent in compiled kernels
};

class Model {
 public:
  // Throws std::runtime_error with a sentence that a user understands.
  explicit Model(const std::string &path);
  ~Model();

  double cutoff() const;                       // Å
  const std::vector<std::string> &symbols() const;  // of the species that the model knows
  int64_t atomic_number(const std::string &symbol) const;  // 0 where the model does not know it

  void evaluate(const Graph &graph, Halo &halo, int threads, Result &result) const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> self;
};

}  // namespace mlip
