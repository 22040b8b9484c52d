"""What this machine has for a training: cores, memory, GPU. The only module that asks the system and torch for them."""

import ctypes
import math
import os
import platform
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from treering.errors import needs

CGROUPS = Path("/sys/fs/cgroup")
AMPERE = (8, 0)
MEMORY_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""The limit and the use of a control group, in its second version and its first."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory in bytes that is free now. ``device_memory`` is the GPU's, or this process's share of ``memory`` without
    one. ``devices`` train together: as many as ``torchrun`` started, else one; ``visible`` are those of this host.
    """

    cores: int
    memory: int
    device: str
    name: str
    device_memory: int
    capability: tuple[int, int] | None
    devices: int
    visible: int
    threads: int
    bfloat16: bool = False
    """Whether it multiplies in bfloat16 itself: GPUs from Ampere on; cores with AVX-512 BF16 or AMX."""


def machine(*, gpu: bool) -> Machine:
    """Look at the machine as this process may use it: within its control group, on the GPUs it may see."""
    with needs("train"):
        import torch

    memory = free_memory()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device, name, capability, visible = "cpu", _processor(), None, 1
    device_memory = memory // local
    if gpu and torch.cuda.is_available():
        number = int(os.environ.get("LOCAL_RANK", "0"))
        device, visible = "cuda", torch.cuda.device_count()
        name, capability = torch.cuda.get_device_name(number), torch.cuda.get_device_capability(number)
        device_memory = torch.cuda.mem_get_info(number)[0]  # what is free beside the context that asking made
    elif gpu and torch.backends.mps.is_available():
        device, device_memory = "mps", min(memory, torch.mps.recommended_max_memory())
    return Machine(
        cores=cores(),
        memory=memory,
        device=device,
        name=name,
        device_memory=device_memory,
        capability=capability,
        devices=int(os.environ.get("WORLD_SIZE", "1")),
        visible=visible,
        threads=torch.get_num_threads(),
        bfloat16=capability >= AMPERE if capability else device == "cpu" and _multiplies_bfloat16(),
    )


def compiles() -> bool:
    """Whether torch.compile finds here what it makes a GPU's kernels with: Triton, a C compiler, Python's headers."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return bool(find_spec("triton") and compiler and headers.is_file())


def free_memory() -> int:
    """Bytes that can be had now: the system's, or what a control group leaves of its limit if that is less."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # all there is, where the system tells no more
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    return min([free, *(left_of(group) for group in _groups())])


def give_back() -> None:
    """Let the C library give the system what its heap holds free, between what is in use too. Only glibc can."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def cores() -> int:
    """Whole cores this process may keep busy."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in map(quota_of, _groups()) if quota < math.inf)]))


def left_of(group: Path) -> int:
    """Bytes that a control group leaves. What its files' cache holds is given up when it is needed, so it is left."""
    for limit, used in MEMORY_FILES:
        with suppress(OSError, ValueError):  # not this version, or `max`
            cache = 0
            for line in (group / "memory.stat").read_text().splitlines():
                if line.startswith(("inactive_file ", "total_inactive_file ")):
                    cache = int(line.split()[1])
            return max(0, int((group / limit).read_text()) - int((group / used).read_text()) + cache)
    return 2**63


def quota_of(group: Path) -> float:
    """Cores that a control group grants."""
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return int(quota) / int(period)
    with suppress(OSError, ValueError):
        granted = int((group / "cpu.cfs_quota_us").read_text())
        if granted > 0:
            return granted / int((group / "cpu.cfs_period_us").read_text())
    return math.inf


def _groups() -> Iterator[Path]:
    """The folders of the control groups this process is in, from its own up to the root, of either version."""
    yield from (CGROUPS, CGROUPS / "memory", CGROUPS / "cpu")  # a container sees its own group as the root
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            group = Path(path.lstrip("/"))
            for root in [CGROUPS / kind for kind in kinds.split(",") if kind] or [CGROUPS]:
                yield from (root / part for part in (group, *group.parents))


def _multiplies_bfloat16() -> bool:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return not {"avx512_bf16", "amx_bf16"}.isdisjoint(line.split())
    return False


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
