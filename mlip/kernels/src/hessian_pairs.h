// From pairs of atoms to blocks of a Hessian and to arms of internal coordinates; the formulas are at the head of
// mlip/kernels/hessian_pairs.py. Of each atom: three components of vectors, then five of second-degree tensors,
// each with `channels` channels, and scalars as a receiver, then as a sender, `width` of each.
#pragma once
#include "message.h"

extern "C" {

struct MlipPairShape {
  int64_t pairs;
  int64_t channels;
  int64_t width;
  int64_t radials;
  int64_t coordinates;
  int64_t threads;
  double cutoff;
  double scale;  // of the blocks, and what keeps them finite at short distances
  double shorten;
  const int64_t* receivers;  // [pairs]
  const int64_t* senders;    // [pairs]
  const int64_t* kinds;      // [pairs], of pairs of species
  const int64_t* place;      // [pairs], among the arms; -1 for none
};

// Weights, row by row: [radials, width], [kinds, width] twice, [5 channels, width], [width, width],
// [width, 2 + 11 channels], [width, width], [width, 4 channels + coordinates], [4 channels, coordinates], [3, 3, 5].
#define MLIP_DECLARE(T, NAME)                                                                                \
  MLIP_API int mlip_hessian_pairs_##NAME(                                                                    \
      const MlipPairShape*, const T* scalars, const T* geometry, const T* vectors, const T* radial,          \
      const T* gain, const T* bias, const T* angular, const T* pair_hidden, const T* pair_out,               \
      const T* arm_hidden, const T* arm_out, const T* arm_mix, const T* tensor, T* blocks, T* weight, T* arms);

MLIP_DECLARE(float, f32)
MLIP_DECLARE(double, f64)
#undef MLIP_DECLARE
}
