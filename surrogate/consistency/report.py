"""What a check of derivatives has found, in records and in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from sobofem.surrogate.samples.checks import in_words


@dataclass(frozen=True)
class Finding:
    """Derivatives that don't fit the values, and what would make them fit.

    Attributes:
        responses: Whose derivatives, by name.
        parameters: By which parameters; all of them where empty.
        rows: In which samples, by row number; in all of them where None.
        kind: `value` if values don't fit, and not derivatives; `sample` if both would multiplied by one factor;
            `factor` if derivatives fit multiplied by one, `exchange` if those by the two parameters are exchanged,
            `misfit` if neither is so.
        factor: What they are to be multiplied by, about; None for another kind.
    """

    responses: tuple[str, ...]
    parameters: tuple[str, ...]
    rows: tuple[int, ...] | None
    kind: Literal["value", "sample", "factor", "exchange", "misfit"]
    factor: float | None = None

    def __str__(self) -> str:
        if self.kind == "value":
            rows = in_words(np.array(self.rows))
            return f"the values of {_listed(self.responses)} in {rows} don't fit the other samples"
        if self.kind == "sample":
            subject = f"values and derivatives of {_listed(self.responses)} in {in_words(np.array(self.rows))}"
            return f"{subject} don't fit the other samples: they would if multiplied by {self.factor:g}"
        by = f" by {_listed(self.parameters)}" if self.parameters else ""
        subject = f"the derivatives of {_listed(self.responses)}{by}"
        if self.rows is not None:
            subject += f" in {in_words(np.array(self.rows))}"
        fit = "the values" if self.rows is None else "the other samples"
        if self.kind == "factor":
            return f"{subject} don't fit {fit}: they would if multiplied by {self.factor:g}"
        if self.kind == "exchange":
            return f"{subject} don't fit {fit}: they would if exchanged"
        return f"{subject} don't fit {fit}"


@dataclass(frozen=True)
class DerivativeReport:
    """The outcome of `check_derivatives`.

    Attributes:
        findings: What doesn't fit, gravest first: what concerns all samples, then single ones.
        unresolved: Responses that vary too much between the samples for single samples to be judged by the others.
        checked: Number of samples compared: those that miss no label.
        levels: By response, how well the samples predict each other: root mean square error of values as a share of
            their standard deviation, and of slopes as a share of their root mean square. Labels are no noisier.
        passed_over: Responses of which the derivatives by some parameter are missing in all samples.
    """

    findings: tuple[Finding, ...]
    unresolved: tuple[str, ...]
    checked: int
    levels: Mapping[str, tuple[float, float]] = field(default_factory=dict, compare=False)
    passed_over: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def __str__(self) -> str:
        lines = [str(finding) for finding in self.findings] or [
            f"nothing was found against the derivatives of {self.checked} samples"
        ]
        if self.unresolved:
            lines.append(f"single samples of {_listed(self.unresolved)} can't be judged: they are too far apart")
        if self.passed_over:
            lines.append(f"{_listed(self.passed_over)} not looked at: no sample has all its derivatives")
        return "\n".join(lines)


def merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The same findings, those of several responses or of several samples as one where they agree in all else."""
    together: dict[Finding, list[Finding]] = {}
    for finding in findings:
        together.setdefault(replace(finding, responses=()), []).append(finding)
    alike = [replace(key, responses=tuple(f.responses[0] for f in those)) for key, those in together.items()]
    rows: dict[Finding, list[int]] = {}
    for finding in alike:
        if finding.rows is not None:
            rows.setdefault(replace(finding, rows=()), []).extend(finding.rows)
    single = [replace(key, rows=tuple(sorted(numbers))) for key, numbers in rows.items()]
    return (*(finding for finding in alike if finding.rows is None), *single)


def _listed(names: tuple[str, ...]) -> str:
    quoted = [repr(name) for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
