"""`mlip ts`: what it writes, says and returns, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write

from mlip.calculators import BatchCalculator
from mlip.calculators.named import named_calculator

HCN = Atoms("HCN", [(-1.06, 0, 0), (0, 0, 0), (1.14, 0, 0)])
HNC = Atoms("HCN", [(2.15, 0.05, 0), (0, 0, 0), (1.16, 0, 0)])
NEAR = Atoms("HCN", [(0.4, 1.1, 0), (0, 0, 0), (1.2, 0, 0)])
WRITTEN = {"result.json", "reactant.xyz", "saddle.xyz", "product.xyz", "path.extxyz", "profile.png"}


@pytest.fixture
def ends(folder: Path) -> Path:
    """hcn.xyz, hnc.xyz, both.xyz, near.xyz and ammonia.xyz in the current folder."""
    write("hcn.xyz", HCN)
    write("hnc.xyz", HNC)
    write("both.xyz", [HCN, HNC])
    write("near.xyz", NEAR)
    write("ammonia.xyz", molecule("NH3"))
    return folder


@pytest.fixture
def gfn2() -> tuple[str, str]:
    pytest.importorskip("tblite")
    return "--calculator", "tblite"


def test_two_ends(run, ends: Path, gfn2) -> None:
    before = Path("hcn.xyz").read_bytes()
    result = run("ts", "hcn.xyz", "hnc.xyz", *gfn2)
    assert result.exit_code == 0, result.stderr
    assert "hcn-hnc: intended: one imaginary mode" in result.stdout
    assert "  asked for: H0-C1 broken; H0-N2 formed, atoms numbered as given" in result.stdout
    assert "  saddle: 1426" in result.stdout
    assert "barrier: 3.175 eV (73.2 kcal/mol), reverse 2.307 eV (53.2 kcal/mol)" in result.stdout
    assert {path.name for path in Path("hcn-hnc-ts").iterdir()} == WRITTEN
    assert Path("hcn.xyz").read_bytes() == before
    report = json.loads(Path("hcn-hnc-ts/result.json").read_text())
    assert report["verdict"] == "intended"
    assert report["barrier_eV"] == pytest.approx(3.17537, abs=1e-4)
    assert report["imaginary_frequency_per_cm"] == pytest.approx(-1426.1, abs=2.0)
    path = read("hcn-hnc-ts/path.extxyz", index=":")
    arcs = [frame.info["arc"] for frame in path]
    assert arcs == sorted(arcs)
    assert path[0].get_distance(0, 1) < path[-1].get_distance(0, 1)  # from reactant to product
    heights = [frame.get_potential_energy() for frame in path]
    assert arcs[int(np.argmax(heights))] == 0.0
    assert read("hcn-hnc-ts/saddle.xyz").get_potential_energy() == pytest.approx(max(heights), abs=1e-6)
    assert Path("hcn-hnc-ts/profile.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_is_resumed(run, ends: Path, gfn2) -> None:
    pairs = ends / "pairs"
    pairs.mkdir()
    write(pairs / "one.xyz", [HCN, HNC])
    write(pairs / "two-reactant.xyz", HCN)
    write(pairs / "two-product.xyz", HCN)
    first = run("ts", "pairs", *gfn2, "--json")
    assert first.exit_code == 3  # the second has identical ends
    report = json.loads(first.stdout)
    assert first.stderr == ""
    assert (report["command"], report["reached"], report["calculator"]) == ("ts", 1, "tblite")
    assert (report["model"], report["level_of_theory"]) == (None, "GFN2-xTB")
    assert [(item["name"], item["verdict"], item["reused"]) for item in report["reactions"]] == [
        ("one", "intended", False),
        ("two", "identical ends", False),
    ]
    assert {path.name for path in Path("pairs-ts/one").iterdir()} == WRITTEN
    assert Path("pairs-ts/two/reactant.xyz").exists()
    stamp = Path("pairs-ts/one/result.json").stat().st_mtime_ns
    again = json.loads(run("ts", "pairs", *gfn2, "--json").stdout)
    assert [item["reused"] for item in again["reactions"]] == [True, True]
    assert Path("pairs-ts/one/result.json").stat().st_mtime_ns == stamp
    write(pairs / "two-product.xyz", molecule("NH3"))
    changed = json.loads(run("ts", "pairs", *gfn2, "--json").stdout)
    assert [(item["verdict"], item["reused"]) for item in changed["reactions"]] == [
        ("intended", True),
        ("different formulas", False),
    ]
    assert not Path("pairs-ts/two/reactant.xyz").exists()  # of the search before
    kept = Path("pairs-ts/one/result.json").read_text()
    assert json.loads(kept)["settings"]["calculator"] == "tblite"
    refused = run("ts", "pairs", *gfn2, "--images", 9)
    assert refused.exit_code == 2
    assert "pairs-ts/one: holds results for images = 11, but now it is 9" in refused.stderr
    assert Path("pairs-ts/one/result.json").read_text() == kept


def test_results_do_not_depend_on_the_device(run, ends: Path, model_file: Path) -> None:
    write("same.xyz", [molecule("H2O")] * 2)
    run("ts", "same.xyz", "--model", model_file)
    held = json.loads(Path("same-ts/result.json").read_text())["settings"]
    assert set(held) == {"model_sha256", "calculator", "dtype", "images", "fmax", "temperature"}


def test_a_folder_of_one_reaction_may_grow(run, ends: Path, model_file: Path, monkeypatch) -> None:
    """Also where it is the current one."""
    Path("f").mkdir()
    write("f/x.xyz", [molecule("H2O")] * 2)
    monkeypatch.chdir("f")
    assert run("ts", ".", "--model", model_file).exit_code == 3
    assert Path("../f-ts/x/result.json").exists()
    write("y.xyz", [molecule("H2O")] * 2)
    again = json.loads(run("ts", ".", "--model", model_file, "--json").stdout)
    assert [(item["name"], item["reused"]) for item in again["reactions"]] == [("x", True), ("y", False)]
    assert {path.name for path in Path("../f-ts").iterdir()} == {"x", "y"}


def test_one_end_in_two_files_is_refused(run, ends: Path, model_file: Path) -> None:
    Path("f").mkdir()
    for name in ("A-reactant.xyz", "A_r.xyz", "A-product.xyz"):
        write(f"f/{name}", molecule("H2O"))
    message = run.refused("ts", "f", "--model", model_file)
    assert "A-reactant.xyz and A_r.xyz are the same end: rename one" in message


def test_charges_travel(run, ends: Path, gfn2) -> None:
    write("formyl_r.xyz", Atoms("HCO", [(-1.09, 0, 0), (0, 0, 0), (1.10, 0, 0)], info={"charge": 1}))
    write("formyl_p.xyz", Atoms("HCO", [(2.08, 0, 0), (0, 0, 0), (1.13, 0, 0)], info={"charge": 1}))
    report = json.loads(run("ts", "formyl_r.xyz", "formyl_p.xyz", *gfn2, "--json").stdout)["reactions"][0]
    assert (report["charge"], report["spin"]) == (1, None)
    for name in ("reactant.xyz", "product.xyz", "path.extxyz"):
        for frame in read(Path("formyl-ts") / name, ":"):
            assert frame.info["charge"] == 1
    end = read("formyl-ts/reactant.xyz")
    held = end.get_potential_energy()
    end.calc = named_calculator("tblite")
    assert end.get_potential_energy() == pytest.approx(held, abs=1e-4)


def test_guess(run, ends: Path, gfn2) -> None:
    result = run("ts", "--guess", "near.xyz", *gfn2, "--json", "--out", "here")
    assert result.exit_code == 0, result.stderr
    (item,) = json.loads(result.stdout)["reactions"]
    assert item["verdict"] == "verified"
    assert "H0-C1" in item["verdict_text"]
    assert {item["barrier_eV"] > 3.0, item["reverse_barrier_eV"] > 3.0} == {True, False}
    assert {path.name for path in Path("here").iterdir()} == WRITTEN


def test_hopeless_requests_end_with_a_verdict(run, ends: Path, model_file: Path) -> None:
    write("methane.xyz", molecule("CH4"))
    result = run("ts", "water.xyz", "methane.xyz", "--model", model_file)
    assert result.exit_code == 3
    assert "water-methane: different formulas: the reactant is H2O, the product CH4" in result.stdout
    assert json.loads(Path("water-methane-ts/result.json").read_text())["reached"] is False
    same = run("ts", "water.xyz", "water.xyz", "--model", model_file, "--out", "same", "--json")
    assert same.exit_code == 3
    assert json.loads(same.stdout)["reactions"][0]["verdict"] == "identical ends"
    assert Path("same/reactant.xyz").exists()


def test_unknown_surroundings_are_said(run, ends: Path, wary_model_file: Path) -> None:
    result = run("ts", "water.xyz", "water.xyz", "--model", wary_model_file)
    assert "  warning: surroundings unlike any that the model was trained on" in result.stdout
    points = json.loads(Path("water-ts/result.json").read_text())["points"]
    for name in ("reactant", "product"):
        (there,) = BatchCalculator(wary_model_file).evaluate([read(f"water-ts/{name}.xyz")])
        assert points[name]["novelty"] == pytest.approx(there.novelty.max(), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "0 structures are given, but `mlip ts` needs REACTANT and PRODUCT"),
        (("hcn.xyz",), "hcn.xyz: holds 1 structure, but where one file is given it must hold two"),
        (("both.xyz", "hnc.xyz"), "both.xyz: holds 2 structures, but must hold one end"),
        (("hcn.xyz", "hnc.xyz", "near.xyz"), "3 structures are given"),
        (("hcn.xyz", "missing.xyz"), "missing.xyz: no such file"),
        (("hcn.xyz", "hnc.xyz", "--guess", "near.xyz"), "give one or the other"),
        (("hcn.xyz", "hnc.xyz", "--images", 3), "`images` is 3 but must be at least 5"),
        (("hcn.xyz", "hnc.xyz", "--fmax", 0), "`fmax` is 0.0"),
        (("hcn.xyz", "hnc.xyz", "--temperature", -5), "`temperature` is -5.0"),
        (("hcn.xyz", "hnc.xyz", "--out", "water.xyz"), "water.xyz: is a file, but must be a folder"),
        (("hcn.xyz", "hnc.xyz", "--out", "a/b/c"), "does not exist: create it first"),
        (("hcn.xyz", "hnc.xyz", "--out", "."), "holds the inputs, which are never overwritten"),
        (("hcn.xyz", "hnc.xyz", "--calculator", "dft"), '`calculator` is "dft"'),
    ],
)
def test_refusals(run, ends: Path, arguments: tuple, message: str) -> None:
    assert message in run.refused("ts", *arguments)


@pytest.mark.parametrize("guess", [True, False])
def test_what_cannot_be_evaluated_is_refused_before_the_search(run, ends: Path, guess: bool) -> None:
    good = read("hcn.xyz")
    for name, change, message in (
        ("nan", lambda atoms: atoms.positions.__setitem__((0, 0), np.nan), "nan"),
        ("close", lambda atoms: atoms.positions.__setitem__(1, atoms.positions[0] + 0.01), "0.0173 Å apart"),
        ("ion", lambda atoms: atoms.info.update(charge=1), "its charge is 1"),
    ):
        atoms = good.copy()
        change(atoms)
        write(f"{name}.xyz", atoms, format="extxyz")
        given = ("--guess", f"{name}.xyz") if guess else ("hcn.xyz", f"{name}.xyz")
        refused = run.refused("ts", *given)
        assert f"{name}.xyz: " in refused
        assert message in refused
        assert not list(ends.glob(f"*{name}-ts"))


def test_refuses_elements_of_no_model_and_empty_folders(run, ends: Path, model_file: Path) -> None:
    message = run.refused("ts", "ammonia.xyz", "ammonia.xyz", "--model", model_file)
    assert "element(s) N are unknown to this model; it was trained on H C O Si" in message
    (ends / "empty").mkdir()
    assert "empty: holds no reaction" in run.refused("ts", "empty", "--model", model_file)
    (ends / "half").mkdir()
    write("half/a-product.xyz", HCN)
    assert "a-product.xyz: has no other end" in run.refused("ts", "half", "--model", model_file)


def test_one_bad_reaction_of_a_folder_stops_no_other(run, ends: Path, model_file: Path) -> None:
    pairs = ends / "pairs"
    pairs.mkdir()
    water, clash = molecule("H2O"), molecule("H2O")
    clash.positions[1] = clash.positions[0] + 0.01
    write(pairs / "good.xyz", [water, water])
    write(pairs / "clash.xyz", [water, clash])
    write(pairs / "element.xyz", [molecule("NH3")] * 2)
    write(pairs / "half_r.xyz", water)
    (pairs / "broken.xyz").write_text("3\n\nO 0 0")
    expected = {
        "broken": "broken.xyz: cannot be read as a structure",
        "clash": "clash.xyz (product): ",
        "element": "element.xyz (reactant): element(s) N are unknown",
        "half": "half_r.xyz: has no other end",
    }
    for _ in range(2):  # also when it is resumed
        result = run("ts", "pairs", "--model", model_file)
        assert result.exit_code == 2
        for name, problem in expected.items():
            assert f"{name}: not searched: pairs/{problem}" in result.stderr
        assert "good: identical ends" in result.stdout
        assert "0 of 5 saddles connect what they should" in result.stdout
    report = json.loads(run("ts", "pairs", "--model", model_file, "--json").stdout)
    verdicts = {item["name"]: item["verdict"] for item in report["reactions"]}
    assert verdicts == dict.fromkeys(expected, "refused") | {"good": "identical ends"}
    assert [path.name for path in Path("pairs-ts").iterdir()] == ["good"]
    (pairs / "good.xyz").unlink()
    assert "nor can the other 3 be searched" in run.refused("ts", "pairs", "--model", model_file)


def test_a_missing_matplotlib_is_known_before_anything_is_computed(run, ends: Path, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert 'needs the package "matplotlib", not installed' in run.refused("ts", "hcn.xyz", "hnc.xyz")
