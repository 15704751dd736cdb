// Function pointers of one instruction set's build.
#pragma once
#include "edge_basis.h"
#include "hessian_matrix.h"
#include "hessian_pairs.h"
#include "linear.h"
#include "message.h"
#include "sphere_product.h"

namespace mlip {

template <class T>
struct Kernels {
  int (*message)(const MlipMessageShape*, const T*, const T*, const T*, const T*, const T*, T*);
  int (*message_backward)(const MlipMessageShape*, const T*, const T*, const T*, const T*, const T*, const T*,
                          T*, T*, T*, T*);
  int (*message_double_backward)(const MlipMessageShape*, const T*, const T*, const T*, const T*, const T*,
                                 const T*, const T*, const T*, const T*, const T*, T*, T*, T*, T*, T*);
  int (*message_dual)(const MlipMessageShape*, const T*, const T*, const T*, const T*, const T*, const T*,
                      const T*, const T*, T*, T*);
  int (*message_dual_backward)(const MlipMessageShape*, const T*, const T*, const T*, const T*, const T*,
                               const T*, const T*, const T*, const T*, const T*, T*, T*, T*);
  int (*sphere_product)(const MlipSphereShape*, const T*, const T*, const T*, const T*, const T*, T*);
  int (*sphere_product_backward)(const MlipSphereShape*, const T*, const T*, const T*, const T*, const T*,
                                 const T*, T*, T*, T*);
  int (*sphere_product_double_backward)(const MlipSphereShape*, const T*, const T*, const T*, const T*,
                                        const T*, const T*, const T*, const T*, const T*, T*, T*, T*, T*);
  int (*sphere_product_dual)(const MlipSphereShape*, const T*, const T*, const T*, const T*, const T*,
                             const T*, T*, T*);
  int (*sphere_product_dual_backward)(const MlipSphereShape*, const T*, const T*, const T*, const T*, const T*,
                                      const T*, const T*, const T*, T*, T*, T*, T*);
  int (*linear)(const MlipLinearShape*, const T*, const T*, T*);
  int (*project)(const MlipProjectShape*, const T*, const T*, T*);
  int (*hessian_pairs)(const MlipPairShape*, const T*, const T*, const T*, const T*, const T*, const T*, const T*,
                       const T*, const T*, const T*, const T*, const T*, const T*, T*, T*, T*);
  int (*hessian_matrix)(const MlipMatrixShape*, const T*, const T*, const T*, const T*, T*);
  int (*edge_basis)(const MlipEdgeShape*, const T*, T*, T*, int64_t*);
  int (*edge_basis_backward)(const MlipEdgeShape*, const T*, const T*, const T*, T*);
  int (*edge_basis_double_backward)(const MlipEdgeShape*, const T*, const T*, const T*, const T*, T*, T*, T*);
};

struct KernelTable {
  Kernels<float> f32;
  Kernels<double> f64;
};

}  // namespace mlip
