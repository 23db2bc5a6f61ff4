"""Two scales: a law learned of a cell, a structure solved with it, and certified by solving cells of the structure."""

from sobofem.coupling.scales.certificate import Certificate, Visit, judge, visit
from sobofem.coupling.scales.study import TwoScales, TwoScaleSettings, two_scales

__all__ = ["Certificate", "TwoScaleSettings", "TwoScales", "Visit", "judge", "two_scales", "visit"]
