"""The loop: same seed, same bits; resumed or not; and what happens to bad losses, gradients and budgets."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from train_toy import ROWS, Toy, ToyBatches

from unisono.core.errors import BudgetError, ConfigError, TrainingError
from unisono.train import checkpoint as store
from unisono.train.budget import Budget, read_plan
from unisono.train.loop import train
from unisono.train.protocols import Interrupted, Losses, Validation
from unisono.train.settings import SMOOTHED, TrainSettings

BASE = {"steps": 40, "batch": 16, "validate_every": 5, "precision": "float32", "patience": 0, "lr": 1e-2}


def weights(toy: Toy) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in toy.module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def settings(**changes: object) -> TrainSettings:
    return TrainSettings.read({**BASE, **changes})


class Stopping(Toy):
    """Asks for a stop, as Ctrl-C would, while a given step is computed."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.calls = at, 0

    def loss(self, rows: torch.Tensor) -> Losses:
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().loss(rows)


def test_training_learns_and_leaves_the_best_weights() -> None:
    toy = Toy()
    before = toy.validate().objective if not toy.module.eval().training else math.nan
    history = train(toy, ToyBatches(), settings(steps=120), progress=False)
    assert history.stopped == "completed" and history.steps == 120
    found = [r["objective"] for r in history.records]
    smoothed = [sum(part) / len(part) for part in (found[max(0, k - SMOOTHED + 1) : k + 1] for k in range(len(found)))]
    assert history.best_objective == pytest.approx(min(smoothed)) and history.best_objective < 0.8 * before
    assert history.best_step == history.records[smoothed.index(min(smoothed))]["step"]
    toy.module.eval()
    assert toy.validate().objective == pytest.approx(found[smoothed.index(min(smoothed))], rel=1e-6)


def test_same_seed_same_bits_and_another_seed_other_bits() -> None:
    first, second, third = Toy(), Toy(), Toy()
    train(first, ToyBatches(), settings(), progress=False, seed=3)
    torch.rand(5)
    train(second, ToyBatches(), settings(), progress=False, seed=3)
    train(third, ToyBatches(), settings(), progress=False, seed=4)
    assert same(weights(first), weights(second)) and not same(weights(first), weights(third))


def test_the_callers_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    train(Toy(), ToyBatches(), settings(steps=3), progress=False)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "changes", [{}, {"ema": 0.9}, {"optimiser": "sgd"}, {"optimiser": "lion", "lr": 1e-3}, {"max_tokens": 5}, {"precision": "bf16"}]
)
def test_interrupted_and_resumed_is_the_same_to_the_bit(tmp_path: Path, changes: dict[str, object]) -> None:
    straight = Toy()
    whole = train(straight, ToyBatches(), settings(**changes), progress=False, folder=tmp_path / "a")
    micro = 4 if "max_tokens" in changes else 1
    with pytest.raises(Interrupted, match="--resume") as stopped:
        train(Stopping(17 * micro), ToyBatches(), settings(**changes), progress=False, folder=tmp_path / "b")
    assert stopped.value.exit_code == 130
    assert store.load(tmp_path / "b").state["run"]["step"] == 17
    resumed = Toy(seed=99)
    again = train(resumed, ToyBatches(), settings(**changes), progress=False, folder=tmp_path / "b", resume=True)
    assert same(weights(straight), weights(resumed))
    strip = [{k: v for k, v in r.items() if k not in {"seconds", "rows_per_second"}} for r in whole.records]
    assert strip == [{k: v for k, v in r.items() if k not in {"seconds", "rows_per_second"}} for r in again.records]
    lines = [json.loads(line) for line in (tmp_path / "b" / "history.jsonl").read_text().splitlines()]
    assert [r["step"] for r in lines] == [r["step"] for r in whole.records] == list(range(5, 41, 5))
    finished = Toy(seed=98)
    train(finished, ToyBatches(), settings(**changes), progress=False, folder=tmp_path / "b", resume=True)
    assert same(weights(straight), weights(finished))


def test_early_stopping_counts_on_after_a_resume(tmp_path: Path) -> None:
    objectives = [3.0, 2.0, 2.5, 2.6, 2.7, 1.0, 1.0]

    def toy(kind: type[Toy] = Toy, *arguments: int, done: int = 0) -> Toy:
        made = kind(*arguments)
        made.objectives = iter(objectives[done:])
        return made

    straight = toy()
    history = train(straight, ToyBatches(), settings(patience=3), progress=False)
    assert (history.stopped, history.steps, history.best_step) == ("early", 25, 10)
    with pytest.raises(Interrupted):
        train(toy(Stopping, 17), ToyBatches(), settings(patience=3), progress=False, folder=tmp_path)
    resumed = toy(done=3)
    again = train(resumed, ToyBatches(), settings(patience=3), progress=False, folder=tmp_path, resume=True)
    assert (again.stopped, again.steps, again.best_step) == ("early", 25, 10)
    assert same(weights(straight), weights(resumed))


def test_killed_at_any_instant_it_resumes_to_the_same_bits(tmp_path: Path) -> None:
    changes = {**BASE, "steps": 120, "checkpoint_seconds": 0}
    straight = Toy()
    train(straight, ToyBatches(), settings(steps=120, checkpoint_seconds=0), progress=False)
    command = [sys.executable, str(Path(__file__).parent / "train_toy.py"), str(tmp_path), "--set", json.dumps(changes), "--delay", "0.002"]
    draw = random.Random(5)
    for _ in range(2):
        process = subprocess.Popen([*command, "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        start = store.load(tmp_path).state["run"]["step"] if store.exists(tmp_path) else 0
        _wait_for_step(tmp_path, start + 1, process)
        time.sleep(draw.uniform(0.0, 0.06))
        assert process.poll() is None, "it ended before it was killed"
        process.kill()
        process.wait()
        assert store.load(tmp_path).state["run"]["step"] > start
    resumed = Toy(seed=50)
    history = train(resumed, ToyBatches(), settings(steps=120, checkpoint_seconds=0), progress=False, folder=tmp_path, resume=True)
    assert history.steps == 120 and same(weights(straight), weights(resumed))
    assert not list(tmp_path.glob("checkpoint.*"))


def _wait_for_step(folder: Path, step: int, process: subprocess.Popen[bytes], seconds: float = 120.0) -> None:
    """Wait for a checkpoint of ``step`` or later; a busy machine may take long to import torch, and without one nothing is resumed."""
    deadline = time.monotonic() + seconds
    while _step(folder) < step:
        assert process.poll() is None, f"it ended before step {step}"
        assert time.monotonic() < deadline, f"no checkpoint of step {step} in {seconds} s"
        time.sleep(0.005)


def _step(folder: Path) -> int:
    try:
        return int(json.loads((folder / "checkpoint" / "state.json").read_text())["run"]["step"])
    except OSError:
        return -1


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_no_number_names_the_rows(tmp_path: Path, kind: str) -> None:
    class Bad(Toy):
        calls = 0

        def loss(self, rows: torch.Tensor) -> Losses:
            self.calls += 1
            found = super().loss(rows)
            if self.calls < 13:
                return found
            if kind == "loss":
                return Losses(found.total_sum * math.nan, found.count)
            zero = (self.module.first.weight - self.module.first.weight).sum()
            return Losses(found.total_sum + zero.clamp(min=0).sqrt(), found.count)

    toy = Bad()
    with pytest.raises(TrainingError, match=r"step 13: the .*\(rows r\d+, r\d+"):
        train(toy, ToyBatches(), settings(checkpoint_seconds=0), progress=False, folder=tmp_path)
    assert store.load(tmp_path).state["run"]["step"] == 12
    assert all(t.isfinite().all() for t in store.load(tmp_path).tensors["model"].values())


def test_micro_batches_give_the_same_gradient_within_rounding() -> None:
    whole, cut = Toy(dropout=False), Toy(dropout=False)
    train(whole, ToyBatches(), settings(steps=6, optimiser="sgd"), progress=False)
    train(cut, ToyBatches(), settings(steps=6, optimiser="sgd", max_tokens=3), progress=False)
    for name, p in whole.module.named_parameters():
        torch.testing.assert_close(p, dict(cut.module.named_parameters())[name], rtol=1e-4, atol=1e-6)


def test_a_batch_without_targets_changes_nothing() -> None:
    toy = Toy()
    toy.known[:ROWS] = 0
    before = {k: v.clone() for k, v in toy.module.named_parameters()}
    train(toy, ToyBatches(), settings(steps=4), progress=False)
    assert all(torch.equal(p, before[k]) for k, p in toy.module.named_parameters())


class Timed(Toy):
    """Steps and validations take time on a clock of their own, so that no other program can disturb the test."""

    def __init__(self, *, early: float, late: float | None = None, validation: float = 0.05) -> None:
        super().__init__()
        self.now, self.calls = 100.0, 0
        self.early, self.late, self.validation = early, early if late is None else late, validation

    def clock(self) -> float:
        return self.now

    def loss(self, rows: torch.Tensor) -> Losses:
        self.calls += 1
        self.now += self.early if self.calls < 60 else self.late
        return super().loss(rows)

    def validate(self) -> Validation:
        self.now += self.validation
        return super().validate()


def test_a_budget_plans_writes_the_plan_first_and_repeats_to_the_same_bits(tmp_path: Path) -> None:
    toy, plans = Timed(early=0.01), []

    def on_plan(plan: object) -> None:
        plans.append((plan, (tmp_path / "train.json").exists(), float(toy.module.counter)))

    flexible, budget = TrainSettings.read({"precision": "float32"}), Budget(10.0, 97.0, 2.0)
    history = train(toy, ToyBatches(), flexible, folder=tmp_path, budget=budget, progress=False, on_plan=on_plan, clock=toy.clock)
    assert 0.8 * (105 - 100) < toy.now - 100 < 105 - 100
    assert history.stopped == "completed" and history.steps == history.plan.steps > 250
    assert plans == [(history.plan, True, 0.0)]
    assert read_plan(tmp_path) == history.plan
    again = Toy()
    train(again, ToyBatches(), TrainSettings.read({**flexible.as_dict(), **history.plan.as_settings()}), progress=False)
    assert same(weights(toy), weights(again))


def test_an_impossible_budget_says_how_much_is_needed_and_that_suffices(tmp_path: Path) -> None:
    toy = Timed(early=0.5)
    before = weights(toy)
    with pytest.raises(BudgetError, match=r"too small.*at least --budget \d+s") as refused:
        train(toy, ToyBatches(), TrainSettings(), folder=tmp_path / "x", budget=Budget(5.0, 99.0, 1.0), progress=False, clock=toy.clock)
    assert same(before, weights(toy)) and not (tmp_path / "x").exists()
    needed, toy = float(str(refused.value).rsplit(" ", 1)[1].rstrip("s")), Timed(early=0.5)
    history = train(toy, ToyBatches(), TrainSettings(), budget=Budget(needed, 99.0, 1.0), progress=False, clock=toy.clock)
    assert history.steps >= 20 and toy.now <= 99.0 + needed - 1.0


def test_a_machine_that_becomes_slow_shortens_the_run_and_says_so(tmp_path: Path) -> None:
    toy = Timed(early=0.02, late=0.1)
    section = TrainSettings.read({"batch": 16})
    history = train(toy, ToyBatches(), section, folder=tmp_path, budget=Budget(30.0, 100.0), progress=False, clock=toy.clock)
    assert 120 < toy.now <= 130
    assert history.stopped == "shortened" and history.steps < history.plan.steps
    assert history.records[-1]["lr"] < 2e-4
    result = json.loads((tmp_path / "train.json").read_text())["result"]
    assert result["steps"] == history.steps and result["shortened_at"]


def test_resume_refuses_other_settings_and_seeds(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(Stopping(5), ToyBatches(), settings(), progress=False, folder=tmp_path)
    with pytest.raises(ConfigError, match="lr differ"):
        train(Toy(), ToyBatches(), settings(lr=1e-4), progress=False, folder=tmp_path, resume=True)
    with pytest.raises(ConfigError, match="steps, seed differ"):
        train(Toy(), ToyBatches(), settings(steps=50), progress=False, folder=tmp_path, resume=True, seed=1)


def test_without_validation_rows_the_last_weights_stay() -> None:
    class Blind(Toy):
        def validate(self) -> Validation | None:  # type: ignore[override]
            return None

    history = train(Blind(), ToyBatches(), settings(patience=1), progress=False)
    assert history.steps == 40 and history.best_step is None and "objective" not in history.records[0]


def test_it_trains_outside_the_main_thread_too() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(train(Toy(), ToyBatches(), settings(steps=3), progress=False).steps))
    thread.start()
    thread.join()
    assert found == [3]


def test_memory_does_not_grow_with_steps() -> None:
    import psutil

    process, toy, sizes = psutil.Process(), Toy(), []

    class Watching(Toy):
        def validate(self) -> Validation:
            sizes.append(process.memory_info().rss)
            return super().validate()

    toy = Watching()
    train(toy, ToyBatches(), settings(steps=600, validate_every=100, ema=0.9), progress=False)
    assert sizes[-1] - sizes[1] < 8 << 20


def test_lines_are_printed_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    train(Toy(), ToyBatches(), settings(steps=5), progress=True)
    shown = capsys.readouterr()
    assert shown.out == "" and "step 5/5" in shown.err and "rows/s" in shown.err and "loss" in shown.err
