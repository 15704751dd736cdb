// Harmonics and radial splines of the edges.
//
//   y[e,lm]     real harmonics of the unit vector, component normalised, polar axis y
//   beta[e,k]   the six quintic B-splines that are not zero at |vector|
//   interval[e] index of the first of them
#pragma once
#include "message.h"

extern "C" {

struct MlipEdgeShape {
  int64_t edges;
  int64_t degrees;    // lmax + 1
  int64_t intervals;  // of the spline, on (0, cutoff)
  int64_t threads;
  double cutoff;
  const double* polynomials;  // [power, function], 6 x 6
};

#define MLIP_DECLARE(T, NAME)                                                                          \
  MLIP_API int mlip_edge_basis_##NAME(const MlipEdgeShape*, const T* vectors, T* y, T* beta,            \
                                      int64_t* interval);                                               \
  MLIP_API int mlip_edge_basis_backward_##NAME(const MlipEdgeShape*, const T* gy, const T* gbeta,       \
                                               const T* vectors, T* gvectors);                          \
  MLIP_API int mlip_edge_basis_double_backward_##NAME(const MlipEdgeShape*, const T* dvectors,          \
                                                      const T* gy, const T* gbeta, const T* vectors,    \
                                                      T* ggy, T* ggbeta, T* gvectors);

MLIP_DECLARE(float, f32)
MLIP_DECLARE(double, f64)
#undef MLIP_DECLARE
}
