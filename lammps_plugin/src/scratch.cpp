// SPDX-License-Identifier: GPL-2.0-only
#include "scratch.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <vector>

namespace mlip {
namespace {

namespace fs = std::filesystem;

// mlip-lammps-<host>-<process>-XXXXXX
std::string prefix() {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  return std::string("mlip-lammps-") + host + "-";
}

void remove_abandoned(const fs::path &parent) {
  const std::string start = prefix();
  std::error_code ignored;
  for (fs::directory_iterator it(parent, ignored), end; !ignored && it != end; it.increment(ignored)) {
    const std::string name = it->path().filename().string();
    if (name.compare(0, start.size(), start) != 0) continue;
    const long process = std::strtol(name.c_str() + start.size(), nullptr, 10);
    struct stat status;
    const bool mine = lstat(it->path().c_str(), &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == getuid();
    if (mine && process > 0 && kill(pid_t(process), 0) != 0 && errno == ESRCH) {
      std::error_code left;
      fs::remove_all(it->path(), left);
    }
  }
}

}  // namespace

Scratch::Scratch() {
  const char *set = std::getenv("TMPDIR");
  was_set = set != nullptr;
  before = was_set ? set : "";
  const fs::path parent = was_set && *set ? set : "/tmp";
  remove_abandoned(parent);
  const std::string wanted = (parent / (prefix() + std::to_string(getpid()) + "-XXXXXX")).string();
  std::vector<char> name(wanted.begin(), wanted.end());
  name.push_back('\0');
  if (!mkdtemp(name.data()))
    throw std::runtime_error("no temporary folder can be made in " + parent.string() + "; set TMPDIR to a folder where one can");
  folder = name.data();
  setenv("TMPDIR", folder.c_str(), 1);
}

Scratch::~Scratch() {
  if (was_set)
    setenv("TMPDIR", before.c_str(), 1);
  else
    unsetenv("TMPDIR");
  std::error_code ignored;
  fs::remove_all(folder, ignored);
}

}  // namespace mlip
