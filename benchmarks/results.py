"""Results of the protocol as lines of JSON: appended one by one, never changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
import json
from pathlib import Path

from benchmarks.rivals import ARMS


@dataclass(frozen=True, order=True)
class Case:
    """One training.

    Attributes:
        task: One of `benchmarks.tasks.TASKS`.
        n: Training samples.
        design: Number of their design.
        arm: Name in `benchmarks.rivals.ARMS`.
        seed: Of the training.
        version: Of the arm.
    """

    task: str
    n: int
    design: int
    arm: str
    seed: int
    version: int


@dataclass(frozen=True)
class Result:
    """What a training came to. All but `case` and `seconds` is None where it failed.

    Attributes:
        case: What was trained.
        seconds: Time of training, of the processor.
        value: Normalized root mean square error of the responses on unseen points, mean over them.
        derivative: The same of the entries of the Jacobian.
        covered_values: Share of responses inside 95 % intervals; None where the arm gives none.
        covered_derivatives: The same of the entries of the Jacobian.
        failure: Why there is no result.
    """

    case: Case
    seconds: float
    value: float | None = None
    derivative: float | None = None
    covered_values: float | None = None
    covered_derivatives: float | None = None
    failure: str | None = None

    def line(self) -> str:
        """One line of JSON."""
        record = asdict(self)
        return json.dumps(record.pop("case") | record)

    @classmethod
    def of(cls, line: str) -> Result:
        """What `line` wrote.

        Raises:
            ValueError: If it is something else.
        """
        record = json.loads(line)
        try:
            case = Case(**{field.name: record.pop(field.name) for field in fields(Case)})
            return cls(case, **record)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a result of this protocol ({error}): {line[:80]}") from error


def read(path: Path) -> dict[Case, Result]:
    """All results in a file whose arms are of the present version, the last of each case; none without a file.

    A line that was cut off, as by a kill, is left out.

    Raises:
        ValueError: If a whole line is no result.
    """
    if not path.exists():
        return {}
    found = [Result.of(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return {result.case: result for result in found if is_current(result.case)}


def is_current(case: Case) -> bool:
    """Whether a case is of the present version of an arm that there is."""
    return case.arm in ARMS and ARMS[case.arm].version == case.version


def append(path: Path, result: Result) -> None:
    """Add a result to a file."""
    cut_off = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write(("\n" if cut_off else "") + result.line() + "\n")


def tasks_of(results: Iterable[Result]) -> list[str]:
    """Tasks in the order in which they first come."""
    return list(dict.fromkeys(result.case.task for result in results))
