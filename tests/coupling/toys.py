"""Closed-form models for the tests: by name on a command line (`toys.py:smooth`) or imported."""

import ctypes
from dataclasses import dataclass
import itertools
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from typing import Any, ClassVar
import weakref

import numpy as np


class TooMuch(ArithmeticError):
    """A sample without an answer, as `fem.NotConverged` is: known by its attributes alone."""

    def __init__(self, reason, load_factor):
        super().__init__(reason)
        self.reason, self.load_factor = reason, load_factor


@dataclass
class Smooth:
    """Three responses of three inputs of very different size: curved, linear, and blind to one input."""

    parameters = ("E", "t", "p")
    responses = ("energy", "weight", "sway")
    bounds = np.array([[1e5, 3e5], [0.5, 2.0], [-1.0, 4.0]])
    units: ClassVar = {"E": "MPa", "t": "mm", "energy": "mJ"}
    digest = "smooth-1"
    seconds: float = 0.0

    def evaluate(self, x, *, jacobian=True):
        E, t, p = np.asarray(x, dtype=float)
        if self.seconds:
            time.sleep(self.seconds)
        y = np.array([p**2 / (E * 1e-5 * t**3), 7.8 * t, np.sin(p) * t + p])
        if not jacobian:
            return y, None
        first = y[0]
        energy = [-first / E, -3 * first / t, 2 * p / (E * 1e-5 * t**3)]
        return y, np.array([energy, [0.0, 7.8, 0.0], [0.0, np.sin(p), np.cos(p) * t + 1.0]])


class Curved(Smooth):
    """Knows its second derivatives."""

    digest = "curved-1"

    def hvp(self, x, weights, directions):
        E, t, p = np.asarray(x, dtype=float)
        e = p**2 / (E * 1e-5 * t**3)
        hessian = np.zeros((3, 3, 3))
        hessian[0] = [
            [2 * e / E**2, 3 * e / (E * t), -2 * e / (E * p)],
            [3 * e / (E * t), 12 * e / t**2, -6 * e / (t * p)],
            [-2 * e / (E * p), -6 * e / (t * p), 2 * e / p**2],
        ]
        hessian[2, 1:, 1:] = [[0.0, np.cos(p)], [np.cos(p), -np.sin(p) * t]]
        return np.atleast_2d(directions) @ np.tensordot(weights, hessian, 1)


class Fragile(Smooth):
    """Has no answer where p > 2."""

    digest = "fragile-1"

    def evaluate(self, x, *, jacobian=True):
        if x[2] > 2.0:
            raise TooMuch(f"buckled at p = {x[2]:.3f}", 2.0 / x[2])
        return super().evaluate(x, jacobian=jacobian)


@dataclass
class Wrong(Smooth):
    """A Jacobian with one entry changed: multiplied by a factor, or replaced."""

    row: int = 0
    column: int = 0
    factor: float = 1.0
    shift: float = 0.0

    def evaluate(self, x, *, jacobian=True):
        y, dy = super().evaluate(x, jacobian=jacobian)
        if dy is not None:
            dy[self.row, self.column] = dy[self.row, self.column] * self.factor + self.shift
        return y, dy


@dataclass
class LoneBug(Smooth):
    """Raises an ordinary error on one MPI rank, in its third sample; the others go on."""

    error: type[BaseException] | None = ZeroDivisionError
    count: int = 0

    def evaluate(self, x, *, jacobian=True):
        from mpi4py import MPI

        self.count += 1
        if MPI.COMM_WORLD.rank == 1 and self.count == 3:
            if self.error is None:
                os._exit(0)
            raise self.error("a bug of rank one")
        return super().evaluate(x, jacobian=jacobian)


class Deadly(Smooth):
    """Kills its process at one point of the design, as the system does when memory runs out."""

    def evaluate(self, x, *, jacobian=True):
        if abs(x[0] - 238_063) < 1.0:
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().evaluate(x, jacobian=jacobian)


class Stops(Smooth):
    """Ends the program at one point of the design, as `STOP` does in Fortran."""

    def evaluate(self, x, *, jacobian=True):
        if abs(x[0] - 238_063) < 1.0:
            ctypes.CDLL(None).exit(0)
        return super().evaluate(x, jacobian=jacobian)


class Vanishes(Smooth):
    """Ends its process at one point of the design, past all that could be done at its end."""

    def evaluate(self, x, *, jacobian=True):
        if abs(x[0] - 238_063) < 1.0:
            ctypes.CDLL(None)._exit(0)
        return super().evaluate(x, jacobian=jacobian)


class Replaced(Smooth):
    """Puts another program in the place of its own at one point of the design."""

    def evaluate(self, x, *, jacobian=True):
        if abs(x[0] - 238_063) < 1.0:
            os.execv("/bin/true", ["true"])
        return super().evaluate(x, jacobian=jacobian)


@dataclass
class Leaves(Smooth):
    """Starts something in its first sample, and leaves it running."""

    what: Any = None

    def evaluate(self, x, *, jacobian=True):
        if self.what is not None:
            what, self.what = self.what, None
            what()
        return super().evaluate(x, jacobian=jacobian)


def thread():
    threading.Thread(target=time.sleep, args=(600,)).start()


def process():
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()


def program():
    subprocess.Popen(["sleep", "600"], start_new_session=True)


class Waits(Smooth):
    """Computes a few samples, and then waits for ever."""

    count = 0

    def evaluate(self, x, *, jacobian=True):
        self.count += 1
        if self.count > 8:
            time.sleep(600.0)
        return super().evaluate(x, jacobian=jacobian)


class Snapped(Smooth):
    """Whose equilibria are unstable where p > 0."""

    negative_pivots = 0

    def evaluate(self, x, *, jacobian=True):
        self.negative_pivots = int(x[2] > 0.0)
        return super().evaluate(x, jacobian=jacobian)


class Swallows(Smooth):
    """Is interrupted within a destructor, where exceptions are lost."""

    def evaluate(self, x, *, jacobian=True):
        weakref.finalize(Smooth(), os.kill, os.getpid(), signal.SIGINT)
        time.sleep(20.0)
        return super().evaluate(x, jacobian=jacobian)


class Stuck(Smooth):
    """Never comes back from C code at one point of the design, and keeps Python's lock meanwhile."""

    def evaluate(self, x, *, jacobian=True):
        if abs(x[0] - 238_063) < 1.0:
            sum(itertools.repeat(0, 10**14))
        return super().evaluate(x, jacobian=jacobian)


@dataclass
class Waiting(Smooth):
    """Computed by two ranks, of which the second raises, or waits, at one point where the first waits for it."""

    comm: Any = None
    error: Exception | None = None

    def evaluate(self, x, *, jacobian=True):
        if abs(x[0] - 238_063) < 1.0:
            if self.comm.rank == 1 and self.error is not None:
                raise self.error
            self.comm.recv(source=1 - self.comm.rank, tag=99)
        return super().evaluate(x, jacobian=jacobian)


class Shared(Smooth):
    """Computed by several ranks, each of which contributes its part."""

    def __init__(self, comm, size):
        super().__init__()
        if comm is None or comm.size != size:
            raise ValueError(f"given {comm and comm.size} ranks, not {size}")
        self.comm = comm

    def evaluate(self, x, *, jacobian=True):
        y, dy = super().evaluate(x, jacobian=jacobian)
        y = self.comm.allreduce(y / self.comm.size)
        assert (self.comm.bcast(x) == x).all()
        return y, dy


class EveryRankBug(Smooth):
    """Raises an ordinary error in its third sample and all that follow, on every rank."""

    count = 0

    def evaluate(self, x, *, jacobian=True):
        self.count += 1
        if self.count >= 3:
            raise ZeroDivisionError("a bug of every rank")
        return super().evaluate(x, jacobian=jacobian)


all_bug = EveryRankBug(seconds=0.05)


class Twofold(Smooth):
    """Finds its responses a second way, by which the first is twice as large."""

    def recompute(self, x):
        response = self.evaluate(x, jacobian=False)[0]
        again = response.copy()
        again[0] *= 2
        return response, again, np.abs(response)


smooth = Smooth()
twofold = Twofold()
deadly = Deadly(seconds=0.01)
fragile = Fragile()
slow = Smooth(seconds=0.02)
wrong = Wrong(factor=1.01)
lone_bug = LoneBug(seconds=0.05)
lone_c_bug = LoneBug(seconds=0.05, error=None)
stuck = Stuck()
stops = Stops()
vanishes = Vanishes()
replaced = Replaced()
leaves_thread, leaves_process, leaves_program = Leaves(what=thread), Leaves(what=process), Leaves(what=program)
waits = Waits()
snapped = Snapped()
swallows = Swallows()
lone_exit = LoneBug(seconds=0.05, error=SystemExit)
lone_interrupt = LoneBug(seconds=0.05, error=KeyboardInterrupt)
number = 3


def factory(comm=None):
    model = Smooth()
    model.digest = f"factory-{'none' if comm is None else comm.size}"
    return model


def of_two(comm=None):
    return Shared(comm, 2)


def of_three(comm=None):
    return Shared(comm, 3)


def deadlocked(comm=None):
    return Waiting(comm=comm, error=RuntimeError("alone on rank one"))


def never_comes(comm=None):
    return Waiting(comm=comm)


def lame(comm=None):
    raise ValueError("every rank says no")


def exits_on_one_rank(comm=None):
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 1:
        raise SystemExit("no licence on rank one")
    return Smooth()


def nothing():
    return 3
