"""The worker's side of a benchmark: a process that prepares one task and runs it when told.

Every package is measured in a process of its own, perhaps with another Python, so this file needs nothing but
the standard library. Requests and replies are one JSON object a line. Requests come on standard input, and
replies go to the file descriptor that the first argument names, because packages print what they like.

    {"do": "prepare", "task": "energy", ...}    -> facts about the task
    {"do": "run", "settle": 1, "count": 5}      -> {"seconds": [...], "peak_memory_mb": ...}
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Task:
    """Something to time.

    Attributes:
        run: What is timed.
        before: Done before each run, outside the clock.
        facts: Describes the task: atoms, edges, parameters, ...
    """

    run: Callable[[], Any]
    before: Callable[[], None] = _nothing
    facts: dict[str, Any] = field(default_factory=dict)


def serve(prepare: dict[str, Callable[[dict[str, Any]], Task]]) -> None:
    """Answer requests until standard input ends.

    Args:
        prepare: Makes each kind of task from the options of the request.
    """
    replies = os.fdopen(int(sys.argv[1]), "w")
    task: Task | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "prepare":
                task = None
                task = prepare[request["task"]](request)
                reply = {**task.facts, "peak_memory_mb": peak_memory()}
            elif task is None:
                raise RuntimeError("nothing has been prepared")
            else:
                reply = _run(task, request["settle"], request["count"])
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def peak_memory() -> float:
    """Peak resident memory of this process so far, MB (1e6 bytes)."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def _run(task: Task, settle: int, count: int) -> dict[str, Any]:
    """Untimed runs, then timed ones."""
    seconds = []
    for i in range(settle + count):
        task.before()
        start = time.perf_counter()
        task.run()
        stop = time.perf_counter()
        if i >= settle:
            seconds.append(stop - start)
    return {"seconds": seconds, "peak_memory_mb": peak_memory()}
