// SPDX-License-Identifier: GPL-2.0-only
// Makes `pair_style mlip` known to LAMMPS (https://www.lammps.org), which is distributed under the GNU General Public
// License, version 2; see COPYING.
#include <malloc.h>

#include <cstring>

#include "error.h"
#include "lammps.h"
#include "pair_mlip.h"

// As in lammpsplugin.h, which installed packages of LAMMPS do not contain.
extern "C" {
typedef void *(lammpsplugin_factory1)(void *);
typedef void *(lammpsplugin_factory2)(void *, int, char **);
typedef struct {
  const char *version;
  const char *style;
  const char *name;
  const char *info;
  const char *author;
  union {
    lammpsplugin_factory1 *v1;
    lammpsplugin_factory2 *v2;
  } creator;
  void *handle;
} lammpsplugin_t;
typedef void (*lammpsplugin_regfunc)(lammpsplugin_t *, void *);
}

static void *create(void *given) {
  auto *lmp = static_cast<LAMMPS_NS::LAMMPS *>(given);
  if (std::strcmp(lmp->version, MLIP_LAMMPS_VERSION) != 0)
    lmp->error->all(FLERR, std::string("pair_style mlip was built for LAMMPS ") + MLIP_LAMMPS_VERSION +
                               ", but this is LAMMPS " + lmp->version + "; run: mlip lammps build");
  // Keeps memory for the next step: fetching it from the system anew can take as long as the arithmetic.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);

  return new LAMMPS_NS::PairMLIP(lmp);
}

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle, void *regfunc) {
  lammpsplugin_t plugin;
  plugin.version = MLIP_LAMMPS_VERSION;
  plugin.style = "pair";
  plugin.name = "mlip";
  plugin.info = "Machine-learned potentials of polyad, version " MLIP_VERSION;
  plugin.author = "The polyad developers";
  plugin.creator.v1 = create;
  plugin.handle = handle;
  reinterpret_cast<lammpsplugin_regfunc>(regfunc)(&plugin, lmp);
}
