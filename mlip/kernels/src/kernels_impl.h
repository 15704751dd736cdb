// Instantiates every kernel for the instruction set named by MLIP_ISA.
#pragma once
#include "edge_basis_impl.h"
#include "hessian_matrix_impl.h"
#include "hessian_pairs_impl.h"
#include "kernel_table.h"
#include "linear_impl.h"
#include "message_dual_impl.h"
#include "message_second_impl.h"
#include "sphere_product_impl.h"

namespace mlip {
namespace MLIP_ISA {

extern const KernelTable kernel_table;
template <class T>
constexpr Kernels<T> kernels = {
    message<T>,
    message_backward<T>,
    message_double_backward<T>,
    message_dual<T>,
    message_dual_backward<T>,
    sphere_product<T>,
    sphere_product_backward<T>,
    sphere_product_double_backward<T>,
    sphere_product_dual<T>,
    sphere_product_dual_backward<T>,
    linear<T>,
    project<T>,
    hessian_pairs<T>,
    hessian_matrix<T>,
    edge_basis<T>,
    edge_basis_backward<T>,
    edge_basis_double_backward<T>,
};
const KernelTable kernel_table = {kernels<float>, kernels<double>};

}  // namespace MLIP_ISA
}  // namespace mlip
