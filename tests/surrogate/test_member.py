"""What a network in online training keeps when the scale of its responses changes."""

from analytic import five_samples
import numpy as np
import pytest
import torch

from sobofem.surrogate import MLP, OnlineSettings
from sobofem.surrogate.loss import weighted
from sobofem.surrogate.online.member import Member
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.training.train import scaled_targets
from sobofem.surrogate.weighting import DualBalanced, GradNorm, Guarded, ReLoBRaLo, SelfAdaptive, SoftAdapt, Until

DATA = five_samples(12, seed=0)


def rescaled_after_an_update(weighting):
    """A member that has updated its weights once and then, on the same samples, been given other scales."""
    scaling = Scaling.from_data(DATA.bounds, DATA.y, DATA.responses)
    units = np.array([0.2, 5.0, 1.0, 3.0, 0.01])
    other = Scaling(scaling.x_center, scaling.x_scale, scaling.y_center + scaling.y_scale, scaling.y_scale * units)
    generator = torch.Generator().manual_seed(1)
    member = Member(MLP(6, 2).build(6, 5, generator), weighting, decay=0.0, generator=generator)
    targets, changed = (scaled_targets(s, DATA.x, DATA.y, DATA.jacobian, device="cpu") for s in (scaling, other))
    member.measure(targets)
    member.reweigh(50, targets)
    assert member.objective.updated == 50
    return member.measure(changed, scaling, other), changed


@pytest.mark.parametrize("groups", ["two", "all"])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(
    ("strategy", "names"),
    [(SoftAdapt, ("losses",)), (ReLoBRaLo, ("first", "before")), (GradNorm, ("first",)), (DualBalanced, ("means",))],
)
def test_losses_that_a_weighting_remembers_follow_the_scale_of_the_responses(strategy, names, groups, scaled):
    """They are what the weighting would note now, the network being the same as when it took note."""
    weighting = strategy(groups=groups, scaled=scaled)
    for wrapped in (weighting, Until(weighting, 100)):
        objective, targets = rescaled_after_an_update(wrapped)
        noted = weighting.update(weighting.start(targets), objective.terms(50, targets)).memory
        for name in names:
            assert objective.weights.memory[name].numpy() == pytest.approx(noted[name].numpy(), rel=1e-9)


def test_a_guard_compares_losses_in_the_present_scale():
    objective, targets = rescaled_after_an_update(Guarded(SoftAdapt()))
    memory, terms = objective.weights.memory, objective.terms(50, targets)
    assert memory["best"] == pytest.approx(float(weighted(terms.losses, memory["fallback"], terms.mean_squares)))
    noted = SoftAdapt().update(SoftAdapt().start(targets), terms).memory
    assert memory["inner"]["losses"].numpy() == pytest.approx(noted["losses"].numpy(), rel=1e-9)


@pytest.mark.parametrize("wrap", [lambda rule: rule, lambda rule: Until(rule, 100), Guarded])
def test_weights_of_single_samples_are_refused_where_samples_come_and_go(wrap):
    OnlineSettings(weighting=wrap(SelfAdaptive()))
    with pytest.raises(ValueError, match=r"samples come and go; take one that weighs terms"):
        OnlineSettings(weighting=wrap(SelfAdaptive(per_sample=True)))
