"""Checks of derivatives by the values that they came with."""

from surrogate.consistency.check import check_derivatives
from surrogate.consistency.report import DerivativeReport, Finding

__all__ = ["DerivativeReport", "Finding", "check_derivatives"]
