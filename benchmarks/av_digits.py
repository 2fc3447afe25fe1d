"""Digits from a picture and a recording, each speaker held out in turn; with a source missing, against models of one source.

Every recording of the spoken digits is paired with one handwritten digit by seed. Five speakers and pictures of the training part train;
the sixth and pictures of the test part test. All arms have the settings ``SETTINGS``, everything else is the package's default. They were
chosen with george held out of the four speakers other than theo, and pictures of MNIST's training part alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import unisono
from unisono.data import sounds

SETTINGS = (
    "train.epochs=20",
    "train.batch=64",
    "train.lr=0.003",
    "train.ema=0.99",
    "objective=supervised(drop_sources=0.95)",
    "tasks.category=category(smoothing=0.1)",
)
ARMS = {"both": ("image", "sound"), "images": ("image",), "sounds": ("sound",)}


def fold(speaker: str, seed: int, arm: str = "both", settings: Sequence[str] = SETTINGS) -> dict[str, float]:
    """Accuracy on the held-out speaker.

    Args:
        speaker: who is held out.
        seed: of the pairing and of training.
        arm: which sources the model is trained on, one of ``ARMS``.
        settings: changes to the default recipe, ``key=value``.

    Returns:
        ``accuracy``, for ``both`` also ``image`` and ``sound`` with the other source missing, the whole call's ``seconds``, and ``steps``.
    """
    table = sounds.av_digits(speaker, seed=seed).select([*ARMS[arm], "digit", "split"])
    begin = time.monotonic()
    model = unisono.fit(table, "digit=category", split="split", seed=seed, settings=list(settings))
    seconds = time.monotonic() - begin
    found = {"accuracy": model.metrics["test"]["targets"]["digit"]["accuracy"]}
    found |= {part["present"][0]: part["targets"]["digit"]["accuracy"] for part in model.metrics["missing"]}
    return found | {"seconds": round(seconds, 1), "steps": model.metrics["training"]["steps"]}


def records(
    speakers: Sequence[str], seeds: Sequence[int], arms: Sequence[str] = tuple(ARMS), settings: Sequence[str] = SETTINGS
) -> Iterator[dict[str, Any]]:
    """Hold every speaker out with every seed.

    Yields:
        One record for each speaker, seed, arm and metric.
    """
    for seed in seeds:
        for speaker in speakers:
            for arm in arms:
                for metric, value in fold(speaker, seed, arm, settings).items():
                    unit = {"seconds": "s", "steps": "updates"}.get(metric, "share")
                    yield {
                        "bench": "av_digits",
                        "arm": arm,
                        "speaker": speaker,
                        "metric": metric,
                        "value": value,
                        "unit": unit,
                        "seed": seed,
                    }


def means(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The mean over speakers and seeds of every arm's accuracies, and what a missing source costs against a model of the other alone."""
    values: dict[str, list[float]] = {}
    for record in found:
        values.setdefault(f"{record['arm']}.{record['metric']}", []).append(record["value"])
    mean = {name: round(sum(v) / len(v), 4) for name, v in values.items()}
    for source, arm in (("image", "images"), ("sound", "sounds")):
        if f"both.{source}" in mean and f"{arm}.accuracy" in mean:
            mean[f"{source} alone, both less {arm}"] = round(mean[f"both.{source}"] - mean[f"{arm}.accuracy"], 4)
    return mean


def main() -> None:
    """Print one JSON object a line, then the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speakers", nargs="+", default=list(sounds.SPEAKERS), choices=sounds.SPEAKERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    asked = parser.parse_args()
    found = []
    for record in records(asked.speakers, asked.seeds, asked.arms, [*SETTINGS, *asked.settings]):
        found.append(record)
        print(json.dumps(record), flush=True)
    print(json.dumps(means(found)))


if __name__ == "__main__":
    main()
