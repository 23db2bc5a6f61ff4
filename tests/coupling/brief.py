"""With `sobofem --use`: a streamed training ends after few iterations, where what comes before is under test."""

import sys

from sobofem.coupling.parallel.world import launched_rank

if launched_rank():
    sys.modules["torch"] = None  # rank 0 trains; the others need none
else:
    from sobofem.surrogate import LBFGS, online

    online.MIN_LAST_ITERATIONS = ITERATIONS = 150
    online.LBFGS = lambda iterations=ITERATIONS: LBFGS(iterations=min(iterations, ITERATIONS))
