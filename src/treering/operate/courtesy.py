"""How long work gives way: to everything else on the machine, and to its battery."""

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SUPPLIES = Path("/sys/class/power_supply")
LOOK_SECONDS = 5.0
"""How often the power is looked at."""


def lowest_priority() -> None:
    """Let every other program go first, with the processor and with the disk, from here to the end of this process."""
    os.nice(19)
    if program := shutil.which("ionice"):
        subprocess.run([program, "-c", "3", "-p", str(os.getpid())], check=False, capture_output=True)


def on_battery(supplies: Path = SUPPLIES) -> bool:
    """Whether the machine runs on its battery. What cannot be told is taken for power: most machines have no other."""
    if sys.platform == "darwin":
        program = shutil.which("pmset")
        told = subprocess.run([program, "-g", "batt"], check=False, capture_output=True, text=True) if program else None
        return told is not None and "'Battery Power'" in told.stdout
    try:
        kinds = {supply: _read(supply / "type") for supply in supplies.iterdir()}
    except OSError:
        return False
    if any(_read(supply / "online") == "1" for supply, kind in kinds.items() if kind in ("Mains", "USB")):
        return False
    # A mouse has a battery, too.
    own = (supply for supply, kind in kinds.items() if kind == "Battery" and _read(supply / "scope") != "Device")
    return any(_read(supply / "status") == "Discharging" for supply in own)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


class Power:
    """Asked whether work may go on: waits while the machine is on its battery, ``patience`` seconds in all."""

    def __init__(
        self,
        patience: float,
        say: Callable[[str], None],
        supplies: Path = SUPPLIES,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.left, self.say, self.supplies = patience, say, supplies
        self.clock, self.sleep = clock, sleep
        self.waited = 0.0
        self._looked = -math.inf

    def __call__(self) -> bool:
        """Whether work may go on; False where the battery lasted longer than the patience."""
        if self.clock() - self._looked < LOOK_SECONDS:
            return True
        if on_battery(self.supplies):
            self.say("on battery: waiting for power")
            while on_battery(self.supplies):
                if self.left <= 0:
                    return False
                pause = min(LOOK_SECONDS, self.left)
                self.sleep(pause)
                self.left -= pause
                self.waited += pause
            self.say("power is back: going on")
        self._looked = self.clock()
        return True
