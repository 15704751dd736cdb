"""What is wrong ends the run on every process, with a sentence, and never hangs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from lammps_structures import crystal
from lammps_subject import SYMBOLS, Model, Programs

from mlip.lammps_plugin.structure import write_data


def _script(package: Path | str, **changes: str) -> str:
    parts = {
        "units": "units metal",
        "style": "atom_style atomic",
        "data": "read_data start.data",
        "before": "",
        "pair": "pair_style mlip",
        "coeff": f"pair_coeff * * {package} Si O",
        "after": "",
        "run": "run 2",
    }
    return "\n".join({**parts, **changes}.values()) + "\n"


class Refuses:
    """Runs an input that must fail, and looks for a text in what it says."""

    def __init__(self, programs: Programs, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        write_data(crystal((2, 1, 1)), folder / "start.data", SYMBOLS)

    def __call__(self, script: str, text: str, *, ranks: int = 1) -> None:
        status, said = self.programs.run(self.folder, script, ranks=ranks)
        assert status != 0, said
        errors = [line for line in said.splitlines() if line.startswith("ERROR")]
        assert errors, said
        assert text in errors[0]
        assert not any("terminate called" in line or "Segmentation" in line for line in said.splitlines())


@pytest.fixture
def refuses(programs: Programs, tmp_path: Path) -> Refuses:
    return Refuses(programs, tmp_path)


@pytest.mark.parametrize("ranks", [1, 2])
def test_unknown_element(ranks: int, refuses: Refuses, model: Model) -> None:
    script = _script(model.package, coeff=f"pair_coeff * * {model.package} Si Xe")
    refuses(script, "element Xe of pair_coeff is unknown to", ranks=ranks)


def test_missing_file(refuses: Refuses) -> None:
    refuses(_script("nowhere.pt2"), "nowhere.pt2 cannot be opened", ranks=2)


def test_no_package(refuses: Refuses, model: Model) -> None:
    refuses(_script(model.file), "is no exported model; write one with: mlip export")


def test_other_zip(refuses: Refuses, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("other/data.txt", "hello")
    refuses(_script("other.pt2"), "was not written by `mlip export --format lammps`")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("torch_version", "1.2.3", "was exported with torch 1.2.3"),
        ("device", "cuda", "is for the device cuda"),
        ("instructions", "x86-64-v9", "export it with --portable"),
        ("format_version", "99", "has format version 99"),
    ],
)
def test_package_of_another_machine(
    key: str, value: str, text: str, refuses: Refuses, model: Model, tmp_path: Path
) -> None:
    """The package says what it is for; that is read before anything of it runs."""
    with (
        zipfile.ZipFile(model.package) as source,
        zipfile.ZipFile(tmp_path / "forged.pt2", "w", zipfile.ZIP_STORED) as target,
    ):
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("_metadata.json"):
                content = json.dumps({**json.loads(content), key: value}).encode()
            target.writestr(name, content)
    refuses(_script("forged.pt2"), text)


def test_units(refuses: Refuses, model: Model) -> None:
    refuses(_script(model.package, units="units real"), "needs `units metal`, not `units real`")


def test_arguments_of_pair_style(refuses: Refuses, model: Model) -> None:
    refuses(_script(model.package, pair="pair_style mlip 5.0"), "takes no arguments, but got 5.0")


def test_arguments_of_pair_coeff(refuses: Refuses, model: Model) -> None:
    refuses(
        _script(model.package, coeff=f"pair_coeff * * {model.package} Si"),
        "names 1 element(s) but there are 2",
    )
    refuses(_script(model.package, coeff="pair_coeff * *"), "write: pair_coeff * * FILE.pt2 followed by")
    refuses(_script(model.package, coeff=f"pair_coeff 1 1 {model.package} Si"), "must start with * *")


def test_excluded_neighbours(refuses: Refuses, model: Model) -> None:
    """Bonded neighbours must not vanish silently."""
    data = refuses.folder / "start.data"
    rows = [line.split() for line in data.read_text().replace("# atomic", "# molecular").splitlines()]
    data.write_text(
        "\n".join(" ".join([*row[:1], "1", *row[1:]] if len(row) == 5 else row) for row in rows) + "\n"
    )
    script = _script(model.package, style="atom_style molecular")
    refuses(script, "special_bonds leaves out bonded ones; add: special_bonds lj/coul 1 1 1")


@pytest.mark.parametrize("ranks", [1, 2])
def test_positions_that_are_not_numbers(ranks: int, refuses: Refuses, model: Model) -> None:
    """On one process only; the other ends as well."""
    make = "variable bad atom exp(1000)-exp(1000)\nset atom 3 vx v_bad"
    script = _script(model.package, after=f"run 0\nfix 1 all nve\n{make}")
    refuses(script, "the position of atom 3 is not finite", ranks=ranks)


@pytest.mark.parametrize("ranks", [1, 2])
def test_atoms_in_one_place(ranks: int, refuses: Refuses, model: Model) -> None:
    script = _script(model.package, after="set atom 2 x 1.0 y 1.0 z 1.0\nset atom 3 x 1.0 y 1.0 z 1.001")
    refuses(script, "Å apart; two atoms must not share a place", ranks=ranks)


def test_lost_atoms(refuses: Refuses, model: Model) -> None:
    script = _script(
        model.package,
        before="change_box all boundary f f f",
        after="set atom 3 vx 40000\nfix 1 all nve\nneigh_modify every 1 delay 0\nthermo 1",
        run="run 20",
    )
    refuses(script, "Lost atoms", ranks=2)
