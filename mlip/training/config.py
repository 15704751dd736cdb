"""The training configuration: one YAML file, checked key by key before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Steps = list[tuple[Fraction, NonNegativeFloat]]
Schedule = NonNegativeFloat | Steps
Tests = Path | list[Path] | dict[str, Path] | None


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Keys(Section):
    """Names of the labels in the data files; ``None`` lets the reader find them and report what it found."""

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    virial: str | None = None
    hessian: str | None = None
    weight: str | None = None
    group: str | None = None


class Data(Section):
    """Where the labelled structures are.

    ``valid`` is a file, a number of training frames held out (an integer), or a fraction of them (below 1).
    ``test`` is a file, a list of files, a mapping of names to files, or null. ``split_by: group`` (or
    ``molecule``, ``reaction``, ``trajectory``) keeps frames that have it in common on one side; by default it
    is ``group`` where any frame has one, else ``frame``. Copies of a structure stay on one side in any case.
    ``weights: trajectory`` (or another of these) lets each have the same say in the loss, however many frames
    it has; the weights in the file count as factors. ``species`` lists elements that the model must know
    beside those in the data.
    Relative paths in a configuration file are relative to that file; in an override, to the current folder.
    """

    train: Path
    valid: PositiveInt | Annotated[float, Field(gt=0.0, lt=1.0)] | Path
    test: Tests = None
    keys: Keys = Keys()
    format: str | None = None
    species: list[str] = Field(default_factory=list)
    split_seed: NonNegativeInt = 0
    split_by: Literal["frame", "group", "molecule", "reaction", "trajectory"] | None = None
    weights: Literal["file", "group", "molecule", "reaction", "trajectory"] = "file"
    max_frames: PositiveInt | None = None

    @field_validator("test")
    @classmethod
    def _own_names(cls, value: Tests) -> Tests:
        files = value if isinstance(value, list) else [value] if isinstance(value, Path) else []
        names = list(value) if isinstance(value, dict) else [file.stem for file in files]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{names.count(name)} files are called `{name}`; give names: {{name: file}}")
            if name in ("train", "valid"):
                raise ValueError(
                    f"`{name}` is the name of the {name} frames themselves in the report; "
                    "give names: {name: file}"
                )
        return value

    def test_files(self) -> dict[str, Path]:
        """Test files by name; a file given without a name is called after its stem."""
        if isinstance(self.test, dict):
            return dict(self.test)
        if self.test is None:
            return {}
        files = self.test if isinstance(self.test, list) else [self.test]
        return {file.stem: file for file in files}


class ReferenceEnergies(Section):
    """Energies of the isolated atoms, E0, subtracted before learning.

    ``method``: ``isolated`` reads one-atom frames from ``file`` (from the training file where none is given),
    ``least-squares`` fits them to the training energies, ``given`` takes ``values`` (symbol -> eV), and
    ``zero`` sets them to 0.
    """

    method: Literal["isolated", "least-squares", "given", "zero"] = "least-squares"
    file: Path | None = None
    values: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"method": value}
        if isinstance(value, dict) and value and not {"method", "file", "values"} & set(value):
            if not all(isinstance(v, int | float) for v in value.values()):
                raise ValueError(
                    "must map symbols to eV, for instance {H: -13.6, O: -2041.8}, or name a `method`"
                )
            return {"method": "given", "values": value}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ReferenceEnergies:
        if self.method == "given" and not self.values:
            raise ValueError("method `given` needs `values`, for instance {H: -13.6, O: -2041.8}")
        if self.method != "given" and self.values:
            raise ValueError(f"`values` are only used with method `given`, not `{self.method}`")
        if self.file is not None and self.method != "isolated":
            raise ValueError(f"`file` is only used with method `isolated`, not `{self.method}`")
        return self


class Loss(Section):
    """Weights of the terms of the loss, and its form; see ``mlip.training.loss``.

    Each weight is a number or a list of ``[fraction of the run, weight]`` steps, the first at fraction 0.
    """

    energy: Schedule = 1.0
    forces: Schedule = 100.0
    stress: Schedule = 0.0
    hessian: Schedule = 0.0
    hessian_subspace: Schedule = 0.0
    hvp: Schedule = 0.0
    form: Literal["mse", "huber", "mae"] = "mse"
    energy_form: Literal["mse", "huber", "mae"] | None = None
    hessian_form: Literal["mse", "huber", "mae"] = "mae"
    huber_delta: PositiveFloat = 0.01

    @field_validator("energy", "forces", "stress", "hessian", "hessian_subspace", "hvp")
    @classmethod
    def _ordered(cls, value: Schedule) -> Schedule:
        if isinstance(value, list):
            starts = [start for start, _ in value]
            if not starts or starts[0] != 0.0:
                raise ValueError("a schedule must begin at fraction 0, for instance [[0, 1], [0.7, 10]]")
            if starts != sorted(set(starts)):
                raise ValueError(f"the fractions of a schedule must increase, not {starts}")
        return value

    @model_validator(mode="after")
    def _something_to_learn(self) -> Loss:
        weights = (self.energy, self.forces, self.stress, self.hessian, self.hessian_subspace, self.hvp)
        if not any(max_weight(w) > 0 for w in weights):
            raise ValueError("all weights are 0: nothing would be learned")
        return self


def max_weight(schedule: Schedule) -> float:
    """Largest weight that a schedule reaches."""
    return max(value for _, value in schedule) if isinstance(schedule, list) else schedule


class Optimizer(Section):
    """``muon`` moves the matrices between hidden features by orthogonalised steps and the rest as AdamW does,
    see ``mlip.training.optimizer``; ``adamw``, or its AMSGrad form, moves all alike and wants about half the
    learning rate. Weight decay acts on matrices and higher tensors, not on vectors.
    """

    name: Literal["muon", "adamw"] = "muon"
    lr: PositiveFloat = 0.03
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    eps: PositiveFloat = 1e-8
    amsgrad: bool = False


class LearningRate(Section):
    """Learning rate over the run: linear warm-up, then decay to ``final`` times the initial value.

    ``warmup`` below 1 is a fraction of all steps, otherwise a number of steps.
    """

    warmup: NonNegativeFloat = 0.02
    decay: Literal["cosine", "linear", "exponential", "none"] = "cosine"
    final: Fraction = 0.01

    @model_validator(mode="after")
    def _positive_end(self) -> LearningRate:
        if self.decay == "exponential" and self.final == 0.0:
            raise ValueError("`final` must be above 0 for an exponential decay")
        return self


class EarlyStopping(Section):
    """Stop at a validation when its loss has not improved for ``patience`` epochs, or more."""

    patience: PositiveInt


class RelaxationMetrics(Section):
    """Relax held-out structures with the averaged weights every ``every`` epochs and after the last.

    ``file`` holds relaxations by the reference method: of each trajectory the first frame is the start, the
    last its minimum; a frame outside of trajectories is a minimum, which is to be kept. ``fmax`` in eV/Å.
    """

    file: Path
    every: PositiveInt = 10
    fmax: PositiveFloat = 0.05
    steps: PositiveInt = 200


class TrainConfig(Section):
    """Everything that decides a training run. See the sections for their keys.

    ``init`` names a trained model whose weights, species, cutoff, E0s and normalisation the run starts
    with; the section ``model`` may then add a head for Hessians, or ask for more ``num_channels``,
    ``num_layers`` or ``lmax_hidden``: the larger model computes the same at first. ``freeze: backbone``
    leaves all but that head as it is: only the Hessian terms of the loss count, no forces are computed, and
    energies and forces stay those of ``init``.
    """

    model: dict[str, Any]
    init: str | None = None
    freeze: Literal["none", "backbone"] = "none"
    cutoff: PositiveFloat = Field(default=5.0, validation_alias=AliasChoices("cutoff", "r_max"))
    data: Data
    e0s: ReferenceEnergies = ReferenceEnergies()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    schedule: LearningRate = LearningRate()
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    gradient_clip: PositiveFloat | None = 10.0
    batch_size: PositiveInt = 5
    valid_batch_size: PositiveInt = 50
    max_epochs: PositiveInt = 100
    max_time: PositiveFloat | None = None
    stop_after: PositiveInt | None = None
    early_stopping: EarlyStopping | None = None
    valid_every: PositiveInt = 1
    log_every: PositiveInt = 1
    checkpoint_every: PositiveInt = 1
    relaxation_metrics: RelaxationMetrics | None = None
    seed: NonNegativeInt = 0
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "auto"
    num_threads: PositiveInt | None = None
    output: Path = Path("run")
    tensorboard: bool = True
    plots: bool = True
    metadata: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _frozen_sensibly(self) -> TrainConfig:
        loss = self.loss
        if self.freeze == "backbone" and self.init is None:
            raise ValueError("`freeze: backbone` needs a trained model as `init`")
        if self.freeze == "backbone" and not any(
            max_weight(w) > 0 for w in (loss.hessian, loss.hessian_subspace, loss.hvp)
        ):
            raise ValueError(
                "`freeze: backbone` trains the head for Hessians alone: set `loss.hessian`, or `loss.hvp`"
            )
        return self

    @field_validator("model", mode="before")
    @classmethod
    def _model_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and not isinstance(value.get("name"), str):
            raise ValueError("needs a `name`, for instance {name: polyad}")
        return value


MAY_CHANGE_ON_RESUME = frozenset(
    {
        "max_epochs",
        "max_time",
        "stop_after",
        "early_stopping",
        "checkpoint_every",
        "log_every",
        "valid_batch_size",
        "device",
        "num_threads",
        "tensorboard",
        "plots",
        "metadata",
        "output",
        "data.test",
        "relaxation_metrics",
    }
)
"""Keys that a resumed run may change. Only `max_epochs` alters the weights that an epoch ends with: learning
rate and loss weights follow the new length from where the run is."""


def dump(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON-able values."""
    return config.model_dump(mode="json")
