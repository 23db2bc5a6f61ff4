"""A study: the plate with a hole, its samples, its surrogate, and what that is for, in one file.

    sobofem run examples/study.py --out plate-study

does it all, and goes on where it was interrupted; under `mpiexec -n 8` the solves are spread over the ranks.
"""

from sobofem.coupling import Design, Marginal
from sobofem.coupling.study import Study
from sobofem.coupling.study.purposes import Optimization, Uncertainty
from sobofem.fem.library.plate_with_hole import plate_with_hole

MATERIAL = {"young": 70e3, "poisson": 0.33}  # MPa, -
LOAD = {"traction_x": 100.0, "traction_y": 60.0}  # MPa

study = Study(
    plate_with_hole,
    Design("sobol", 32, seed=1),
    unseen=Design("sobol", 32, seed=2),
    purposes=(
        Optimization("mass", at_most={"stress_concentration": 1.95}, fixed=MATERIAL | LOAD),
        Uncertainty(
            {"traction_x": Marginal("normal", 100.0, 8.0), "traction_y": Marginal("normal", 60.0, 8.0)},
            fixed=MATERIAL | {"radius_x": 20.0, "radius_y": 20.0},
            fail=("stress_concentration > 2.9",),
        ),
    ),
)
