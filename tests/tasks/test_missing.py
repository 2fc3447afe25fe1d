from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from unisono.tasks.category import Category
from unisono.tasks.missing import Subset, Truth, evaluate_subsets, subsets, worth_of_sources


def test_which_subsets() -> None:
    assert subsets([]) == []
    assert subsets(["a"]) == []
    assert subsets(["b", "a"]) == [("b",), ("a",)]
    assert subsets(list("abc")) == [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")]
    assert len(subsets(list("abcde"))) == 2**5 - 2
    six = subsets(list("abcdef"))
    assert six[:6] == [(s,) for s in "abcdef"]
    assert six[6:] == [tuple("bcdef"), tuple("acdef"), tuple("abdef"), tuple("abcef"), tuple("abcdf"), tuple("abcde")]


def test_the_missing_list_and_what_sources_are_worth() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 200)
    task = Category()
    statistics = task.fit(np.array(["n", "y"], object)[codes])
    strength = {"photo": 1.0, "sound": 3.0, "noise": 0.0}
    seen = {s: strength[s] * (np.eye(2)[codes] + 0.7 * rng.normal(size=(200, 2))) for s in strength}

    def scores(present: Subset) -> dict[str, np.ndarray]:
        return {"t": sum((seen[s] for s in present), np.zeros((200, 2)))}

    truth = Truth(task, statistics, codes, np.ones(200, bool))
    sources = list(strength)
    missing = evaluate_subsets(scores, sources, {"t": truth})
    assert [tuple(m["present"]) for m in missing] == subsets(sources)
    wanted = task.metrics(scores(("photo", "noise"))["t"], codes, truth.present, statistics)
    assert missing[4]["present"] == ["photo", "noise"]
    assert missing[4]["targets"]["t"] == wanted
    whole = {"t": task.metrics(scores(tuple(sources))["t"], codes, truth.present, statistics)}
    found = worth_of_sources(missing, whole, sources, "t", task.objective_metric, nothing=0.5)
    assert sum(w.shapley or 0 for w in found.values()) == pytest.approx(whole["t"]["accuracy"] - 0.5)
    assert found["noise"].drop == 0
    assert found["sound"].alone == missing[1]["targets"]["t"]["accuracy"]
    assert (found["sound"].shapley or 0) > 0.1
    value = {frozenset(m["present"]): m["targets"]["t"]["accuracy"] for m in missing}
    value |= {frozenset(): 0.5, frozenset(sources): whole["t"]["accuracy"]}
    gains = [value[frozenset(o[: o.index("photo") + 1])] - value[frozenset(o[: o.index("photo")])] for o in permutations(sources)]
    assert found["photo"].shapley == pytest.approx(np.mean(gains))


def test_less_is_better_for_errors_and_no_shapley_without_all_subsets() -> None:
    missing = [{"present": ["a"], "targets": {"t": {"rmse": 3.0}}}, {"present": ["b"], "targets": {"t": {"rmse": None}}}]
    found = worth_of_sources(missing, {"t": {"rmse": 1.0}}, ["a", "b"], "t", ("rmse", False), nothing=5.0)
    assert (found["b"].drop, found["a"].drop) == (2.0, None)
    assert found["a"].shapley is None
    single = worth_of_sources([], {"t": {"rmse": 1.0}}, ["a"], "t", ("rmse", False), nothing=5.0)
    assert single["a"].shapley == 4.0
