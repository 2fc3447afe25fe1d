"""The shapes world: the same rows whatever is asked for, and truths found again from the bytes alone."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import wave
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unisono import data
from unisono.core.errors import ConfigError
from unisono.data import picture, tones, truth, words
from unisono.data.scenes import BACKDROPS, COLOURS, HUMS, SEASONS, SHAPES, permute, scene

CLEAN = data.Noise(0, 0, 0, 0)


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def waveform(content: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)


def backdrop_seen(content: bytes) -> str:
    """The backdrop whose gradient is nearest to the median colour of each line."""
    lines = np.median(pixels(content).astype(float), axis=1)
    share = ((np.arange(len(lines)) + 0.5) / len(lines))[:, None]
    gap = {b: np.abs(lines - (np.array(picture.SKY[b][0]) * (1 - share) + np.array(picture.SKY[b][1]) * share)).mean() for b in BACKDROPS}
    return min(gap, key=gap.__getitem__)


def hum_heard(content: bytes) -> str:
    track = waveform(content)
    spectrum, hertz = np.abs(np.fft.rfft(track)), np.fft.rfftfreq(len(track), 1 / 8000)
    return min(HUMS, key=lambda h: abs(hertz[hertz < 420][spectrum[hertz < 420].argmax()] - tones.HUM_PITCH[h]))


def season_told(caption: str) -> str:
    found = [s for s in SEASONS if any(phrase.lower() in caption.lower() for phrase in words.SEASON_WORDS[s])]
    assert len(found) == 1
    return found[0]


def test_importing_the_package_is_light() -> None:
    code = "import sys, unisono.data; assert not {'numpy', 'pyarrow', 'PIL', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_row_depends_on_seed_and_number_only() -> None:
    long, short = data.shapes(40, seed=3, columns=data.COLUMNS), data.shapes(17, seed=3, columns=data.COLUMNS)
    assert long.slice(0, 17).equals(short)
    for name in ("image", "caption", "price"):
        assert data.shapes(40, seed=3, columns=[name])[name].equals(long[name])
    assert not data.shapes(17, seed=4, columns=["image"])["image"].equals(short["image"])
    streamed = pa.Table.from_batches(data.stream_shapes(40, seed=3, columns=data.COLUMNS, batch=7))
    assert streamed.combine_chunks().equals(long.combine_chunks())


def test_image_sound_and_caption_each_hold_their_own_latent() -> None:
    columns = ["image", "sound", "caption", "backdrop", "hum", "season", "octant", "duet", "parity"]
    for row in data.shapes(300, seed=1, columns=columns, noise=data.Noise(0)).to_pylist():
        seen, heard, told = backdrop_seen(row["image"]), hum_heard(row["sound"]), season_told(row["caption"])
        assert (seen, heard, told) == (row["backdrop"], row["hum"], row["season"])
        dark, high, cold = seen in ("dusk", "night"), heard in ("middle", "high"), told in ("autumn", "winter")
        assert row["parity"] == (dark ^ high ^ cold)
        assert row["duet"] == (dark ^ high)
        assert row["octant"] == "ld"[dark] + "dh"[high] + "wc"[cold]


def test_no_pair_of_sources_tells_the_parity_but_all_three_do() -> None:
    scenes = [scene(11, i) for i in range(8000)]
    bits = np.array([truth.bits(s) for s in scenes])
    parity = np.array([truth.target_value(s, "parity", CLEAN) for s in scenes])
    for chosen in (*combinations(range(3), 1), *combinations(range(3), 2)):
        for values in product((False, True), repeat=len(chosen)):
            cell = parity[(bits[:, chosen] == values).all(1)]
            assert abs(cell.mean() - 0.5) < 4 * 0.5 / len(cell) ** 0.5
    assert (parity == bits.sum(1) % 2).all()


def test_the_main_thing_is_found_in_every_rendering_that_holds_it() -> None:
    for i in range(120):
        s = scene(7, i)
        mask, whole = pixels(picture.mask(s)), pixels(picture.instances(s))
        assert set(np.unique(whole)) == set(range(len(s.things) + 1))
        x0, y0, x1, y1 = (int(v) for v in picture.box(s.main).values())
        assert SHAPES[int(mask[whole == 1][0]) - 1] == s.main.shape
        rows, columns = np.nonzero(whole == 1)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x0, y0, x1, y1)
        text = words.caption(s).lower()
        names = product(words.SIZE_WORDS["large"], words.COLOUR_WORDS[s.main.colour], words.SHAPE_WORDS[s.main.shape])
        assert any(" ".join(name) in text for name in names)
        track = waveform(tones.sound(s)) - tones._hum(s.hum)
        for thing in s.things[1:]:
            start = tones.SLOT * (3 * thing.place[0] + thing.place[1])
            track[start : start + tones.TONE] -= tones.tone(thing.shape, thing.colour, thing.size)
        lone = np.abs(np.fft.rfft(track, 8000))  # one bin a hertz
        loud = {c: lone[tones.PITCH[c] - 4 : tones.PITCH[c] + 5].max() for c in COLOURS}
        assert next(c for c in COLOURS if loud[c] > 0.4 * max(loud.values())) == s.main.colour  # the lowest strong partial


def test_label_noise_is_as_stated() -> None:
    scenes = [scene(5, i) for i in range(6000)]
    noise = data.Noise(labels=0.2)
    for name in ("shape", "parity", "octant", "grade"):
        kept = np.mean([truth.target_value(s, name, noise) == truth.target_value(s, name, CLEAN) for s in scenes])
        assert abs(kept - data.best_score(name, truth.SOURCES, noise)) < 4 * 0.4 / 6000**0.5
    assert data.best_score("parity", ["image", "sound"], noise) == 0.5
    assert data.best_score("octant", ["image", "sound"], 0) == 0.5


def test_the_price_is_shared_evenly_by_four_sources() -> None:
    scenes = [scene(2, i) for i in range(6000)]
    parts = np.array([list(truth.price_parts(s).values()) for s in scenes])
    price = np.array([truth.target_value(s, "price", data.Noise()) for s in scenes])
    for count, names in enumerate(
        (["image"], ["image", "sound"], ["image", "sound", "caption"], ["image", "sound", "caption", "table"]), 1
    ):
        design = np.column_stack([parts[:, :count], np.ones(len(price))])
        rest = price - design @ np.linalg.lstsq(design, price)[0]
        assert abs(1 - rest.var() / price.var() - data.best_score("price", names)) < 0.03


def test_the_grade_follows_from_the_table_alone() -> None:
    table = data.shapes(2000, columns=["table", "grade"], noise=CLEAN).to_pylist()
    for row in table:
        score = row["weight"] * {"wood": 0.7, "metal": 1.0, "glass": 1.5, "clay": 2.0}[row["material"]]
        score *= (2.0 if row["made"].year >= 2012 else 0.5) if row["fragile"] else 1.0
        assert row["grade"] == ("low" if score <= 6.9 else "middle" if score <= 16.35 else "high")
    assert min(sum(row["grade"] == g for row in table) for g in truth.GRADES) > 500


@pytest.mark.parametrize("mechanism", ["random", "informative"])
def test_missing_cells_follow_their_mechanism(mechanism: str) -> None:
    columns = ["key", "caption", "weight", "material", "fragile", "made", "grade"]
    whole, holed = data.shapes(4000, columns=columns), data.shapes(4000, columns=columns, missing=mechanism, rate=0.25)
    fragile = np.array(whole["fragile"].to_pylist())
    for name in columns:
        gone = np.array([cell is None for cell in holed[name].to_pylist()])
        if name in ("key", "grade"):
            assert not gone.any()
        else:
            want = (0.25, 0.25) if mechanism == "random" else (0.4, 0.1)
            assert abs(gone[fragile].mean() - want[0]) < 0.04
            assert abs(gone[~fragile].mean() - want[1]) < 0.04
            kept = pa.array(~gone)
            assert holed[name].filter(kept).equals(whole[name].filter(kept))


def test_unique_scenes_differ_in_what_they_show() -> None:
    shown = {frozenset((t.shape, t.colour) for t in scene(0, i, unique=True).things) for i in range(6000)}
    assert len(shown) == 6000
    assert sorted(permute(i, 1000, 9) for i in range(1000)) == list(range(1000))
    with pytest.raises(ConfigError, match="51888 unique scenes"):
        scene(0, 51888, unique=True)


def test_video_decodes_to_the_frames_that_were_drawn() -> None:
    palette = np.frombuffer(picture._palette(), np.uint8).reshape(-1, 3)
    for i in range(40):
        film = Image.open(io.BytesIO(picture.video(scene(1, i))))
        drawn = palette[picture.frames(scene(1, i))]
        assert film.n_frames == picture.FRAMES
        for f in range(picture.FRAMES):
            film.seek(f)
            assert (np.asarray(film.convert("RGB")) == drawn[f]).all()


def test_points_series_and_graph_have_their_shapes() -> None:
    for row in data.shapes(50, seed=8, columns=["points", "series", "graph", "count", "motion"], noise=CLEAN).to_pylist():
        cloud = np.load(io.BytesIO(row["points"]), allow_pickle=False)
        assert cloud.shape == (40 * int(row["count"]), 6)
        path = np.array(row["series"]["values"])
        assert path.shape[1] == 2
        assert 24 <= len(path) <= 40
        travel = path[-3:].mean(0) - path[:3].mean(0)
        ways = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
        if row["motion"] in ways:
            assert travel @ np.array(ways[row["motion"]]) > 0.2
        else:
            assert (np.ptp(path, axis=0) > 0.1).all() == (row["motion"] == "circling")
        nodes, edges = row["graph"]["nodes"], row["graph"]["edges"]
        assert {len(n) for n in nodes} == {19}
        for (u, v), value in zip(edges, row["graph"]["edge_values"], strict=True):
            axis = 17 if value[0] else 18
            assert nodes[v][axis] - nodes[u][axis] == pytest.approx(value[2], abs=2e-7)  # coordinates are float32


def test_questions_have_right_answers_and_references_fit_one_thing() -> None:
    for i in range(200):
        s = scene(4, i)
        by_kind = {q["kind"]: q for q in words.questions(s)}
        assert by_kind["colour"]["answer"] == s.main.colour
        asked = by_kind["existence"]["question"].rstrip("?").split()[-2:]
        assert (by_kind["existence"]["answer"] == "yes") == any([t.colour, t.shape] == asked for t in s.things)
        for thing, reference in zip(s.things, words.references(s), strict=True):
            expression = reference["expression"].split()
            if expression[-1] in SHAPES or expression[-1] == "one":
                fits = [t for t in s.things if set(expression[1:]) - {"one"} <= {t.colour, t.shape}]
                assert fits == [thing]


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_folder_holds_the_same_world(tmp_path: Path, name: str) -> None:
    columns = ["key", "image", "caption", "sound", "fragile", "shape"]
    path = data.write_shapes(tmp_path / "world", 30, table=name, columns=columns, missing="random", rate=0.3)
    want = data.shapes(30, columns=columns, missing="random", rate=0.3)
    options = pc.ConvertOptions(strings_can_be_null=True, null_values=[""], quoted_strings_can_be_null=False)
    got = pc.read_csv(path, convert_options=options) if name.endswith("csv") else pq.read_table(path)
    for column in columns:
        cells = got[column].to_pylist()
        if column in ("image", "sound"):
            cells = [None if cell is None else (path.parent / cell).read_bytes() for cell in cells]
        assert cells == want[column].to_pylist()
    with pytest.raises(ConfigError, match="not empty"):
        data.write_shapes(tmp_path / "world", 3)


@pytest.mark.parametrize(
    "options",
    [{"columns": ["imge"]}, {"missing": "often"}, {"rate": 0.9}, {"size": 4}, {"noise": -1.0}, {"rows": -1}],
)
def test_wrong_options_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        data.shapes(**{"rows": 3, **options})


def test_noise_out_of_bounds_is_refused() -> None:
    with pytest.raises(ConfigError, match="noise labels"):
        data.Noise(labels=1.5)


def test_the_truth_can_be_written_as_json() -> None:
    told = data.shapes_truth(data.Noise(labels=0.1))
    assert json.loads(json.dumps(told))["targets"]["parity"]["best"] == 0.9
    assert told["sources"]["image"] == ["shape", "backdrop", "texture", "count", "colours"]
    for name, target in told["targets"].items():
        for group in target["held_by"]:
            assert data.best_score(name, group) == data.best_score(name, truth.SOURCES)
    with pytest.raises(ConfigError, match="did you mean 'sound'"):
        data.best_score("hum", ["sond"])
