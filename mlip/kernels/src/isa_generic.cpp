// The kernels compiled for one instruction set; flags are set in CMakeLists.txt.
#define MLIP_ISA generic
#include "kernels_impl.h"
