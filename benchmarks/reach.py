"""The rows that the project is held to, with what each must reach and aims at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks import av_digits, av_epoch, emoji, image_decode, mfeat, small_tables, ucr
from benchmarks.record import Goal, Measurement, row
from benchmarks.timing import interleave
from unisono.data import sounds
from unisono.data.folder import data_folder

UNITS = {"seconds": "s", "steps": "updates", "slowest_fit": "s"}


def files(*folders: str) -> list[Path]:
    """The files below some of the data folders."""
    return [p for name in folders for p in sorted((data_folder() / name).rglob("*")) if p.is_file()]


@row(
    "av_digits",
    uses=("benchmarks.av_digits",),
    arms=tuple(f"{arm}/{speaker}" for speaker in sounds.SPEAKERS for arm in av_digits.ARMS),
    seeds=(0, 1, 2),
    inputs=lambda: files("fsdd", "mnist"),
    goals=(
        Goal("accuracy, image and sound", "accuracy", 0.985, 0.995, arm="both/*"),
        Goal("sound missing, less images alone", "image", -0.01, arm="both/*", against=("images/*", "accuracy")),
        Goal("image missing, less sounds alone", "sound", -0.01, arm="both/*", against=("sounds/*", "accuracy")),
        Goal("seconds a fit", "seconds", 60, arm="*", lower=True),
    ),
)
def digits_heard_and_seen(arm: str, seed: int) -> Iterator[Measurement]:
    """Digits from a picture and a recording, each speaker held out in turn."""
    sources, speaker = arm.split("/")
    for metric, value in av_digits.fold(speaker, seed, sources).items():
        yield Measurement(metric, value, UNITS.get(metric, "share"))


@row(
    "emoji",
    uses=("benchmarks.emoji",),
    inputs=lambda: files("emoji"),
    goals=(
        Goal("accuracy", "accuracy", 0.93, 0.95),
        Goal("accuracy less TF-IDF, low end of its interval", "less_tfidf_low", 0.0),
    ),
)
def emoji_group(arm: str, seed: int) -> Iterator[Measurement]:
    """The group of an emoji from picture, name and keywords, against TF-IDF."""
    for record in emoji.records([seed]):
        yield Measurement(record["metric"], record["value"], record["unit"])


@row("mfeat", uses=("benchmarks.mfeat",), inputs=lambda: files("mfeat"), goals=(Goal("accuracy", "accuracy", 0.987, 0.995),))
def six_views(arm: str, seed: int) -> Iterator[Measurement]:
    """Six views of handwritten digits as vector columns."""
    for record in mfeat.records([seed]):
        yield Measurement(record["metric"], record["value"], record["unit"])


@row(
    "ucr",
    uses=("benchmarks.ucr",),
    arms=ucr.SETS,
    inputs=lambda: files("ucr_small"),
    goals=(Goal("mean accuracy of six sets", "accuracy", 0.83, 0.92),),
)
def series_sets(arm: str, seed: int) -> Iterator[Measurement]:
    """Six small sets of time series, given split."""
    table = ucr.ucr(arm).drop_columns(["key"])
    for metric, value in ucr.fit_once(table, "label", seed, (), {"series": "series"})[1].items():
        yield Measurement(metric, value, UNITS.get(metric, "share"))


@row(
    "small_tables",
    uses=("benchmarks.small_tables",),
    arms=small_tables.TABLES,
    goals=tuple(
        Goal(f"{name}, less the better peer", "score", must, 0.0, arm=name, against=(name, "peer"))
        for name, must in (("breast_cancer", -0.005), ("wine", -0.005), ("diabetes", -0.02), ("digits", -0.005))
    ),
)
def numbers_against_trees(arm: str, seed: int) -> Iterator[Measurement]:
    """Four small tables of numbers, 5-fold, against boosted trees and a scaled linear model."""
    scores = {}
    for record in small_tables.records([arm], [seed]):
        if record["metric"] == "slowest_fit":
            yield Measurement("slowest_fit", record["value"], "s")
        else:
            scores[record["arm"]] = record["value"]
    yield Measurement("score", scores["unisono"])
    for peer in small_tables.PEERS:
        yield Measurement(peer, scores[peer])
    yield Measurement("peer", max(scores[peer] for peer in small_tables.PEERS))


@row(
    "av_epoch",
    uses=("benchmarks.av_epoch",),
    arms=("source dropout", "no dropout"),
    timed=True,
    inputs=lambda: files("fsdd", "mnist"),
    goals=tuple(
        Goal(f"rows a second of padded plain PyTorch, {arm}", "ratio", 0.95, 1.5, arm=arm, statistic="median")
        for arm in ("source dropout", "no dropout")
    ),
)
def training_speed(arm: str, seed: int) -> Iterator[Measurement]:
    """Rows a second of a training epoch against the same model over padded batches."""
    found = av_epoch.measure(drop=arm == "source dropout")
    yield Measurement("packed", found["packed"], "rows/s")
    yield Measurement("padded", found["padded"], "rows/s")
    yield Measurement("ratio", found["ratio"], "ratio")


@row(
    "image_decode",
    uses=("benchmarks.image_decode", "benchmarks.timing"),
    arms=("bytes", "normalised"),
    timed=True,
    goals=(Goal("times Pillow and NumPy, to the batch's bytes", "ratio", 2.0, 3.2, arm="bytes", statistic="median"),),
)
def decoding_speed(arm: str, seed: int) -> Iterator[Measurement]:
    """Pictures a second from JPEG to tensor on one core, against Pillow and NumPy."""
    import torch

    pictures, threads = image_decode.pictures(seed=seed), torch.get_num_threads()
    ours = {"bytes": image_decode.to_bytes, "normalised": image_decode.to_normalised}[arm]
    torch.set_num_threads(1)
    try:
        times = interleave({"ours": lambda: ours(pictures), "plain": lambda: image_decode.plain(pictures)})
    finally:
        torch.set_num_threads(threads)
    for name, timing in times.items():
        yield Measurement(name, len(pictures) / timing.seconds, "pictures/s")
        yield Measurement(f"{name}_noisy", timing.noisy, "slots")
    yield Measurement("ratio", times["plain"].seconds / times["ours"].seconds, "ratio")
