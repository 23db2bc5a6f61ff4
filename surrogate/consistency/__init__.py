"""Checks of derivatives by the values that they came with."""

from sobofem.surrogate.consistency.check import check_derivatives
from sobofem.surrogate.consistency.report import DerivativeReport, Finding

__all__ = ["DerivativeReport", "Finding", "check_derivatives"]
