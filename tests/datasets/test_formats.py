from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mlip.datasets.formats import FORMATS, detect_format, format_named
from mlip.errors import InputError


@pytest.mark.parametrize("name", FORMATS)
def test_every_reader_is_there(name: str) -> None:
    assert callable(format_named(name).load())
    assert FORMATS[name].about


def test_every_format_is_in_the_readme() -> None:
    readme = Path(__file__).parents[2] / "datasets" / "README.md"
    text = readme.read_text(encoding="utf-8")
    assert [name for name in FORMATS if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("a.json", b'{"1": {"cell"', "ase-json"),
        ("a.json", b'[{"structure"', "mlearn"),
        ("a.json", b' {\n"mp-1": {"', "mptrj"),
        ("a.json", b'{"mvc-77": {}}', "mptrj"),
        ("a.json.gz", gzip.compress(b'{"mp-1": {}}', mtime=0), "mptrj"),
        ("a.json.gz", gzip.compress(b"[1]", mtime=0), "mlearn"),
        ("a.json", gzip.compress(b"[1]", mtime=0), "mlearn"),
        ("a.XYZ", b"1\n\nH 0 0 0\n", "extxyz"),
        ("a.extxyz.gz", b"", "extxyz"),
        ("a.h5", b"no HDF5", "hdf5"),
        ("a.aselmdb", b"", "ase-lmdb"),
    ],
)
def test_detection(tmp_path: Path, name: str, content: bytes, format: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert detect_format(tmp_path / name) == format


def test_files_to_be_written(tmp_path: Path) -> None:
    for ending, format in ((".h5", "hdf5"), (".xyz.gz", "extxyz"), (".db", "ase-db"), (".json", "ase-json")):
        assert detect_format(tmp_path / f"a{ending}") == format


@pytest.mark.parametrize("name", ["a.docx", "a", "a.npz.gz", "a.db.xz"])
def test_unknown(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"hello")
    with pytest.raises(InputError, match=f"{name}: cannot tell the format from the ending; known ones: "):
        detect_format(tmp_path / name)


def test_unknown_name() -> None:
    with pytest.raises(InputError, match="`format` is 'nonsense' but must be one of extxyz, ase-db"):
        format_named("nonsense")
