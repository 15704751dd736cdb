"""Ctrl-C and SIGTERM as a wish to stop after the present step."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import FrameType, TracebackType

PATIENCE: Final = 1.0
"""Seconds after which a second signal acts as if there were no handler."""

SIGNALLED: Final = 128
"""Added to the number of the signal to make the exit status, as shells do."""


class Interruption:
    """Within its `with` block, a first signal only sets `number`.

    Attributes:
        number: Of the signal, or 0.
    """

    def __init__(self) -> None:
        """Not yet listening."""
        self.number = 0
        self._when = 0.0
        self._old: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether there was a signal."""
        return self.number != 0

    def __enter__(self) -> Interruption:
        """Listen; outside the main thread, where Python cannot, do nothing."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        self._restore()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.number == 0:
            self.number, self._when = number, now
        elif now - self._when > PATIENCE:
            self._restore()
            os.kill(os.getpid(), number)

    def _restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}
