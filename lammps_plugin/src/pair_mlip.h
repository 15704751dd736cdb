// SPDX-License-Identifier: GPL-2.0-only
// `pair_style mlip`. Derived from the class Pair of LAMMPS (https://www.lammps.org), which is distributed under the
// GNU General Public License, version 2; see COPYING.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "exchange.h"
#include "model.h"
#include "pair.h"

namespace LAMMPS_NS {

class PairMLIP : public Pair {
 public:
  explicit PairMLIP(class LAMMPS *);
  ~PairMLIP() override;

  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  void init_list(int, class NeighList *) override;
  double init_one(int, int) override;
  void compute(int, int) override;
  double memory_usage() override;

  int pack_forward_comm(int, int *, double *, int, int *) override;
  void unpack_forward_comm(int, int, double *) override;
  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;

 private:
  void allocate();
  void fail_together(const std::string &problem);

  bool lists_changed();
  void number_atoms();
  void collect_edges();
  void apply(const mlip::Result &);
  void tally_virial(size_t edge, int i, int j);

  std::unique_ptr<mlip::Model> model;
  mlip::Exchange exchange;
  int most_threads = 1;  // so that the processes of this node do not fight for its cores

  // Atoms of the model, numbered: mine in the order of the neighbour list, then copies of others' atoms.
  bool stale = true;
  bigint seen_builds = -1, seen_step = -1;
  std::vector<int> node_of_atom;              // -1: not of the model
  std::vector<mlip::Exchange::Owner> owner;   // of each atom, ghosts included
  std::vector<int64_t> number_of_type;

  mlip::Graph graph;
  mlip::Result result;
  std::vector<int> sending_atom;  // of each edge, ghosts included
  std::string problem;            // of this step, on this process

  // Passing things between ghosts and owners
  enum class Message { OWNERS, FORCES, VIRIALS } message = Message::OWNERS;
  std::vector<double> ghost_forces, ghost_virials;  // with newton off

  double times[4] = {0, 0, 0, 0};  // s so far: in all, model, exchanges, kernels; `compute pair` shows them
};

}  // namespace LAMMPS_NS
