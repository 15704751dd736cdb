"""What the benchmarks share: worker processes, taking turns, quartiles, and the line of JSON.

Each contender runs in a process of its own (`workers/`), with the same number of threads, and they take turns
(A B C A B C ...), so that a drift of the machine's speed hits all alike. This process only waits meanwhile. A
ratio is the quotient of two medians; its quartiles are over the turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
PEERS = {"mace": "mace_worker.py", "nequip": "nequip_worker.py"}
"""Package of a peer, and the script that runs it."""

MODELS_HELP = (
    "our models: training configurations (.yaml), checkpoints (.safetensors), names of bundled models, "
    "or the preset `small`"
)


@dataclass(frozen=True)
class Contender:
    """One thing to time.

    Attributes:
        name: As printed, for instance `mace 64x0e`.
        package: `polyad`, `mace` or `nequip`.
        python: Interpreter that has the package.
        task: Kind of task, see the worker.
        options: Of the task.
    """

    name: str
    package: str
    python: str
    task: str
    options: dict[str, Any] = field(default_factory=dict)


class Worker:
    """A process that runs the tasks of one contender; use as a context manager."""

    def __init__(self, contender: Contender, *, threads: int) -> None:
        self.contender = contender
        script = PEERS.get(contender.package, "polyad_worker.py")
        environment = dict(os.environ)
        if contender.package in PEERS:
            environment.pop("PYTHONPATH", None)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = str(threads)
        self._threads = threads
        replies, writable = os.pipe()
        self._process = subprocess.Popen(
            [contender.python, str(HERE / "workers" / script), str(writable)],
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
            text=True,
            env=environment,
            pass_fds=[writable],
        )
        os.close(writable)
        self._replies = os.fdopen(replies)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._replies.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The reply to a request; ends the program with the worker's message where it failed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            reply = json.loads(self._replies.readline() or "{}")
        except BrokenPipeError:
            reply = {}
        if not reply or "error" in reply:
            sys.exit(f"{self.contender.name}: {reply.get('error', 'its process ended')}")
        return dict(reply)

    def prepare(self) -> dict[str, Any]:
        """Make the task; returns facts about it."""
        options = {**self.contender.options, "threads": self._threads}
        return self.ask(do="prepare", task=self.contender.task, **options)


@dataclass
class Result:
    """What was measured of one contender: facts, and seconds of each run, turn by turn."""

    contender: Contender
    facts: dict[str, Any]
    turns: list[list[float]] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        """All runs."""
        return [value for turn in self.turns for value in turn]

    def record(self) -> dict[str, Any]:
        """The result as JSON values."""
        milliseconds = quartiles([1e3 * s for s in self.seconds])
        return {
            "name": self.contender.name,
            "package": self.contender.package,
            **self.facts,
            "runs": len(self.seconds),
            "milliseconds": milliseconds,
            "milliseconds_per_atom": round(milliseconds["median"] / self.facts["atoms"], 5),
        }

    def times_faster_than(self, other: Result) -> dict[str, float]:
        """How many of these runs fit into one of the other's: ratio of medians, its quartiles over turns."""
        pairs = zip(self.turns, other.turns, strict=True)
        ratios = quartiles([float(np.median(theirs) / np.median(ours)) for ours, theirs in pairs])
        return {**ratios, "median": _rounded(float(np.median(other.seconds) / np.median(self.seconds)))}


def take_turns(
    contenders: Sequence[Contender], *, threads: int, turns: int, runs: int, warmup: int = 4
) -> list[Result]:
    """Time the contenders in turn.

    Args:
        contenders: What to time.
        threads: Of each.
        turns: Number of rounds.
        runs: Timed runs of each contender in each round; one more, untimed, goes before them.
        warmup: Untimed runs before the first round.
    """
    with ExitStack() as stack:
        workers, results = [], []
        for contender in contenders:
            worker = stack.enter_context(Worker(contender, threads=threads))
            note(f"preparing {contender.name}")
            results.append(Result(contender, worker.prepare()))
            worker.ask(do="run", settle=warmup, count=0)
            workers.append(worker)
        for turn in range(turns):
            note(f"round {turn + 1} of {turns}")
            for worker, result in zip(workers, results, strict=True):
                reply = worker.ask(do="run", settle=1, count=runs)
                result.turns.append(reply["seconds"])
                result.facts["peak_memory_mb"] = reply["peak_memory_mb"]
    return results


def report(common: Mapping[str, Any], results: Iterable[Result], *, across: bool = False) -> None:
    """Print one line of JSON per result; ours carry the ratios to the peers.

    Args:
        common: Facts about the whole run.
        results: All contenders.
        across: Also compare with peers of another precision.
    """
    results = list(results)
    peers = [r for r in results if r.contender.package in PEERS]
    for result in results:
        line = {**common, **result.record()}
        if result.contender.package not in PEERS and peers:
            line["times_faster_than"] = {
                peer.contender.name: result.times_faster_than(peer)
                for peer in peers
                if across or peer.contender.options["dtype"] == result.contender.options["dtype"]
            }
        emit(line)


def emit(line: Mapping[str, Any]) -> None:
    """Print a line of JSON."""
    print(json.dumps(line, ensure_ascii=False), flush=True)


def note(text: str) -> None:
    """Say what goes on, on standard error."""
    print(text, file=sys.stderr, flush=True)


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """First quartile, median, third quartile."""
    q1, median, q3 = (float(q) for q in np.percentile(values, [25, 50, 75]))
    return {"q1": _rounded(q1), "median": _rounded(median), "q3": _rounded(q3)}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def common_facts(benchmark: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What all results of a run share; `load` is that of the machine at the start and should be near 0."""
    load = os.getloadavg()[0]
    if load > 0.5:
        note(f"the machine is busy (load {load:.1f}): these times will not mean much")
    return {
        "benchmark": benchmark,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "device": device(),
        "load": round(load, 2),
        **{name: getattr(arguments, name) for name in ("dtype", "cutoff") if hasattr(arguments, name)},
    }


def commit() -> str:
    """Commit of the package that is measured, with `-dirty` where its files were changed since."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device() -> str:
    """Name of the processor, and how many of its cores there are."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return f"{name}, {os.cpu_count()} cores"


def find_peers(pythons: Iterable[str]) -> dict[str, str]:
    """Interpreter of each known peer among those given; ends the program where one has none."""
    found: dict[str, str] = {}
    test = f"import importlib.util as u; print(' '.join(n for n in {tuple(PEERS)} if u.find_spec(n)))"
    for python in pythons:
        try:
            output = subprocess.run(
                [python, "-c", test], capture_output=True, text=True, check=True, cwd="/"
            ).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"{python} is no working Python: {error}")
        if not output.split():
            sys.exit(f"{python} has none of {', '.join(PEERS)}")
        found.update(dict.fromkeys(output.split(), python))
    return found


def ours(model: str, task: str, **options: Any) -> Contender:
    """This package with a preset, a training configuration or a checkpoint."""
    if "/" in model or Path(model).suffix:
        path = Path(model).resolve()
        if not path.is_file():
            sys.exit(f"there is no file {model}")
        name = f"polyad {path.parent.name}/{path.name}"
        return Contender(name, "polyad", sys.executable, task, {**options, "model": str(path)})
    return Contender(f"polyad {model}", "polyad", sys.executable, task, {**options, "model": model})


def add_options(parser: argparse.ArgumentParser, *, turns: int, runs: int, threads: int = 2) -> None:
    """Options that all benchmarks with contenders have."""
    parser.add_argument(
        "--config",
        nargs="+",
        default=["small"],
        metavar="MODEL",
        help=MODELS_HELP,
    )
    parser.add_argument(
        "--peer-python",
        nargs="+",
        default=[],
        metavar="PATH",
        help="Python of each peer's environment; see README.md. Without one, only ours is measured.",
    )
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--cutoff", type=float, default=5.0, help="of all models, Å")
    parser.add_argument(
        "--turns", type=int, default=turns, help="rounds in which each contender has its turn"
    )
    parser.add_argument("--runs", type=int, default=runs, help="timed runs in each turn")
