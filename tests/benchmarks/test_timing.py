from __future__ import annotations

import sys

import pytest

from benchmarks.timing import interleave, run_delays, slots_of, summarise, waited


def test_candidates_take_turns_in_an_order_that_rotates():
    calls: list[str] = []
    found = interleave({n: (lambda n=n: calls.append(n)) for n in "abc"}, slots=3, calls=2, delays=dict)
    assert "".join(calls) == "abc" + "aabbcc" + "bbccaa" + "ccaabb"
    assert [t.clean for t in found.values()] == [3, 3, 3]
    assert all(t.note == "" and t.low <= t.seconds <= t.high for t in found.values())


def test_slots_in_which_a_thread_waited_are_discarded_and_tried_again():
    reading = iter(range(10**6))

    def delays() -> dict[str, int]:
        # two readings a slot: every other slot begins at 0 and ends after an hour of waiting
        number = next(reading)
        return {"1": 0 if number % 4 in (0, 1, 2) else 3600 * 10**9}

    found = interleave({"a": lambda: None}, slots=3, delays=delays)["a"]
    assert (found.clean, found.slots, found.note) == (3, 5, "")


def test_without_a_clean_slot_all_are_taken_and_it_is_said():
    clock = iter(range(0, 10**18, 10**12))
    found = interleave({"a": lambda: None}, slots=2, attempts=3, delays=lambda: {"1": next(clock)})
    assert (found["a"].clean, found["a"].slots) == (0, 6)
    assert found["a"].note.startswith("no slot of 6")
    assert slots_of(found) == {"clean": (0.0, "slots")}


def test_too_few_clean_slots_are_said():
    found = summarise([1.0, 3.0], [1.0, 3.0, 9.0], 3)
    assert (found.seconds, found.high) == (2.0, 3.0)
    assert found.note == "only 2 of 3 slots were free of other programs"


def test_waiting_is_that_of_the_worst_thread_and_new_threads_count():
    assert waited({"1": 10**9, "2": 0}, {"1": 10**9, "2": 10**8, "3": 5 * 10**8}, 1.0) == pytest.approx(0.5)
    assert waited({"1": 5}, {}, 1.0) == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's figures are Linux's")
def test_the_kernel_says_how_long_threads_waited():
    found = run_delays()
    assert found
    assert all(delay >= 0 for delay in found.values())
