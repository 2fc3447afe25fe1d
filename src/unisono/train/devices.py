"""Threads, devices and precision. Importing this module imports no torch, so that the environment can be prepared before."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from unisono.core.errors import ConfigError

if TYPE_CHECKING:
    import torch

SPIN_COUNT = 10_000
BUSY_LOAD = 0.5
"""A load average above this means that other programs want the cores our threads would use, or did a moment ago."""
_LOOKS, _BETWEEN = 8, 0.004


def prepare_environment(environment: MutableMapping[str, str] | None = None) -> dict[str, str]:
    """Choose how idle threads wait, so that a busy neighbour cannot make training many times slower.

    GNU OpenMP's threads spin at every barrier; when another program holds a core, each barrier then costs a time slice. On a
    machine that is busy now the threads wait passively; on a quiet one they spin for ``SPIN_COUNT`` turns, which catches the
    short waits and bounds the loss should a neighbour come later. Only speed depends on it, not one bit of a result. It works
    only before torch is imported, and a value that the user has set is left alone.

    Args:
        environment: what to change; the process's own environment by default.

    Returns:
        What was set.
    """
    environment = os.environ if environment is None else environment
    if any(k in environment for k in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")):
        return {}
    busy = hasattr(os, "getloadavg") and os.getloadavg()[0] > BUSY_LOAD and others_running() > BUSY_LOAD
    chosen = {"OMP_WAIT_POLICY": "passive"} if busy else {"GOMP_SPINCOUNT": str(SPIN_COUNT)}
    environment.update(chosen)
    return chosen


def others_running() -> float:
    """How many threads of other programs are running or wait for a core now, the median of a few looks within 30 ms.

    The load average remembers a minute: after a run of one's own has ended it still says that the machine is busy. Where the system
    does not count running threads (``/proc/loadavg``), the load average is all there is.
    """
    counts = []
    for _ in range(_LOOKS):
        try:
            with open("/proc/loadavg", encoding="ascii") as file:
                counts.append(int(file.read().split()[3].split("/")[0]) - 1)
        except (OSError, ValueError, IndexError):
            return os.getloadavg()[0]
        time.sleep(_BETWEEN)
    return sorted(counts)[_LOOKS // 2]


def choose_device(name: str = "auto") -> torch.device:
    """The device to train on: CUDA where there is one, else the CPU, or the one named.

    Raises:
        ConfigError: the device named is unknown or absent.
    """
    import torch

    if name == "auto":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r} is unknown; use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r}: this machine, or this build of torch, has no CUDA; use cpu")
    return device


def bf16_gains(device: torch.device) -> bool:
    """Whether bfloat16 products are much faster than float32 ones here: AMX, or CUDA from Ampere on.

    AVX-512 BF16 alone is not enough: small products gain, whole training steps of ragged batches do not.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def choose_precision(wanted: str, device: torch.device) -> str:
    """Resolve ``auto`` to ``bf16`` where the device gains from it, else ``float32``.

    Raises:
        ConfigError: bf16 is wanted on a device that has none.
    """
    if wanted == "auto":
        return "bf16" if bf16_gains(device) else "float32"
    if wanted == "bf16" and device.type not in {"cpu", "cuda"}:
        raise ConfigError(f"train.precision: bf16 is not available on {device.type}; use float32 or auto")
    return wanted


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which products run in the given precision; weights stay float32."""
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def machine_summary() -> dict[str, Any]:
    """What the figures of a run depend on: processor, threads, torch, device, and how the threads wait."""
    import torch

    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "bf16": bf16_gains(choose_device()),
        "waiting": {k: os.environ[k] for k in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS") if k in os.environ},
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
