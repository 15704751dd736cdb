// Hessians of small structures from the blocks of their pairs and the internal coordinates of their atoms; the
// formulas are at the head of mlip/kernels/hessian_matrix.py. Pairs are sorted by receiver, and atoms by structure.
#pragma once
#include "message.h"

extern "C" {

struct MlipMatrixShape {
  int64_t structures;
  int64_t coordinates;
  int64_t threads;
  double tiny;                // added to the diagonal of the Laplacian, relative to its largest element
  const int64_t* atoms;       // [structures + 1], first atom of each
  const int64_t* pairs;       // [structures + 1], first pair of each
  const int64_t* nears;       // [structures + 1], first arm of each
  const int64_t* receivers;   // [pairs]
  const int64_t* senders;     // [pairs]
  const int64_t* near;        // [arms], their pairs
};

#define MLIP_DECLARE(T, NAME)                                                                               \
  MLIP_API int mlip_hessian_matrix_##NAME(const MlipMatrixShape*, const T* blocks, const T* weight,          \
                                          const T* arms, const T* metric, T* out);

MLIP_DECLARE(float, f32)
MLIP_DECLARE(double, f64)
#undef MLIP_DECLARE
}
