"""What does each angular product cost, how exact is it, and which bilinear maps can it reach?

Prints one JSON line per (kind, L), all three operands up to degree L:

* rank and error of the factors;
* equivariance error under proper and under improper rotations, relative, at the chosen precision;
* expressivity: the dimension of the set of bilinear maps reached with one channel between equivariant linear
  maps (one scale per degree of x, y and z, and the product's own weights), and with many channels summed;
* median and quartiles of forward and forward-plus-backward times, with a one-channel y (messages) and with as
  many channels as x (node products), next to those of the exact Clebsch–Gordan product.

    python examples/benchmarks/angular_products.py --degrees 1 2 3 --rows 2000 --channels 64
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mlip.errors import InputError
from mlip.o3 import Product, representation

KINDS = ("cg", "quadrature", "cp", "cp-all")


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(arguments.seed)
    dtype = getattr(torch, arguments.dtype)
    common = {
        "benchmark": "angular_products",
        "commit": _commit(),
        "device": _device_name(arguments.device),
        "dtype": arguments.dtype,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "rows": arguments.rows,
        "channels": arguments.channels,
    }
    for degree in arguments.degrees:
        baseline: dict[str, dict[str, float]] | None = None
        for kind in dict.fromkeys(("cg", *arguments.kinds)):  # the baseline comes first
            try:
                product = Product(kind, degree, degree, degree).to(arguments.device)
            except InputError as error:
                print(error, file=sys.stderr)
                continue
            result = {**common, "kind": kind, "degree": degree, "rank": product.rank, "error": product.error}
            result.update(expressivity(kind, degree))
            product.to(dtype)
            result.update(equivariance(product, degree, arguments.device, dtype))
            times = timings(product, arguments, dtype)
            baseline = times if baseline is None else baseline
            result["milliseconds"] = times
            result["speed_relative_to_cg"] = {
                case: round(baseline[case]["median"] / times[case]["median"], 2) for case in times
            }
            result["peak_memory_mb"] = _peak_memory(arguments.device)
            if kind in arguments.kinds:
                print(json.dumps(result), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--degrees", nargs="+", type=int, default=[1, 2, 3], metavar="L")
    parser.add_argument("--rows", type=int, default=500, help="edges or nodes")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--runs", type=int, default=20, help="timed runs after three for warming up")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def expressivity(kind: str, degree: int) -> dict[str, int]:
    """Dimensions of the set of bilinear maps that one channel, and many channels together, can reach."""
    product = Product(kind, degree, degree, degree)  # type: ignore[arg-type]
    dimension = (degree + 1) ** 2
    expand = torch.zeros(dimension, degree + 1, dtype=torch.float64)
    for l in range(degree + 1):
        expand[l * l : (l + 1) ** 2, l] = 1
    eye = torch.eye(dimension, dtype=torch.float64)
    x, y = eye.reshape(dimension, 1, dimension, 1), eye.reshape(1, dimension, dimension, 1)

    def tensor(parameters: torch.Tensor) -> torch.Tensor:
        before_x, before_y, after, weights = parameters.split([degree + 1] * 3 + [product.num_weights])
        scaled_x = x * (expand @ before_x)[:, None]
        scaled_y = y * (expand @ before_y)[:, None]
        z = product(scaled_x, scaled_y, weights[:, None])
        return (z * (expand @ after)[:, None]).flatten()

    generator = torch.Generator().manual_seed(0)
    size = 3 * (degree + 1) + product.num_weights
    draw = lambda: torch.randn(size, generator=generator, dtype=torch.float64)  # noqa: E731
    jacobian = torch.autograd.functional.jacobian(tensor, draw(), strategy="forward-mode", vectorize=True)
    # more draws than there are Clebsch–Gordan paths of any parity
    span = torch.stack([tensor(draw()) for _ in range((degree + 1) ** 3 + 8)])
    return {
        "expressivity_one_channel": _rank(jacobian),
        "expressivity_many_channels": _rank(span),
    }


def _rank(matrix: torch.Tensor) -> int:
    return int(torch.linalg.matrix_rank(matrix, rtol=1e-9))


def equivariance(product: Product, degree: int, device: str, dtype: torch.dtype) -> dict[str, float]:
    """Largest relative violation over ten random rotations and ten random improper ones."""
    dimension = (degree + 1) ** 2
    x, y = (torch.randn(50, dimension, 4, dtype=torch.float64) for _ in range(2))
    expected = product(x.to(device, dtype), y.to(device, dtype)).cpu().double()
    worst = {1: 0.0, -1: 0.0}
    for _ in range(10):
        matrix = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
        for sign in (1, -1):
            turn = representation(degree, matrix * matrix.det().sign() * sign)
            out = product((turn @ x).to(device, dtype), (turn @ y).to(device, dtype)).cpu().double()
            error = float((out - turn @ expected).norm() / expected.norm())
            worst[sign] = max(worst[sign], error)
    return {"equivariance_error_proper": worst[1], "equivariance_error_improper": worst[-1]}


def timings(
    product: Product, arguments: argparse.Namespace, dtype: torch.dtype
) -> dict[str, dict[str, float]]:
    """Milliseconds of each case."""
    rows, channels, device = arguments.rows, arguments.channels, arguments.device
    dx, dy = (product.lmax_x + 1) ** 2, (product.lmax_y + 1) ** 2
    new = lambda *shape: torch.randn(*shape, dtype=dtype, device=device)  # noqa: E731
    results = {}
    for case, channels_y in (("message", 1), ("node", channels)):
        x = new(rows, dx, channels).requires_grad_()
        y = new(rows, dy, channels_y).requires_grad_()
        weights = new(rows, product.num_weights, channels).requires_grad_()
        operands = (x, y, weights)

        def forward(operands: tuple[torch.Tensor, ...] = operands) -> None:
            with torch.no_grad():
                product(*operands)

        def both(operands: tuple[torch.Tensor, ...] = operands) -> None:
            torch.autograd.grad(product(*operands).square().sum(), operands)

        results[f"{case}_forward"] = _time(forward, arguments)
        results[f"{case}_forward_backward"] = _time(both, arguments)
    return results


def _time(function: Callable[[], None], arguments: argparse.Namespace) -> dict[str, float]:
    samples = []
    for run in range(arguments.runs + 3):
        _synchronise(arguments.device)
        start = time.perf_counter()
        function()
        _synchronise(arguments.device)
        if run >= 3:
            samples.append(1e3 * (time.perf_counter() - start))
    quartiles = np.percentile(samples, [25, 50, 75])
    return {name: round(float(q), 4) for name, q in zip(("q1", "median", "q3"), quartiles, strict=True)}


def _synchronise(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(device: str) -> float:
    if torch.device(device).type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1)


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


if __name__ == "__main__":
    main()
