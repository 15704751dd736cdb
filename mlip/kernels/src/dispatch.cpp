// Chooses the best build of the kernels that this processor runs, once, at load.
#include <cstring>
#include <initializer_list>

#include "kernel_table.h"

namespace mlip {
#ifdef MLIP_HAVE_X86
namespace avx512 { extern const KernelTable kernel_table; }
namespace avx2 { extern const KernelTable kernel_table; }
#endif
namespace generic { extern const KernelTable kernel_table; }

namespace {

struct Choice {
  const char* name;
  const KernelTable* table;
};

Choice lookup(const char* name) {
#ifdef MLIP_HAVE_X86
  __builtin_cpu_init();
  if (!std::strcmp(name, "avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
    return {"avx512", &avx512::kernel_table};
  if (!std::strcmp(name, "avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return {"avx2", &avx2::kernel_table};
#endif
  if (!std::strcmp(name, "generic")) return {"generic", &generic::kernel_table};
  return {nullptr, nullptr};
}

Choice best() {
  for (const char* name : {"avx512", "avx2", "generic"}) {
    const Choice choice = lookup(name);
    if (choice.table) return choice;
  }
  return {nullptr, nullptr};
}

Choice chosen = best();

}  // namespace
}  // namespace mlip

extern "C" {

#define MLIP_DEFINE(T, NAME)                                                                             \
  int mlip_message_##NAME(const MlipMessageShape* s, const T* a, const T* y, const T* beta,               \
                          const T* table, const T* weight, T* z) {                                        \
    return mlip::chosen.table->NAME.message(s, a, y, beta, table, weight, z);                             \
  }                                                                                                       \
  int mlip_message_backward_##NAME(const MlipMessageShape* s, const T* g, const T* a, const T* y,         \
                                   const T* beta, const T* table, const T* weight, T* ga, T* gy,          \
                                   T* gbeta, T* gtable) {                                                 \
    return mlip::chosen.table->NAME.message_backward(s, g, a, y, beta, table, weight, ga, gy, gbeta,      \
                                                     gtable);                                             \
  }                                                                                                       \
  int mlip_message_double_backward_##NAME(const MlipMessageShape* s, const T* da, const T* dy,            \
                                          const T* dbeta, const T* dtable, const T* g, const T* a,        \
                                          const T* y, const T* beta, const T* table, const T* weight,     \
                                          T* gg, T* ga, T* gy, T* gbeta, T* gtable) {                     \
    return mlip::chosen.table->NAME.message_double_backward(s, da, dy, dbeta, dtable, g, a, y, beta,      \
                                                            table, weight, gg, ga, gy, gbeta, gtable);    \
  }                                                                                                       \
  int mlip_message_dual_##NAME(const MlipMessageShape* s, const T* da, const T* dy, const T* dbeta,       \
                               const T* a, const T* y, const T* beta, const T* table, const T* weight,    \
                               T* z, T* dz) {                                                             \
    return mlip::chosen.table->NAME.message_dual(s, da, dy, dbeta, a, y, beta, table, weight, z, dz);     \
  }                                                                                                       \
  int mlip_message_dual_backward_##NAME(const MlipMessageShape* s, const T* gz, const T* gdz,             \
                                        const T* da, const T* dy, const T* dbeta, const T* a, const T* y, \
                                        const T* beta, const T* table, const T* weight, T* ga, T* gda,    \
                                        T* gtable) {                                                      \
    return mlip::chosen.table->NAME.message_dual_backward(s, gz, gdz, da, dy, dbeta, a, y, beta, table,   \
                                                          weight, ga, gda, gtable);                       \
  }

#define MLIP_DEFINE_SPHERE(T, NAME)                                                                        \
  int mlip_sphere_product_##NAME(const MlipSphereShape* s, const T* a, const T* scale, const T* weight,   \
                                 const T* to, const T* from, T* out) {                                    \
    return mlip::chosen.table->NAME.sphere_product(s, a, scale, weight, to, from, out);                   \
  }                                                                                                       \
  int mlip_sphere_product_backward_##NAME(const MlipSphereShape* s, const T* g, const T* a,               \
                                          const T* scale, const T* weight, const T* to, const T* from,    \
                                          T* ga, T* gscale, T* gweight) {                                 \
    return mlip::chosen.table->NAME.sphere_product_backward(s, g, a, scale, weight, to, from, ga, gscale, \
                                                            gweight);                                     \
  }                                                                                                       \
  int mlip_sphere_product_double_backward_##NAME(                                                         \
      const MlipSphereShape* s, const T* da, const T* dscale, const T* dweight, const T* g, const T* a,   \
      const T* scale, const T* weight, const T* to, const T* from, T* gg, T* ga, T* gscale, T* gweight) { \
    return mlip::chosen.table->NAME.sphere_product_double_backward(s, da, dscale, dweight, g, a, scale,   \
                                                                   weight, to, from, gg, ga, gscale,      \
                                                                   gweight);                              \
  }                                                                                                       \
  int mlip_sphere_product_dual_##NAME(const MlipSphereShape* s, const T* da, const T* a, const T* scale,  \
                                      const T* weight, const T* to, const T* from, T* out, T* dout) {     \
    return mlip::chosen.table->NAME.sphere_product_dual(s, da, a, scale, weight, to, from, out, dout);    \
  }                                                                                                       \
  int mlip_sphere_product_dual_backward_##NAME(                                                           \
      const MlipSphereShape* s, const T* gout, const T* gdout, const T* da, const T* a, const T* scale,   \
      const T* weight, const T* to, const T* from, T* ga, T* gda, T* gscale, T* gweight) {                \
    return mlip::chosen.table->NAME.sphere_product_dual_backward(s, gout, gdout, da, a, scale, weight,    \
                                                                 to, from, ga, gda, gscale, gweight);     \
  }

#define MLIP_DEFINE_EDGES(T, NAME)                                                                         \
  int mlip_edge_basis_##NAME(const MlipEdgeShape* s, const T* vectors, T* y, T* beta, int64_t* interval) { \
    return mlip::chosen.table->NAME.edge_basis(s, vectors, y, beta, interval);                            \
  }                                                                                                       \
  int mlip_edge_basis_backward_##NAME(const MlipEdgeShape* s, const T* gy, const T* gbeta,                \
                                      const T* vectors, T* gvectors) {                                    \
    return mlip::chosen.table->NAME.edge_basis_backward(s, gy, gbeta, vectors, gvectors);                 \
  }                                                                                                       \
  int mlip_edge_basis_double_backward_##NAME(const MlipEdgeShape* s, const T* dvectors, const T* gy,      \
                                             const T* gbeta, const T* vectors, T* ggy, T* ggbeta,         \
                                             T* gvectors) {                                               \
    return mlip::chosen.table->NAME.edge_basis_double_backward(s, dvectors, gy, gbeta, vectors, ggy,      \
                                                               ggbeta, gvectors);                         \
  }

#define MLIP_DEFINE_HESSIANS(T, NAME)                                                                         \
  int mlip_hessian_pairs_##NAME(const MlipPairShape* s, const T* scalars, const T* geometry,              \
                                const T* vectors, const T* radial, const T* gain, const T* bias,          \
                                const T* angular, const T* pair_hidden, const T* pair_out,                \
                                const T* arm_hidden, const T* arm_out, const T* arm_mix, const T* tensor, \
                                T* blocks, T* weight, T* arms) {                                          \
    return mlip::chosen.table->NAME.hessian_pairs(s, scalars, geometry, vectors, radial, gain, bias,      \
                                                  angular, pair_hidden, pair_out, arm_hidden, arm_out,    \
                                                  arm_mix, tensor, blocks, weight, arms);                 \
  }                                                                                                       \
  int mlip_hessian_matrix_##NAME(const MlipMatrixShape* s, const T* blocks, const T* weight,              \
                                 const T* arms, const T* metric, T* out) {                                \
    return mlip::chosen.table->NAME.hessian_matrix(s, blocks, weight, arms, metric, out);                 \
  }

MLIP_DEFINE_HESSIANS(float, f32)
MLIP_DEFINE_HESSIANS(double, f64)

int mlip_linear_f32(const MlipLinearShape* s, const float* x, const float* weight, float* out) {
  return mlip::chosen.table->f32.linear(s, x, weight, out);
}
int mlip_linear_f64(const MlipLinearShape* s, const double* x, const double* weight, double* out) {
  return mlip::chosen.table->f64.linear(s, x, weight, out);
}
int mlip_project_f32(const MlipProjectShape* s, const float* x, const float* matrix, float* out) {
  return mlip::chosen.table->f32.project(s, x, matrix, out);
}
int mlip_project_f64(const MlipProjectShape* s, const double* x, const double* matrix, double* out) {
  return mlip::chosen.table->f64.project(s, x, matrix, out);
}

MLIP_DEFINE_EDGES(float, f32)
MLIP_DEFINE_EDGES(double, f64)
MLIP_DEFINE_SPHERE(float, f32)
MLIP_DEFINE_SPHERE(double, f64)
MLIP_DEFINE(float, f32)
MLIP_DEFINE(double, f64)

const char* mlip_isa(void) { return mlip::chosen.name; }

int mlip_set_isa(const char* name) {
  const mlip::Choice choice = mlip::lookup(name);
  if (!choice.table) return 1;
  mlip::chosen = choice;
  return 0;
}
}
