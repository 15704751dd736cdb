// SPDX-License-Identifier: GPL-2.0-only
// A temporary folder for whatever torch unpacks, gone as soon as it is not needed.
#pragma once
#include <string>

namespace mlip {

// While it lives, TMPDIR is a fresh folder of this process. At its end the folder is deleted: a library that
// was loaded from it stays loaded. Folders left by processes that were killed meanwhile are deleted as well.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch &) = delete;
  Scratch &operator=(const Scratch &) = delete;

 private:
  std::string folder, before;
  bool was_set = false;
};

}  // namespace mlip
