from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.modalities.shape_helpers import WIDTH, check_alone_equals_batched, check_empty, check_every_gradient, fitted
from unisono.core.errors import SchemaError, Unreadable
from unisono.core.schema import Column
from unisono.modalities.base import ColumnSample, Context, modalities, tokenisers
from unisono.modalities.datetime import calendar_features, parse_datetime

DATETIME = modalities.build("datetime")
COLUMN = Column("x", "datetime", "table", 0)


def sample(array: pa.Array) -> ColumnSample:
    return ColumnSample("x", array.type, array, [v for v in array.to_pylist() if v is not None])


def utc(*parts: int) -> float:
    return dt.datetime(*parts, tzinfo=dt.UTC).timestamp()  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "seconds"), [
    ("2024-02-29", utc(2024, 2, 29)),
    ("20240229", utc(2024, 2, 29)),
    ("2024-02-29T18:30:00Z", utc(2024, 2, 29, 18, 30)),
    ("2024-02-29 18:30", utc(2024, 2, 29, 18, 30)),
    ("2024-02-29T18:30:00.5+01:00", utc(2024, 2, 29, 17, 30) + 0.5),
    ("2024-02-29T18:30:00-0530", utc(2024, 3, 1, 0, 0)),
    ("2016-12-31T23:59:60Z", utc(2017, 1, 1)),
    ("2024/2/9", utc(2024, 2, 9)),
    ("29.02.2024 07:05", utc(2024, 2, 29, 7, 5)),
    ("29 February 2024", utc(2024, 2, 29)),
    ("Feb 29, 2024", utc(2024, 2, 29)),
    ("1-Jan-1969", utc(1969, 1, 1)),
])  # fmt: skip
def test_formats(text: str, seconds: float) -> None:
    assert parse_datetime(text) == seconds


@pytest.mark.parametrize(("text", "reason"), [
    ("03/04/2024", "ambiguous"),
    ("2023-02-29", "no date of the calendar"),
    ("2024-13-01", "no date of the calendar"),
    ("1 Mumble 2024", "is no month"),
    ("yesterday", "is no date; write it as"),
    ("", "is no date"),
])  # fmt: skip
def test_what_is_no_date_is_said(text: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        parse_datetime(text)


@given(st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30), timezones=st.just(dt.UTC)))
def test_iso_text_and_timestamps_agree(moment: dt.datetime) -> None:
    from_type = DATETIME.decode_many(pa.array([moment], pa.timestamp("us", tz="UTC")), COLUMN, Context()).cells[0]
    assert parse_datetime(moment.isoformat()) == pytest.approx(from_type, abs=1e-4)


@given(st.text(max_size=20))
def test_any_text_is_a_date_or_unreadable(text: str) -> None:
    try:
        assert np.isfinite(parse_datetime(text))
    except Unreadable as error:
        assert error.reason


def test_decoding_of_types() -> None:
    for unit in ("s", "ms", "us", "ns"):
        array = pa.array([dt.datetime(2024, 2, 29, 1), None], pa.timestamp(unit))
        cells = DATETIME.decode_many(array, COLUMN, Context()).cells
        assert cells[0] == utc(2024, 2, 29, 1) and np.isnan(cells[1])
    days = DATETIME.decode_many(pa.array([dt.date(2024, 2, 29), None]), COLUMN, Context())
    assert days.cells[0] == utc(2024, 2, 29) and not days.bad
    texts = DATETIME.decode_many(pa.array(["2024-01-01", None, "x", "x"]), COLUMN, Context())
    assert [row for row, _ in texts.bad] == [2, 3] and np.isnan(texts.cells[1:]).all()
    assert DATETIME.decode_many(pa.array([1]), COLUMN, Context()).bad[0][0] == 0
    assert DATETIME.decode(dt.date(1970, 1, 2), COLUMN, Context()) == 86400.0
    assert DATETIME.show(86400.0) == "1970-01-02" and DATETIME.show(float("nan")) is None


def test_detection() -> None:
    zoned = DATETIME.detect(sample(pa.array([dt.datetime(2024, 1, 1)], pa.timestamp("us", tz="Europe/Berlin"))))
    assert zoned is not None and zoned.options == {"timezone": "Europe/Berlin"}
    text = DATETIME.detect(sample(pa.array(["2024-01-01", "2024-05-01 12:00"])))
    assert text is not None and text.confidence > 0.9
    compact = DATETIME.detect(sample(pa.array(["20240101"])))
    assert compact is not None and compact.confidence <= 0.5 and "number" in compact.doubt
    for array in (pa.array(["a", "b"]), pa.array([1, 2]), pa.array(["03/04/2024"])):
        assert DATETIME.detect(sample(array)) is None


def test_calendar_features_match_the_calendar() -> None:
    moment = dt.datetime(2024, 7, 3, 6, tzinfo=dt.UTC)
    sines, cosines = np.split(calendar_features(np.array([moment.timestamp()]))[0], 2)
    turns = np.array([moment.timetuple().tm_yday - 1 + 0.25, 2 + 0.25, moment.weekday() + 0.25, 0.25]) / [365.2425, 31, 7, 1]
    turns = np.array([turns[0], 2 * turns[0], turns[1], turns[2], 2 * turns[2], turns[3], 2 * turns[3]])
    np.testing.assert_allclose(sines, np.sin(2 * np.pi * turns), atol=1e-5)
    np.testing.assert_allclose(cosines, np.cos(2 * np.pi * turns), atol=1e-5)


def test_a_time_zone_keeps_eight_in_the_morning_through_the_year() -> None:
    zone = dt.timezone(dt.timedelta(hours=1)), dt.timezone(dt.timedelta(hours=2))
    winter, summer = dt.datetime(2024, 1, 10, 8, tzinfo=zone[0]), dt.datetime(2024, 7, 10, 8, tzinfo=zone[1])
    features = calendar_features(np.array([winter.timestamp(), summer.timestamp()]), "Europe/Berlin")
    np.testing.assert_allclose(features[0, [5, 6, 12, 13]], features[1, [5, 6, 12, 13]], atol=1e-6)
    with pytest.raises(SchemaError, match="Europe/Berlin"):
        calendar_features(np.array([0.0]), "Nowhere/Land")


@pytest.mark.parametrize("most", [1, 16])
def test_contracts(most: int) -> None:
    rng = np.random.default_rng(0)
    cells = {f"c{i}": rng.uniform(0, 2e9, 9) for i in range(3)}
    cells["c1"][2] = np.nan
    tokeniser = tokenisers.build({"type": "calendar", "max_tokens": most})
    columns = fitted(tokeniser, [Column(f"c{i}", "datetime", "table", i) for i in range(3)], cells)
    torch.manual_seed(0)
    module = tokeniser.module(columns, WIDTH)
    check_alone_equals_batched(tokeniser, columns, cells, module)
    check_every_gradient(module, tokeniser.pack(columns, cells, None))
    check_empty(tokeniser, columns, {k: np.full(3, np.nan) for k in cells}, module)
    without = {k: v for k, v in cells.items() if k != "c2"}
    one = tokeniser.pack(columns, without, None)
    two = tokeniser.pack(columns, without | {"c2": np.full(9, np.nan)}, None)
    assert torch.equal(module(one), module(two))
