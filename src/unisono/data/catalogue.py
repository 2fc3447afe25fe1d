"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from unisono.core.errors import ConfigError, nearest
from unisono.data.arrays import ett, mfeat, planetoid, ucr
from unisono.data.images import digits, emoji, emoji_skin_tones, mnist
from unisono.data.sounds import av_digits, fsdd
from unisono.data.world import shapes

_SETS: dict[str, Callable[..., pa.Table]] = {
    loader.__name__: loader for loader in (shapes, digits, emoji, emoji_skin_tones, mnist, fsdd, av_digits, mfeat, ucr, ett, planetoid)
}


def names() -> list[str]:
    """List the data sets that ``load`` knows."""
    return list(_SETS)


def load(name: str, /, **options: Any) -> pa.Table:
    """Load a data set by name; options are those of the function of that name, such as ``load("ucr", name="GunPoint")``.

    Raises:
        ConfigError: no such set, or an option it does not take.
    """
    import inspect

    if name not in _SETS:
        raise ConfigError(f"no data set {name!r}{nearest(name, _SETS)}")
    known = inspect.signature(_SETS[name]).parameters
    for option in options:
        if option not in known:
            raise ConfigError(f"data set {name!r} has no option {option!r}{nearest(option, known)}")
    return _SETS[name](**options)
