// SPDX-License-Identifier: GPL-2.0-only
// What the model asks of whoever knows where the other atoms are.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mlip {

// Atoms are numbered: first those owned by this process, then copies of atoms owned by others.
class Halo {
 public:
  virtual ~Halo() = default;

  // Fills the rows of the copies, `row_bytes` each, with those of their owners.
  // `owned` and `copies` are the first rows of each kind.
  virtual void spread(const void *owned, void *copies, size_t row_bytes) = 0;

  // Adds the rows of the copies, `width` numbers each, to those of their owners.
  virtual void collect(const float *copies, float *owned, size_t width) = 0;
  virtual void collect(const double *copies, double *owned, size_t width) = 0;
};

}  // namespace mlip
