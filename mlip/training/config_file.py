"""Reading a training configuration: YAML, overrides from the command line, and errors a person can act on."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mlip.checkpoint import BUNDLED
from mlip.errors import InputError
from mlip.training.config import MAY_CHANGE_ON_RESUME, TrainConfig, dump

PATHS = (
    ("data", "train"),
    ("data", "valid"),
    ("data", "test"),
    ("e0s", "file"),
    ("relaxation_metrics", "file"),
)


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a training configuration.

    Args:
        path: YAML file.
        overrides: ``key=value`` or ``section.key=value``; values are YAML.

    Raises:
        InputError: The file is missing or is not YAML, a key is unknown, or a value is out of range.
    """
    values = read_yaml(path)
    values = _absolute_paths(values, path.resolve().parent)
    changes: dict[str, Any] = {}
    for override in overrides:
        _set_dotted(changes, override)
    _merge(values, _absolute_paths(changes, Path.cwd()))
    return parse_config(values, str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InputError: Not a file, not YAML, or not a mapping.
    """
    if not path.is_file():
        raise InputError(f"configuration file {str(path)!r} does not exist")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not valid YAML: {reason}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold `key: value` lines, not {type(values).__name__}")
    if not all(isinstance(key, str) for key in values):
        raise InputError(f"{path}: every key must be text")
    return values


def parse_config(values: dict[str, Any], source: str) -> TrainConfig:
    """Validate the values of a configuration.

    Raises:
        InputError: One line naming every wrong key, its value and what it must be.
    """
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{source}: " + "; ".join(_explain(error))) from None


def as_started(config: TrainConfig, started_with: dict[str, Any]) -> TrainConfig:
    """The configuration of a resumed run, where `data.split_by` is left open with that of its start: older
    runs wrote a default of `frame`."""
    if config.data.split_by is not None:
        return config
    data = config.data.model_copy(update={"split_by": started_with["data"]["split_by"]})
    return config.model_copy(update={"data": data})


def check_same_run(config: TrainConfig, started_with: dict[str, Any]) -> None:
    """Refuse to resume a run with settings that would change its result.

    Raises:
        InputError: A key that matters differs from the one that the run was started with.
    """
    # Through the model, so that settings that a newer version has added have their defaults.
    # Without the tests, which may change: older runs gave two of them the same name.
    started = {**started_with, "data": {k: v for k, v in started_with["data"].items() if k != "test"}}
    then = _flatten(dump(parse_config(started, "the configuration of the interrupted run")))
    now = _flatten(dump(config))
    for key in sorted(set(now) | set(then)):
        if any(key == free or key.startswith(free + ".") for free in MAY_CHANGE_ON_RESUME):
            continue
        if now.get(key) != then.get(key):
            raise InputError(
                f"`{key}` is {now.get(key)} but the run was started with {then.get(key)}; "
                "resume with the same settings, or start a new run in another `output` folder"
            )


def suggest(unknown: str, known: Sequence[str]) -> str:
    """``"; did you mean `x`?"`` for the nearest known word, else the list of known ones."""
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else f"; known: {', '.join(sorted(known))}"


def _explain(error: ValidationError) -> list[str]:
    lines: dict[str, str] = {}
    for item in error.errors():
        names = _key_path(item["loc"], unknown=item["type"] == "extra_forbidden")
        key = ".".join(names) or "configuration"
        if item["type"] == "extra_forbidden":
            known = _known_keys(names[:-1])
            prefix = ".".join([*names[:-1], ""])
            line = f"unknown key `{key}`" + suggest(names[-1], known).replace("`", f"`{prefix}", 1)
        elif item["type"] == "missing":
            line = f"`{key}` is missing"
        else:
            reason = item["msg"].removeprefix("Value error, ")
            value = item["input"]
            shown = "" if isinstance(value, dict) else f" is {value!r}:"
            line = f"`{key}`{shown} {reason[0].lower() + reason[1:]}"
        lines.setdefault(key, line)
    return list(lines.values())


def _key_path(location: tuple[int | str, ...], *, unknown: bool) -> list[str]:
    """Keys in a pydantic location, which also names the members of unions."""
    names: list[str] = []
    for i, part in enumerate(location):
        if isinstance(part, str) and (part in _known_keys(names) or (unknown and i + 1 == len(location))):
            names.append(part)
    return names


def _known_keys(section: Sequence[str]) -> list[str]:
    model: type[BaseModel] = TrainConfig
    for name in section:
        field = model.model_fields.get(name)
        inner = _section_type(field.annotation) if field is not None else None
        if inner is None:
            return []
        model = inner
    return [*model.model_fields, *(["r_max"] if model is TrainConfig else [])]


def _section_type(annotation: Any) -> type[BaseModel] | None:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    found = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
    return found[0] if found else None


def _set_dotted(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"override {override!r} must look like key=value or section.key=value")
    try:
        value = yaml.safe_load(text) if text.strip() else None
    except yaml.YAMLError:
        raise InputError(f"override {override!r}: {text!r} is not a valid YAML value") from None
    if isinstance(value, str):
        value = _number(value)
    *sections, last = key.strip().split(".")
    here = values
    for section in sections:
        inner = here.setdefault(section, {})
        if not isinstance(inner, dict):
            raise InputError(f"override {override!r}: `{section}` is not a section")
        here = inner
    here[last] = value


def _number(text: str) -> str | float:
    """YAML 1.1 reads ``1e-3`` as text; people mean the number."""
    try:
        return float(text)
    except ValueError:
        return text


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, change in changes.items():
        if key in ("cutoff", "r_max"):
            values.pop("cutoff", None)
            values.pop("r_max", None)
        old = values.get(key)
        if isinstance(change, dict) and key == "model" and isinstance(old, str):
            old = values[key] = {"name": old}
        if isinstance(change, dict) and isinstance(old, dict) and change:
            _merge(old, change)
        else:
            values[key] = change


def _absolute_paths(values: dict[str, Any], base: Path) -> dict[str, Any]:
    result = dict(values)
    for section, name in PATHS:
        inner = result.get(section)
        if isinstance(inner, dict) and name in inner:
            result[section] = {**inner, name: _absolute(inner[name], base)}
    if isinstance(result.get("init"), str) and result["init"] not in BUNDLED:
        result["init"] = _absolute(result["init"], base)
    return result


def _absolute(value: Any, base: Path) -> Any:
    if isinstance(value, str):
        return str((base / Path(value).expanduser()).resolve())
    if isinstance(value, list):
        return [_absolute(item, base) for item in value]
    if isinstance(value, dict):
        return {key: _absolute(item, base) for key, item in value.items()}
    return value


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
