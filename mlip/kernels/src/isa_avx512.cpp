// The kernels compiled for one instruction set; flags are set in CMakeLists.txt.
#define MLIP_ISA avx512
#include "kernels_impl.h"
