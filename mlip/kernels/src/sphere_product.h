// The many-body node product: powers of functions on the sphere, taken point by point.
//
//   f[j,q]   = sum_l scale[species,j,l,c] * sum_m to[q,lm] a[n,lm,c]
//   p[q]     = f1 (w1 + f2 (w2 + f3 w3)),  w[j] = weight[species,j,c]
//   out[n,k] = sum_q from[k,q] p[q]
//
// The dual kernels carry a tangent beside each value: dout is the derivative of out along da.
#pragma once
#include "message.h"

extern "C" {

struct MlipSphereShape {
  int64_t nodes;
  int64_t species_n;
  int64_t points;
  int64_t degrees;      // lmax + 1 of a
  int64_t harmonics_out;
  int64_t correlation;
  int64_t channels;
  int64_t threads;
  const int64_t* species;  // [nodes]
};

#define MLIP_DECLARE(T, NAME)                                                                         \
  MLIP_API int mlip_sphere_product_##NAME(const MlipSphereShape*, const T* a, const T* scale,          \
                                          const T* weight, const T* to, const T* from, T* out);        \
  MLIP_API int mlip_sphere_product_backward_##NAME(const MlipSphereShape*, const T* g, const T* a,     \
                                                   const T* scale, const T* weight, const T* to,       \
                                                   const T* from, T* ga, T* gscale, T* gweight);       \
  MLIP_API int mlip_sphere_product_double_backward_##NAME(                                             \
      const MlipSphereShape*, const T* da, const T* dscale, const T* dweight, const T* g, const T* a,  \
      const T* scale, const T* weight, const T* to, const T* from, T* gg, T* ga, T* gscale, T* gweight); \
  MLIP_API int mlip_sphere_product_dual_##NAME(                                                        \
      const MlipSphereShape*, const T* da, const T* a, const T* scale, const T* weight, const T* to,   \
      const T* from, T* out, T* dout);                                                                 \
  MLIP_API int mlip_sphere_product_dual_backward_##NAME(                                               \
      const MlipSphereShape*, const T* gout, const T* gdout, const T* da, const T* a, const T* scale,  \
      const T* weight, const T* to, const T* from, T* ga, T* gda, T* gscale, T* gweight);

MLIP_DECLARE(float, f32)
MLIP_DECLARE(double, f64)
#undef MLIP_DECLARE
}
