"""The model card, written from what was measured: no number in it is typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlip.checkpoint import read_header, resolve_model

TARGETS = {
    "energy, MAE, meV/atom": 1.5,
    "forces, MAE, meV/Å": 40.0,
    "relaxations that reach the minimum, %": 98.0,
    "frequencies, MAE, cm⁻¹": 15.0,
}


def table(columns: list[str], rows: list[list[Any]]) -> str:
    """In Markdown."""
    lines = [columns, ["---"] * len(columns), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(value: float | None) -> str:
    """Three figures."""
    return "–" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def error_rows(parts: dict[str, dict[str, float]], total: int) -> list[list[str]]:
    """Rows of one kind of division, most frames first."""
    order = sorted(parts, key=lambda name: -parts[name]["frames"])
    return [
        [
            name,
            f"{100 * parts[name]['frames'] / total:.0f} %",
            f"{shown(parts[name]['energy_mae'])} ({shown(parts[name]['energy_rmse'])})",
            f"{shown(parts[name]['forces_mae'])} ({shown(parts[name]['forces_rmse'])})",
        ]
        for name in order
    ]


def measured(found: dict[str, Any]) -> dict[str, float | None]:
    """The numbers that have a target."""
    relaxed, second = found["relaxations"].get("molecules"), found["second_derivatives"]
    best = next(iter(second["methods"].values())) if second else None
    values = [
        found["errors"]["all"]["energy_mae"],
        found["errors"]["all"]["forces_mae"],
        100 * relaxed["reached_share"] if relaxed else None,
        best["frequency_mae"] if best else None,
    ]
    return dict(zip(TARGETS, values, strict=True))


def data_section(summary: dict[str, Any]) -> str:
    """Which data the model learnt from."""
    names = ["train", "valid", "test"]
    parts = [summary["parts"][name] for name in names]
    rows = [
        ["molecules and complexes", *(p["sources"] for p in parts)],
        ["scaffolds", *(p["groups"] for p in parts)],
        ["frames", *(f"{p['frames']:,}" for p in parts)],
        ["atoms per frame, mean", *(f"{p['atoms_per_frame']:.1f}" for p in parts)],
        ["Hessians", *(p["hessians"] for p in parts)],
        ["force components, RMS, eV/Å", *(f"{p['force_rms_eV_per_A']:.2f}" for p in parts)],
    ]
    kinds = parts[0]["frames_by_kind"]
    elements = parts[0]["atoms_by_element"]
    total, atoms = sum(kinds.values()), sum(elements.values())
    return "\n\n".join(
        [
            f"{summary['level_of_theory']}; {summary['licence']}; made by {summary['source']}.",
            table(["", *names], rows),
            "Training frames by kind: "
            + ", ".join(f"{kind} {100 * n / total:.1f} %" for kind, n in kinds.items())
            + ". Atoms by element: "
            + ", ".join(f"{e} {100 * n / atoms:.1f} %" for e, n in elements.items())
            + ".",
            f"Besides, for training, {summary['explored']:,} frames of reactions that an earlier state "
            "of the model found by itself.",
        ]
    )


def error_section(found: dict[str, Any]) -> str:
    """Errors by what the frames are for, by kind, by element."""
    errors = found["errors"]
    total = errors["all"]["frames"]
    columns = ["frames", "share", "energy, meV/atom", "forces, meV/Å"]
    whole = error_rows({"**all**": errors["all"]}, total)
    if errors["dicarbonyls"]:
        whole += error_rows({"1,3-dicarbonyls and their enols": errors["dicarbonyls"]}, total)
    elements = sorted(errors["by_element"].items())
    return "\n\n".join(
        [
            f"MAE (RMSE) on {total:,} frames of {found['molecules']} molecules and complexes with "
            f"{found['scaffolds']} scaffolds that are in no other part of the data.",
            table(columns, whole + error_rows(errors["by_family"], total)),
            "By kind of frame:",
            table(columns, error_rows(errors["by_kind"], total)),
            "Forces by element, meV/Å:",
            table(
                ["", *(e for e, _ in elements)],
                [
                    [name, *(shown(e[key]) for _, e in elements)]
                    for name, key in (("MAE", "forces_mae"), ("RMSE", "forces_rmse"))
                ],
            ),
        ]
    )


def use_section(found: dict[str, Any]) -> str:
    """Relaxations, frequencies, dynamics."""
    out = []
    for name, r in found["relaxations"].items():
        out.append(
            f"*Relaxations of {name}*, from where the reference started, both to 0.003 eV/Å: "
            f"{r['relaxations']}, of which {r['converged']} converged and {r['reached']} "
            f"({100 * r['reached_share']:.1f} %) came within 0.05 Å RMSD of the reference's "
            f"minimum (median {r['rmsd_median']:.3f} Å, 90 % within {r['rmsd_90_percent']:.3f} Å), "
            f"{r['steps_mean']:.0f} steps on average. Energies at the minima that were reached: MAE "
            f"{shown(r['energy_mae_of_reached'])} meV/atom."
        )
    second = found["second_derivatives"]
    if second:
        columns = [
            "Hessian",
            "elements, MAE, eV/Å²",
            "lowest mode, mean cosine",
            "frequencies, MAE (RMSE, mean), cm⁻¹",
            "zero-point energy, MAE, meV",
        ]
        rows = [
            [
                {"direct": "the head's", "autograd": "by differentiation"}[method],
                f"{m['mae_eV_per_A2']:.3f}",
                f"{m['lowest_mode_cosine']:.2f}",
                f"{m['frequency_mae']:.1f} ({m['frequency_rmse']:.1f}, {m['frequency_mean']:+.1f})",
                f"{m['zpe_mae_meV']:.1f}",
            ]
            for method, m in second["methods"].items()
        ]
        out.append(
            f"*Second derivatives* of {second['frames']} frames, at minima, at reacting and at distorted "
            f"geometries; frequencies and zero-point energies at the {second['minima']} minima of the "
            f"reference.\n\n{table(columns, rows)}"
        )
    if found["dynamics"]:
        out.append(dynamics(found["dynamics"]))
    return "\n\n".join(out)


def dynamics(found: dict[str, Any]) -> str:
    """What became of molecules at constant energy."""
    courses = found["courses"]
    left = [course for course in courses if not course["exploded"]]
    drifts = sorted(1000 * abs(course["drift"]) for course in left)
    middle = shown(drifts[len(drifts) // 2] if drifts else None)
    return (
        f"*Dynamics at constant energy*, about {found['temperature']:.0f} K, {found['picoseconds']:g} ps for "
        f"{len(courses)} molecules, {found['timestep_fs']:g} fs a step, float32: {len(courses) - len(left)} "
        f"ran away, {sum(course['reacted'] for course in left)} made or broke bonds; drift in all that time "
        f"at most {shown(drifts[-1] if drifts else None)} meV/atom, median {middle}."
    )


def failure_section(found: dict[str, Any]) -> str:
    """The worst of what was measured."""
    errors = found["errors"]
    worst = sorted(errors["by_kind"].items(), key=lambda item: -item[1]["forces_mae"])[:3]
    elements = sorted(errors["by_element"].items(), key=lambda item: -item[1]["forces_mae"])[:3]
    lines = [
        "It knows no charge, no spin, no other elements (these are refused), no periodic matter. Bonds that "
        "break go to the closed-shell limit of GFN2-xTB, which is not what such a bond does.",
        "The largest force errors are on the kinds "
        + ", ".join(f"{kind} ({shown(e['forces_mae'])} meV/Å)" for kind, e in worst)
        + " and the elements "
        + ", ".join(f"{element} ({shown(e['forces_mae'])})" for element, e in elements)
        + ".",
    ]
    missed = [m for r in found["relaxations"].values() for m in r["missed"]]
    if missed:
        lines.append("Relaxations that ended elsewhere: " + ", ".join(f"`{m}`" for m in missed[:40]) + ".")
    return "\n\n".join(lines)


def write_card(path: Path, model: str, summary: dict[str, Any], found: dict[str, Any]) -> None:
    """The card of a model file; `found` is what `evaluation.evaluate` returned."""
    header, size = read_header(model), resolve_model(model).stat().st_size
    reached = measured(found)
    rows = [[name, shown(reached[name]), shown(target)] for name, target in TARGETS.items()]
    text = f"""# gfn2-organic

A fast stand-in for GFN2-xTB, and no better than it: energies, forces and Hessians of neutral closed-shell
molecules of H, C, N, O, F, P, S and Cl of up to 20 heavy atoms, alone and in pairs, near minima, strongly
distorted, and reacting.

{table(["on scaffolds it has not seen", "measured", "aim"], rows)}

Architecture `{header["model"]}`, cutoff {header["cutoff"]:g} Å, {size / 1e6:.1f} MB, licence
{header.get("license", header.get("metadata", {}).get("license", "MIT"))}.

## Data

{data_section(summary)}

[README.md](README.md) tells how they are made.

## Errors

{error_section(found)}

## In use

{use_section(found)}

## Where it fails

{failure_section(found)}
"""
    path.write_text(text, encoding="utf-8")
