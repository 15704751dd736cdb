"""Reading configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlip.errors import InputError
from mlip.training.config import dump
from mlip.training.config_file import as_started, check_same_run, load_config, parse_config

MINIMAL: dict[str, Any] = {"model": "polyad", "data": {"train": "a.xyz", "valid": 0.1}}


def parse(**changes: Any) -> Any:
    return parse_config({**MINIMAL, **changes}, "c.yaml")


def test_minimal() -> None:
    config = parse()
    assert config.model == {"name": "polyad"}
    assert config.data.valid == 0.1
    assert config.cutoff == 5.0


def test_cutoff_has_an_alias() -> None:
    assert parse(r_max=4.5).cutoff == 4.5


def test_overrides_win_and_are_yaml(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, "r_max": 4.0, "optimizer": {"lr": 1.0, "amsgrad": True}}))
    config = load_config(
        path, ["optimizer.lr=1e-3", "cutoff=6", "loss.energy=[[0, 1], [0.7, 20]]", "model.num_channels=8"]
    )
    assert config.optimizer.lr == 1e-3
    assert config.optimizer.amsgrad is True
    assert config.cutoff == 6.0
    assert config.loss.energy == [(0.0, 1.0), (0.7, 20.0)]
    assert config.model == {"name": "polyad", "num_channels": 8}


def test_paths_are_relative_to_the_file_and_of_overrides_to_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "c.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    monkeypatch.chdir(tmp_path)
    config = load_config(path, ["data.test={hot: hot.xyz}"])
    assert config.data.train == tmp_path / "sub" / "a.xyz"
    assert config.data.test_files() == {"hot": tmp_path / "hot.xyz"}
    assert config.data.valid == 0.1


@pytest.mark.parametrize("valid", [50, 0.2])
def test_valid_may_be_a_number(valid: float) -> None:
    assert parse(data={"train": "a.xyz", "valid": valid}).data.valid == valid


def test_short_forms_of_e0s() -> None:
    assert parse(e0s="isolated").e0s.method == "isolated"
    given = parse(e0s={"H": -13.6, "O": -432}).e0s
    assert (given.method, given.values) == ("given", {"H": -13.6, "O": -432.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bach_size": 3}, r"^c\.yaml: unknown key `bach_size`; did you mean `batch_size`\?$"),
        ({"loss": {"force": 3}}, r"unknown key `loss\.force`; did you mean `loss\.forces`\?"),
        (
            {"data": {"train": "a", "valid": 1, "keys": {"forcs": "x"}}},
            r"did you mean `data\.keys\.forces`\?",
        ),
        ({"zzz": 1}, r"unknown key `zzz`; known: .*batch_size"),
        ({"batch_size": 0}, r"`batch_size` is 0: input should be greater than 0"),
        ({"batch_size": "many"}, r"`batch_size` is 'many': input should be a valid integer"),
        ({"cutoff": -1}, r"`cutoff` is -1: input should be greater than 0"),
        ({"data": {"valid": 5}}, r"`data\.train` is missing"),
        ({"data": {"train": "a", "valid": 0}}, r"`data\.valid` is 0"),
        ({"model": {"num_channels": 3}}, r"`model`.* needs a `name`"),
        ({"dtype": "float16"}, r"`dtype` is 'float16': input should be 'float32' or 'float64'"),
        (
            {"loss": {"energy": [[0.1, 1]]}},
            r"`loss\.energy` is \[\[0\.1, 1\]\]: a schedule must begin at fraction 0",
        ),
        ({"loss": {"energy": [[0, 1], [0.5, 2], [0.4, 3]]}}, r"fractions of a schedule must increase"),
        ({"loss": {"energy": 0, "forces": 0}}, r"all weights are 0"),
        ({"loss": {"forces": -1}}, r"`loss\.forces` is -1: input should be greater than or equal to 0"),
        ({"e0s": "isolatd"}, r"`e0s\.method` is 'isolatd'"),
        ({"e0s": {"H:-13": None}}, r"`e0s`.* must map symbols to eV"),
        ({"e0s": {"method": "given"}}, r"method `given` needs `values`"),
        ({"e0s": {"method": "isolated", "values": {"H": 1}}}, r"only used with method `given`"),
        ({"e0s": {"method": "zero", "file": "x"}}, r"only used with method `isolated`"),
        ({"schedule": {"decay": "exponential", "final": 0}}, r"must be above 0 for an exponential decay"),
        ({"early_stopping": {}}, r"`early_stopping\.patience` is missing"),
        (
            {"data": {"train": "a", "valid": 1, "test": ["t1/test.xyz", "t2/test.xyz"]}},
            r"`data\.test` is .*: 2 files are called `test`; give names: \{name: file\}",
        ),
        (
            {"data": {"train": "a", "valid": 1, "test": "x/valid.xyz"}},
            r"`data\.test` is .*: `valid` is the name of the valid frames themselves .*; give names:",
        ),
        (
            {"data": {"train": "a", "valid": 1, "test": {"train": "t.xyz"}}},
            r"`train` is the name of the train",
        ),
        ({"ema": 1.0}, r"`ema` is 1\.0: input should be less than 1"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(**changes)


def test_all_errors_are_named_at_once() -> None:
    with pytest.raises(InputError, match=r"`seed` is -1.*`batch_size` is 0|`batch_size` is 0.*`seed` is -1"):
        parse(batch_size=0, seed=-1)


def test_refused_files(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with pytest.raises(InputError, match=r"configuration file '.*c\.yaml' does not exist"):
        load_config(path)
    path.write_text("model: [polyad\ndata: {")
    with pytest.raises(InputError, match=r"is not valid YAML: .*line 2"):
        load_config(path)
    path.write_text("- 1\n")
    with pytest.raises(InputError, match="must hold `key: value` lines, not list"):
        load_config(path)
    path.write_text("1: 2\n")
    with pytest.raises(InputError, match="every key must be text"):
        load_config(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_size", "'batch_size' must look like key=value"),
        ("=3", "must look like key=value"),
        ("loss.energy=[1", r"'\[1' is not a valid YAML value"),
    ],
)
def test_refused_overrides(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    with pytest.raises(InputError, match=message):
        load_config(path, [override])


def test_no_test_files(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    assert load_config(path, ["data.test=null"]).data.test_files() == {}


def test_a_resumed_run_must_be_the_same() -> None:
    started = dump(parse())
    check_same_run(parse(max_time=5, num_threads=2, output="elsewhere", device="cpu"), started)
    with pytest.raises(InputError, match=r"`optimizer\.lr` is 0\.5 but the run was started with 0\.03"):
        check_same_run(parse(optimizer={"lr": 0.5}), started)
    with pytest.raises(InputError, match=r"`model\.num_channels` is 8 but the run was started with None"):
        check_same_run(parse(model={"name": "polyad", "num_channels": 8}), started)


def test_init_must_be_text(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, "init": ["x"]}))
    with pytest.raises(InputError, match=r"`init` is \['x'\]: input should be a valid string"):
        load_config(path)


def test_a_split_left_open_stays_that_of_the_run() -> None:
    older = dump(parse(data={"train": "a.xyz", "valid": 0.1, "split_by": "frame"}))
    assert as_started(parse(), older).data.split_by == "frame"
    assert as_started(parse(), dump(parse())).data.split_by is None
    given = parse(data={"train": "a.xyz", "valid": 0.1, "split_by": "group"})
    assert as_started(given, older) is given
    with pytest.raises(InputError, match=r"`data\.split_by` is group but the run was started with frame"):
        check_same_run(given, older)


def test_older_runs_may_have_tests_of_one_name() -> None:
    started = dump(parse())
    started["data"]["test"] = ["t1/test.xyz", "t2/test.xyz"]
    check_same_run(parse(), started)
