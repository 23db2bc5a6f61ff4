"""Results as lines of JSON, one for a method on a family of tasks: appended one by one, the last one counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
import json
from pathlib import Path

from benchmarks.optimization.judge import Point


@dataclass(frozen=True)
class Course:
    """How a method went about one task.

    Attributes:
        points: Where the method asked for the model's answer, in order, judged.
        paid: How many of these an earlier task of the family had asked for.
        end: What the method ended with; the best of its points where it does not say.
        seconds: Time, solves included.
        message: How it ended: `optimal`, `spent`, `stopped`, or why it failed.
    """

    points: tuple[Point, ...]
    paid: int
    end: Point
    seconds: float
    message: str

    @property
    def solves(self) -> int:
        """Solves that the task takes by itself."""
        return len(self.points)

    @property
    def new(self) -> int:
        """Solves that it adds to those of the tasks before."""
        return len(self.points) - self.paid


@dataclass(frozen=True)
class Result:
    """A method on a family of tasks.

    Attributes:
        problem: Name of the problem.
        arm: Name of the method.
        courses: One a task.
    """

    problem: str
    arm: str
    courses: tuple[Course, ...]

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, line: str) -> Result:
        """What `line` wrote.

        Raises:
            ValueError: If it is something else.
        """
        try:
            record = json.loads(line)
            courses = tuple(
                Course(
                    tuple(Point(*point) for point in course["points"]),
                    course["paid"],
                    Point(*course["end"]),
                    course["seconds"],
                    course["message"],
                )
                for course in record["courses"]
            )
            return cls(record["problem"], record["arm"], courses)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a result of this comparison ({error}): {line[:80]}") from error


Results = dict[tuple[str, str], Result]
"""By problem and method."""


def read(path: Path) -> Results:
    """All results in a file, none without one. A line that was cut off, as by a kill, is left out.

    Raises:
        ValueError: If a whole line is no result.
    """
    if not path.exists():
        return {}
    found = [Result.of(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return {(result.problem, result.arm): result for result in found}


def append(path: Path, result: Result) -> None:
    """Add a result to a file."""
    cut_off = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write(("\n" if cut_off else "") + result.line() + "\n")
