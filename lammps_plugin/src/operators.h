// SPDX-License-Identifier: GPL-2.0-only
// The operators of exported models, `mlip_engine::*`, on compiled kernels.
#pragma once
#include "halo.h"

namespace mlip {

// Registers the kernels, once in a process. Python may have defined the operators before.
void register_operators();

// While it lives, exchanges of this thread go through `halo`, and kernels use so many threads.
class Evaluation {
 public:
  Evaluation(Halo &halo, int threads);
  ~Evaluation();
  Evaluation(const Evaluation &) = delete;
  Evaluation &operator=(const Evaluation &) = delete;

  double kernel_seconds() const;  // spent in compiled kernels since the start
};

}  // namespace mlip
