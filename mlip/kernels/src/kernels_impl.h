// Instantiates every kernel for the instruction set named by MLIP_ISA.
#pragma once
#include "edge_basis_impl.h"
#include "kernel_table.h"
#include "message_second_impl.h"
#include "sphere_product_impl.h"

namespace mlip {
namespace MLIP_ISA {

extern const KernelTable kernel_table;
const KernelTable kernel_table = {
    {message<float>, message_backward<float>, message_double_backward<float>, sphere_product<float>,
     sphere_product_backward<float>, sphere_product_double_backward<float>, edge_basis<float>,
     edge_basis_backward<float>, edge_basis_double_backward<float>},
    {message<double>, message_backward<double>, message_double_backward<double>, sphere_product<double>,
     sphere_product_backward<double>, sphere_product_double_backward<double>, edge_basis<double>,
     edge_basis_backward<double>, edge_basis_double_backward<double>},
};

}  // namespace MLIP_ISA
}  // namespace mlip
