"""Models that die, sleep or count at one point of a design, for tests of executors: their workers import this file."""

import os
import signal
import time

import toys

CURSED = 274_981.77
"""The first parameter in row 9 of a Sobol' design with seed 1."""


class Deadly(toys.Smooth):
    """Kills its process at one point of the design."""

    def evaluate(self, x, *, jacobian=True):
        if abs(x[0] - CURSED) < 1.0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().evaluate(x, jacobian=jacobian)


class Sleepy(toys.Smooth):
    """Takes a minute at one point of the design."""

    def evaluate(self, x, *, jacobian=True):
        if abs(x[0] - CURSED) < 1.0:
            time.sleep(60.0)
        return super().evaluate(x, jacobian=jacobian)


class Counted(toys.Smooth):
    """Notes in a file each time that one is made."""

    def __init__(self, file):
        super().__init__()
        with open(file, "a") as notes:
            notes.write(f"{os.getpid()}\n")
