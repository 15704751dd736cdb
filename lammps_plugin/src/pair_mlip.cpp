// SPDX-License-Identifier: GPL-2.0-only
// `pair_style mlip`. Derived from the class Pair of LAMMPS (https://www.lammps.org), which is distributed under the
// GNU General Public License, version 2; see COPYING.
#include "pair_mlip.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"
#include "utils.h"

using namespace LAMMPS_NS;

namespace {
constexpr double kTooClose = 0.05;  // Å, as in mlip.neighbors
}

PairMLIP::PairMLIP(LAMMPS *lmp) : Pair(lmp), exchange(world) {
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;
  centroidstressflag = CENTROID_NOTAVAIL;
  // Here and not in init_style: pair hybrid reads them when the style is made.
  comm_forward = 2;
  comm_reverse = comm_reverse_off = 6;
  nextra = 4;
  pvector = times;
  MPI_Comm node;
  int processes = 1;
  MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_size(node, &processes);
  MPI_Comm_free(&node);
  most_threads = std::max(1, int(std::thread::hardware_concurrency()) / processes);
}

PairMLIP::~PairMLIP() {
  pvector = nullptr;
  if (copymode || !allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
}

void PairMLIP::allocate() {
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) setflag[i][j] = 0;
  map = new int[n];
  allocated = 1;
}

// Collective. Ends the run on every process if one of them has a problem, with the first one's words.
void PairMLIP::fail_together(const std::string &mine) {
  int first = mine.empty() ? comm->nprocs : comm->me;
  if (comm->nprocs > 1) MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, world);
  if (first == comm->nprocs) return;
  int length = int(mine.size());
  MPI_Bcast(&length, 1, MPI_INT, first, world);
  std::string text(mine);
  text.resize(length);
  MPI_Bcast(&text[0], length, MPI_CHAR, first, world);
  error->all(FLERR, "pair_style mlip: " + text);
}

void PairMLIP::settings(int narg, char **arg) {
  if (narg > 0)
    error->all(FLERR, std::string("pair_style mlip takes no arguments, but got ") + arg[0] +
                          "; the model file belongs to pair_coeff");
}

void PairMLIP::coeff(int narg, char **arg) {
  if (narg < 3)
    error->all(FLERR, "write: pair_coeff * * FILE.pt2 followed by one element, or NULL, for each atom type");
  if (!allocated) allocate();
  if (narg - 3 != atom->ntypes)
    error->all(FLERR, "pair_coeff of pair_style mlip names " + std::to_string(narg - 3) + " element(s) but there are " +
                          std::to_string(atom->ntypes) + " atom types; give one element, or NULL, for each type");
  map_element2type(narg - 3, arg + 3);

  std::string trouble;
  try {
    const std::string found = utils::get_potential_file_path(arg[2]);
    model = std::make_unique<mlip::Model>(found.empty() ? arg[2] : found);
    std::string known;
    for (const std::string &symbol : model->symbols()) known += " " + symbol;
    number_of_type.assign(atom->ntypes + 1, 0);
    for (int type = 1; type <= atom->ntypes; type++) {
      if (map[type] < 0) continue;
      number_of_type[type] = model->atomic_number(elements[map[type]]);
      if (number_of_type[type] == 0)
        throw std::runtime_error(std::string("element ") + elements[map[type]] + " of pair_coeff is unknown to " +
                                 arg[2] + ", which knows" + known);
    }
  } catch (const std::exception &problem) {
    trouble = problem.what();
  }
  fail_together(trouble);
}

void PairMLIP::init_style() {
  if (std::strcmp(update->unit_style, "metal") != 0)
    error->all(FLERR, std::string("pair_style mlip works in eV and Å: it needs `units metal`, not `units ") +
                          update->unit_style + "`");
  for (int k = 1; k <= 3 && atom->molecular != Atom::ATOMIC; k++)
    if (force->special_lj[k] == 0.0 && force->special_coul[k] == 0.0)
      error->all(FLERR,
                 "pair_style mlip needs all neighbours, but special_bonds leaves out bonded ones; add: special_bonds "
                 "lj/coul 1 1 1");
  if (neighbor->exclude && comm->me == 0)
    error->warning(FLERR, "pair_style mlip does not see pairs that neigh_modify excludes; energies will differ");
  neighbor->add_request(this, NeighConst::REQ_FULL);
}

void PairMLIP::init_list(int, NeighList *given) {
  list = given;
  stale = true;
}

double PairMLIP::init_one(int i, int j) {
  if (setflag[i][j] == 0 || !model)
    error->all(FLERR, "pair_style mlip has no pair_coeff for atom types " + std::to_string(i) + " and " +
                          std::to_string(j));
  return model->cutoff();
}

void PairMLIP::compute(int eflag, int vflag) {
  const double start = MPI_Wtime();
  ev_init(eflag, vflag);
  if (lists_changed()) number_atoms();
  collect_edges();
  const double before = MPI_Wtime();
  try {
    model->evaluate(graph, exchange, std::min(comm->nthreads, most_threads), result);
  } catch (const std::exception &trouble) {
    // Others may be waiting for this process inside the model: they cannot be told.
    error->one(FLERR, std::string("pair_style mlip: ") + trouble.what());
  }
  times[1] += MPI_Wtime() - before;
  apply(result);
  fail_together(problem);
  times[2] = exchange.seconds;
  times[3] += result.kernel_seconds;
  times[0] += MPI_Wtime() - start;
}

// Whether atoms were exchanged or renumbered since the last call; the same on every process.
bool PairMLIP::lists_changed() {
  const bool changed =
      stale || neighbor->ago == 0 || neighbor->ncalls != seen_builds || neighbor->lastcall != seen_step;
  stale = false;
  seen_builds = neighbor->ncalls;
  seen_step = neighbor->lastcall;
  return changed;
}

// Numbers the atoms of the model and settles from whom the features of copies come. All images of an atom are one.
void PairMLIP::number_atoms() {
  const int all = atom->nlocal + atom->nghost;
  node_of_atom.assign(all, -1);
  owner.assign(all, {comm->me, -1});
  graph.numbers.clear();
  for (int ii = 0; ii < list->inum; ii++) {
    const int i = list->ilist[ii];
    if (number_of_type[atom->type[i]] == 0) continue;
    node_of_atom[i] = owner[i].row = int(graph.numbers.size());
    graph.numbers.push_back(number_of_type[atom->type[i]]);
  }
  graph.owned = int64_t(graph.numbers.size());
  message = Message::OWNERS;
  comm->forward_comm(this, 2);

  std::vector<int> ghosts;
  for (int ii = 0; ii < list->inum; ii++) {
    const int i = list->ilist[ii];
    if (node_of_atom[i] < 0) continue;
    for (int jj = 0; jj < list->numneigh[i]; jj++) {
      const int j = list->firstneigh[i][jj] & NEIGHMASK;
      if (j < atom->nlocal || node_of_atom[j] != -1 || owner[j].row < 0) continue;
      if (owner[j].rank == comm->me) {
        node_of_atom[j] = owner[j].row;
      } else {
        node_of_atom[j] = -2;
        ghosts.push_back(j);
      }
    }
  }
  std::sort(ghosts.begin(), ghosts.end(), [&](int a, int b) {
    return owner[a].rank != owner[b].rank ? owner[a].rank < owner[b].rank : owner[a].row < owner[b].row;
  });
  std::vector<mlip::Exchange::Owner> copies;
  for (const int j : ghosts) {
    if (copies.empty() || copies.back().rank != owner[j].rank || copies.back().row != owner[j].row) {
      copies.push_back(owner[j]);
      graph.numbers.push_back(number_of_type[atom->type[j]]);
    }
    node_of_atom[j] = int(graph.numbers.size()) - 1;
  }
  graph.total = int64_t(graph.numbers.size());
  exchange.plan(copies);
}

void PairMLIP::collect_edges() {
  double **x = atom->x;
  const double reach = model->cutoff() * model->cutoff();
  graph.senders.clear();
  graph.receivers.clear();
  graph.vectors.clear();
  sending_atom.clear();
  problem.clear();
  for (int ii = 0; ii < list->inum; ii++) {
    const int i = list->ilist[ii], node = node_of_atom[i];
    if (node < 0) continue;
    if (!std::isfinite(x[i][0] + x[i][1] + x[i][2]) && problem.empty())
      problem = "the position of atom " + std::to_string(atom->tag[i]) + " is not finite; was the time step too long?";
    const int *neighbors = list->firstneigh[i];
    for (int jj = 0; jj < list->numneigh[i]; jj++) {
      const int j = neighbors[jj] & NEIGHMASK;
      if (node_of_atom[j] < 0) continue;
      const double d[3] = {x[j][0] - x[i][0], x[j][1] - x[i][1], x[j][2] - x[i][2]};
      const double r2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
      if (!(r2 < reach)) continue;
      if (r2 < kTooClose * kTooClose) {
        if (problem.empty())
          problem = "atoms " + std::to_string(atom->tag[i]) + " and " + std::to_string(atom->tag[j]) + " are " +
                    std::to_string(std::sqrt(r2)) + " Å apart; two atoms must not share a place";
        continue;
      }
      graph.senders.push_back(node_of_atom[j]);
      graph.receivers.push_back(node);
      graph.vectors.insert(graph.vectors.end(), d, d + 3);
      sending_atom.push_back(j);
    }
  }
}

// Energies, forces and virials from what the model returned.
void PairMLIP::apply(const mlip::Result &result) {
  const int nlocal = atom->nlocal;
  const bool newton = force->newton_pair;
  double total = 0.0, **f = atom->f;
  for (int ii = 0; ii < list->inum; ii++) {
    const int i = list->ilist[ii], node = node_of_atom[i];
    if (node < 0) continue;
    total += result.energies[node];
    if (eflag_atom) eatom[i] += result.energies[node];
  }
  if (eflag_global) eng_vdwl += total;
  if (!std::isfinite(total) && problem.empty()) problem = "the energy is not finite; are atoms too close to each other?";
  if (!newton) {
    ghost_forces.assign(3 * size_t(atom->nghost), 0.0);
    if (vflag_atom) ghost_virials.assign(6 * size_t(atom->nghost), 0.0);
  }
  size_t edge = 0;
  for (int ii = 0; ii < list->inum; ii++) {
    const int i = list->ilist[ii], node = node_of_atom[i];
    if (node < 0) continue;
    for (; edge < graph.receivers.size() && graph.receivers[edge] == node; edge++) {
      const int j = sending_atom[edge];
      const double *g = &result.gradient[3 * edge];
      double *target = newton || j < nlocal ? f[j] : &ghost_forces[3 * size_t(j - nlocal)];
      for (int k = 0; k < 3; k++) {
        f[i][k] += g[k];
        target[k] -= g[k];
      }
      if (vflag_either) tally_virial(edge, i, j);
    }
  }
  if (newton) return;
  message = Message::FORCES;
  comm->reverse_comm(this, 3);
  if (!vflag_atom) return;
  message = Message::VIRIALS;
  comm->reverse_comm(this, 6);
}

// The virial of one edge, in all; half of it on each of its atoms.
void PairMLIP::tally_virial(size_t edge, int i, int j) {
  const double *d = &graph.vectors[3 * edge], *g = &result.gradient[3 * edge];
  const double v[6] = {-d[0] * g[0],
                       -d[1] * g[1],
                       -d[2] * g[2],
                       -0.5 * (d[0] * g[1] + d[1] * g[0]),
                       -0.5 * (d[0] * g[2] + d[2] * g[0]),
                       -0.5 * (d[1] * g[2] + d[2] * g[1])};
  if (vflag_global)
    for (int k = 0; k < 6; k++) virial[k] += v[k];
  if (!vflag_atom) return;
  double *other = force->newton_pair || j < atom->nlocal ? vatom[j] : &ghost_virials[6 * size_t(j - atom->nlocal)];
  for (int k = 0; k < 6; k++) {
    vatom[i][k] += 0.5 * v[k];
    other[k] += 0.5 * v[k];
  }
}

int PairMLIP::pack_forward_comm(int n, int *atoms, double *buffer, int, int *) {
  for (int k = 0; k < n; k++) {
    buffer[2 * k] = owner[atoms[k]].rank;
    buffer[2 * k + 1] = owner[atoms[k]].row;
  }
  return 2 * n;
}

void PairMLIP::unpack_forward_comm(int n, int first, double *buffer) {
  for (int k = 0; k < n; k++) owner[first + k] = {int(buffer[2 * k]), int(buffer[2 * k + 1])};
}

int PairMLIP::pack_reverse_comm(int n, int first, double *buffer) {
  const bool forces = message == Message::FORCES;
  const size_t width = forces ? 3 : 6;
  const double *values = forces ? ghost_forces.data() : ghost_virials.data();
  const double *start = values + width * size_t(first - atom->nlocal);
  std::copy(start, start + width * n, buffer);
  return int(width) * n;
}

void PairMLIP::unpack_reverse_comm(int n, int *atoms, double *buffer) {
  const bool forces = message == Message::FORCES;
  const int width = forces ? 3 : 6, nlocal = atom->nlocal;
  double *ghosts = forces ? ghost_forces.data() : ghost_virials.data();
  for (int k = 0; k < n; k++) {
    const int i = atoms[k];
    double *mine = i < nlocal ? (forces ? atom->f[i] : vatom[i]) : ghosts + size_t(width) * (i - nlocal);
    for (int c = 0; c < width; c++) mine[c] += buffer[width * k + c];
  }
}

double PairMLIP::memory_usage() {
  const double per_edge = 2 * sizeof(int64_t) + sizeof(int) + 6 * sizeof(double);
  const double per_atom = sizeof(int) + sizeof(mlip::Exchange::Owner);
  return Pair::memory_usage() + per_edge * double(graph.senders.capacity()) + per_atom * double(node_of_atom.capacity());
}
