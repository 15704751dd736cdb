// Linear maps of features: of channels, with one matrix per degree, and of components.
//
//   linear:  out[n,lm,d] = sum_c x[n,lm,c] weight[l,c,d]
//   project: out[n,q,c]  = sum_m matrix[q,m] x[n,m,c]
#pragma once
#include "message.h"

extern "C" {

struct MlipLinearShape {
  int64_t nodes;
  int64_t degrees;  // lmax + 1
  int64_t channels_in;
  int64_t channels_out;
  int64_t threads;
};

struct MlipProjectShape {
  int64_t nodes;
  int64_t components_in;
  int64_t components_out;
  int64_t channels;
  int64_t threads;
};

MLIP_API int mlip_linear_f32(const MlipLinearShape*, const float* x, const float* weight, float* out);
MLIP_API int mlip_linear_f64(const MlipLinearShape*, const double* x, const double* weight, double* out);
MLIP_API int mlip_project_f32(const MlipProjectShape*, const float* x, const float* matrix, float* out);
MLIP_API int mlip_project_f64(const MlipProjectShape*, const double* x, const double* matrix, double* out);
}
