"""Relaxation of many structures by the workers of a Dask cluster."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlip.errors import InputError
from mlip.search.batch_relax import BATCH_ATOMS, Outcome, relax_many

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ase import Atoms

CHUNK_ATOMS: Final = 2 * BATCH_ATOMS
"""Atoms that are sent to a worker together."""

AHEAD: Final = 2
"""Chunks that are sent for each thread of the cluster before the first has come back."""

CONNECT_SECONDS: Final = 20.0

_LOADED = threading.local()


@dataclass(frozen=True)
class ModelFile:
    """A model as it travels: the bytes of its file, which no worker needs to have."""

    content: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.content).hexdigest()

    def load(self, device: str, dtype: str) -> Any:
        """The batched calculator; made once for each thread of a worker."""
        from mlip.calculators.batch import BatchCalculator

        key = (self.digest, device, dtype)
        if getattr(_LOADED, "key", None) != key:
            with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
                file.write(self.content)
                file.flush()
                _LOADED.calculator = BatchCalculator(Path(file.name), device=device, dtype=dtype)
            _LOADED.key = key
        return _LOADED.calculator


def relax_chunk(
    model: ModelFile, device: str, dtype: str, chunk: list[tuple[int, Atoms]], options: dict[str, Any]
) -> list[Outcome]:
    """What a worker does: relax some structures, and say of each which one it was."""
    places = [place for place, _ in chunk]
    outcomes = relax_many([atoms for _, atoms in chunk], model.load(device, dtype), **options)
    return [replace(outcome, place=places[outcome.place]) for outcome in outcomes]


def relax_on_cluster(
    structures: Iterable[Atoms],
    model: str | Path,
    scheduler: str,
    *,
    device: str = "auto",
    dtype: str = "float64",
    chunk_atoms: int = CHUNK_ATOMS,
    **options: Any,
) -> Iterator[Outcome]:
    """`relax_many` on a Dask cluster; the model's file is sent to the workers, which need polyad alone.

    Chunks that a worker could not finish are tried once more, structure by structure, so that one that brings
    workers down fails alone.

    Args:
        structures: Where to start; taken as there is room.
        model: Name of a bundled model, or a file.
        scheduler: Address of the scheduler, for instance `tcp://host:8786`.
        device: Of the workers; as for `MLIPCalculator`.
        dtype: As for `MLIPCalculator`.
        chunk_atoms: Atoms that are sent to a worker together.
        **options: Of `relax_many`.

    Raises:
        InputError: Dask is not installed, no scheduler answers, or it has no workers.
    """
    from mlip.checkpoint import resolve_model

    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise InputError(
            'a scheduler needs the package "distributed", not installed: pip install "polyad[distributed]"'
        ) from None
    content = ModelFile(resolve_model(model).read_bytes())
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"no Dask scheduler answers at {scheduler} ({reason[:200]}): start one with `dask scheduler`"
        ) from None
    with client:
        threads = sum(client.nthreads().values())
        if threads == 0:
            raise InputError(
                f"the Dask scheduler at {scheduler} has no workers: start some with `dask worker {scheduler}`"
            )
        shared = client.scatter(content, broadcast=True)
        job = (shared, device, dtype)
        yield from _distribute(client, job, _chunks(structures, chunk_atoms), options, AHEAD * threads)


def _chunks(structures: Iterable[Atoms], atoms: int) -> Iterator[list[tuple[int, Atoms]]]:
    chunk: list[tuple[int, Atoms]] = []
    size = 0
    for place, structure in enumerate(structures):
        if chunk and size + len(structure) > atoms:
            yield chunk
            chunk, size = [], 0
        chunk.append((place, structure))
        size += len(structure)
    if chunk:
        yield chunk


def _distribute(
    client: Any,
    job: tuple[Any, str, str],
    chunks: Iterator[list[tuple[int, Atoms]]],
    options: dict[str, Any],
    ahead: int,
) -> Iterator[Outcome]:
    """Keep the workers busy; yields what comes back."""
    from distributed import as_completed

    running: dict[Any, list[tuple[int, Atoms]]] = {}
    coming = as_completed(loop=client.loop)

    def send(chunk: list[tuple[int, Atoms]]) -> None:
        future = client.submit(relax_chunk, *job, chunk, options, pure=False)
        running[future] = chunk
        coming.add(future)

    def send_next() -> None:
        chunk = next(chunks, None)
        if chunk is not None:
            send(chunk)

    for _ in range(ahead):
        send_next()
    try:
        while running:
            future = next(coming)
            chunk = running.pop(future)
            if future.status == "finished":
                yield from future.result()
                send_next()
            elif len(chunk) > 1:
                for single in chunk:
                    send([single])
            else:
                (place, _), error = chunk[0], future.exception()
                reason = " ".join(f"its worker failed: {type(error).__name__}: {error}".split())
                yield Outcome(place=place, status="failed", message=reason[:500], result=None, novelty=None)
                send_next()
            future.release()
    finally:
        client.cancel(list(running))
