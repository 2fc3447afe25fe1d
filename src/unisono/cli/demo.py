"""``unisono demo``: the whole main job on a made-up world, in under two minutes."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from unisono.cli import common

#: What is predicted: three bits, one told by the picture, one by the sound, one by the caption.
TARGET = "octant"
_COLUMNS = ("key", "split", "image", "caption", "sound", "table", TARGET)
#: Where the demonstration leaves its table, model and report.
FOLDER = Path("unisono-demo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "--out", type=Path, default=FOLDER, metavar="DIR", help="where to leave table, model and report (default unisono-demo)"
    )
    parser.add_argument("--rows", type=int, default=900, metavar="N", help="scenes to make up (default 900)")
    parser.add_argument("--budget", default="75s", metavar="TIME", help="time for the fit (default 75s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the world and the training (default 0)")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help="change a setting of the recipe")
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make a table, inspect it, fit, evaluate with sources missing, predict, and say what to type next."""
    from unisono.model.estimator import Model
    from unisono.model.fit import fit_table
    from unisono.model.inspect import inspect_table
    from unisono.model.options import FitOptions, parse_duration
    from unisono.table.write import write_batches

    began = time.monotonic()
    common.show_notes(arguments.quiet)
    out: Path = arguments.out
    talk = not arguments.json
    table = _make_table(arguments)
    _say(
        talk,
        f"A made-up world: {arguments.rows} scenes as pictures, captions, sounds and a table, 15 % of the cells missing.\n"
        f"The column {TARGET!r} is three bits: the picture tells one, the sound one, the caption one.\n{table}",
    )

    _say(talk, f"\n$ unisono inspect {table} --target {TARGET}")
    found = inspect_table(table, target=TARGET)
    if talk:
        common.print_table([[c.name, c.modality or c.role, f"{c.missing}", c.reason] for c in found.columns],
                           ["column", "modality", "missing", "why"], {3: 80})  # fmt: skip

    model = out / "model"
    _say(talk, f"\n$ unisono fit {table} --target {TARGET} --split split --key key --budget {arguments.budget} --out {model}")
    options = FitOptions(
        targets={TARGET: None}, settings=tuple(arguments.settings),
        split="split", key="key", budget=parse_duration(arguments.budget), seed=arguments.seed,
        out=model, force=True, progress=not arguments.quiet,
    )  # fmt: skip
    fitted = fit_table(table, options)

    _say(talk, f'\n$ unisono evaluate {model} {table} --where "split = test"')
    measured = fitted.metrics["test"]["targets"][TARGET]
    if talk:
        rows = [["everything", common.figure(measured["accuracy"]), common.figure(measured["log_loss"])]]
        rows += [
            ["only " + " + ".join(m["present"]), *(common.figure(m["targets"][TARGET][k]) for k in ("accuracy", "log_loss"))]
            for m in fitted.metrics["missing"]
        ]
        common.print_table(rows, ["given", "accuracy", "log loss"])

    predictions = out / "predictions.parquet"
    _say(talk, f"\n$ unisono predict {model} {table} -o {predictions}")
    count = write_batches(str(predictions), Model.load(model).predictor().predictions(table))
    report = model / "report.html"
    seconds = time.monotonic() - began
    if arguments.json:
        common.print_json({"out": str(out), "predictions": count, "seconds": round(seconds, 1), "report": str(report), **fitted.metrics})
        return 0
    print(f"{count} predictions. All of it took {seconds:.0f} s.\n\nOpen the report: {report}\n\nNext, with a table of your own:")
    print("  unisono inspect pets.csv\n  unisono fit pets.csv --target adopted --budget 5m --out pets-model")
    print("  unisono predict pets-model new.csv -o predictions.csv\n  unisono recipes")
    return 0


def _make_table(arguments: argparse.Namespace) -> Path:
    """Write the scenes' table, in place of that of an earlier demonstration.

    Raises:
        UserError: too few scenes, or a folder in the way that no demonstration made.
    """
    from unisono.core.errors import UserError
    from unisono.data import write_shapes

    out: Path = arguments.out
    if arguments.rows < 100:
        raise UserError("--rows: the demonstration needs at least 100 scenes")
    if (out / "table").exists():
        if not (out / "model").is_dir():
            raise UserError(f"--out {out}: there is a folder 'table' in it that no demonstration made; choose another")
        shutil.rmtree(out / "table")
    table: Path = write_shapes(out / "table", arguments.rows, seed=arguments.seed, size=32, missing="random", rate=0.15, columns=_COLUMNS)
    return table


def _say(talk: bool, text: str) -> None:
    if talk:
        print(text, flush=True)
