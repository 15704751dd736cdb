// Geometry of the pairs of atoms that blocks of a Hessian are made of.
//
// Of each atom: three components of vectors, then five of second-degree tensors, each with `channels` channels.
// tensor[a,b,m] is the symmetric matrix of component m, u the direction from receiver to sender.
//
//   turned(t)[a]  = sum_m (sum_b tensor[b,a,m] u[b]) t[m]
//   basis[p,a]    = (vector of receiver, of sender, turned tensor of receiver, of sender)[a]
//   projections   = (sum_a u[a] basis[p,a], sum_a receiver[a] sender[a] / sqrt(3))
//
//   block[a,b] = before[a] u[b] + u[a] after[b] + sum_c products[c] receiver[a,c] sender[b,c]
//              + sum_m tensor[a,b,m] sum_c (of_receiver[c] receiver[m,c] + of_sender[c] sender[m,c]) + one [a = b]
//   before = sum_c left[c] basis[p,.,c] + along u,  after = sum_c right[c] basis[p,.,c]
//
// with coefficients (one, along, left, right, of_receiver, of_sender, products) of each pair.
#pragma once
#include "message.h"

extern "C" {

struct MlipPairShape {
  int64_t pairs;
  int64_t channels;
  int64_t threads;
  const int64_t* receivers;  // [pairs]
  const int64_t* senders;    // [pairs]
};

#define MLIP_DECLARE(T, NAME)                                                                              \
  MLIP_API int mlip_hessian_ends_##NAME(const MlipPairShape*, const T* geometry, const T* direction,        \
                                        const T* tensor, T* basis, T* projections);                        \
  MLIP_API int mlip_hessian_blocks_##NAME(const MlipPairShape*, const T* geometry, const T* direction,      \
                                          const T* tensor, const T* basis, const T* coefficients, T* blocks);

MLIP_DECLARE(float, f32)
MLIP_DECLARE(double, f64)
#undef MLIP_DECLARE
}
