"""Runs a program and writes its peak memory, kB, to a file: `lammps_process.py FOLDER PROGRAM ARGUMENT...`"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

folder, *command = sys.argv[1:]
status = subprocess.call(command, close_fds=False)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
(Path(folder) / f"memory.{os.getpid()}").write_text(str(peak))
sys.exit(status)
