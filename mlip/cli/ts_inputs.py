"""What `mlip ts` is asked to do: pairs of structures, or guesses, from files and folders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlip.cli import describe
from mlip.cli.structure_files import read_structures, say_left_out, structures_in
from mlip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

ENDS: Final = re.compile(r"^(?P<name>.+)[-_.](?P<end>reactant|product|r|p)$", re.IGNORECASE)
"""Names of files that hold one end of a reaction: NAME-reactant.xyz and NAME-product.xyz, or NAME_r,
NAME_p."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A reaction to be searched.

    Attributes:
        name: For people, and of its folder where there are several.
        sources: Files that it comes from.
        structures: Reactant and product, or a guess; none where there is a problem.
        problem: Why it cannot be searched, although others of the same folder can.
    """

    name: str
    sources: tuple[Path, ...]
    structures: tuple[Atoms, ...]
    problem: str | None = None

    def where(self, number: int) -> str:
        """The file of one of the structures, and which it is where the file holds several."""
        if len(self.sources) == len(self.structures):
            return str(self.sources[number])
        return f"{self.sources[0]} ({('reactant', 'product')[number]})"


def plan(structures: Sequence[Path], guess: Path | None) -> list[Task]:
    """Read everything; what is wrong with one reaction of a folder becomes its `problem`.

    Raises:
        InputError: There are not one or two files, or a folder, or a guess; or one holds something else.
    """
    if guess is not None:
        if structures:
            raise InputError("a guess (--guess) and other structures are both given: give one or the other")
        return _guesses(guess)
    if len(structures) == 1:
        only = structures[0]
        return _folder(only) if only.is_dir() else [_two_frames(only)]
    if len(structures) == 2:
        return [_two_files(*structures, name=_common_name(*structures))]
    raise InputError(
        f"{len(structures)} structures are given, but `mlip ts` needs REACTANT and PRODUCT, one file with "
        "both, a folder of such files, or --guess STRUCT"
    )


def _guesses(path: Path) -> list[Task]:
    frames = read_structures(path)
    single = len(frames) == 1
    return [
        Task(name=path.stem if single else f"{path.stem}-{number}", sources=(path,), structures=(atoms,))
        for number, atoms in enumerate(frames)
    ]


def _two_frames(path: Path) -> Task:
    frames = read_structures(path)
    if len(frames) != 2:
        raise InputError(
            f"{path}: holds {len(frames)} structure{'' if len(frames) == 1 else 's'}, but where one file is "
            "given it must hold two: give a second file, or put reactant and product into this one"
        )
    return Task(name=path.stem, sources=(path,), structures=(frames[0], frames[1]))


def _two_files(reactant: Path, product: Path, *, name: str) -> Task:
    ends = []
    for path in (reactant, product):
        frames = read_structures(path)
        if len(frames) != 1:
            raise InputError(f"{path}: holds {len(frames)} structures, but must hold one end of the reaction")
        ends.append(frames[0])
    return Task(name=name, sources=(reactant, product), structures=(ends[0], ends[1]))


def _common_name(reactant: Path, product: Path) -> str:
    """NAME of NAME-reactant and NAME-product; else both names, so that other pairs have other names."""
    halves = [ENDS.match(path.stem) for path in (reactant, product)]
    if all(halves) and len({half["name"] for half in halves if half is not None}) == 1:
        return str(halves[0]["name"])  # type: ignore[index]
    return reactant.stem if reactant.stem == product.stem else f"{reactant.stem}-{product.stem}"


def _folder(folder: Path) -> list[Task]:
    """Files with two structures each, and pairs of files with one each."""

    def attempt(name: str, *sources: Path) -> Task:
        try:
            if len(sources) == 1 and ENDS.match(sources[0].stem):
                raise InputError(
                    f"{sources[0]}: has no other end: there must be NAME-reactant and NAME-product, or "
                    "NAME_r and NAME_p"
                )
            return _two_frames(sources[0]) if len(sources) == 1 else _two_files(*sources, name=name)
        except (InputError, OSError) as error:
            return Task(name=name, sources=sources, structures=(), problem=describe(error))

    files, others = structures_in(folder)
    say_left_out(others)
    halves: dict[str, dict[str, Path]] = {}
    tasks = []
    for path in files:
        match = ENDS.match(path.stem)
        if match is None:
            tasks.append(attempt(path.stem, path))
        else:
            ends = halves.setdefault(match["name"], {})
            other = ends.setdefault(match["end"].lower()[0], path)
            if other != path:
                raise InputError(f"{folder}: {other.name} and {path.name} are the same end: rename one")
    for name, ends in halves.items():
        tasks.append(attempt(name, *(ends[end] for end in ("r", "p") if end in ends)))
    if not tasks:
        raise InputError(
            f"{folder}: holds no reaction: put files with two structures there, or NAME-reactant and "
            "NAME-product"
        )
    names = [task.name for task in tasks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f'{folder}: two reactions are called "{twice}": rename one')
    return sorted(tasks, key=lambda task: task.name)
