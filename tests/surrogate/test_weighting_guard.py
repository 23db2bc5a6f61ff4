"""Weightings around weightings: the guard, and the end of adapting."""

from dataclasses import dataclass
import warnings

from analytic import five_samples
import pytest
import torch
from weighting_cases import begun, random_targets, tensor, terms

from sobofem.surrogate import MLP, Adam, train
from sobofem.surrogate.online.checkpoint import pack, unpack
from sobofem.surrogate.weighting import (
    ConFIG,
    Fixed,
    Guarded,
    InverseDirichlet,
    PerChannel,
    ProfiledLikelihood,
    Until,
    Weighting,
    Weights,
)

TARGETS = random_targets([[1.0, 2.0, 0.5], [0.1, 3.0, 1.0]])
SQUARES = TARGETS.mean_squares()


@dataclass(frozen=True)
class Growing(Weighting):
    """Weights times a factor at each update."""

    factor: float
    interval: int = 5
    uses_jacobian = True

    def start(self, targets):
        return Weights(PerChannel().start(targets).values, {"updates": 0})

    def update(self, weights, terms):
        values = weights.values.clone()
        values[:, 1:] *= self.factor
        return Weights(values, {"updates": weights.memory["updates"] + 1})


def state(share, step=5):
    """Terms whose losses are this share of the mean squares."""
    return terms((share * SQUARES).tolist(), squares=SQUARES.tolist(), step=step)


def run(rule, shares):
    weights = rule.start(TARGETS)
    for k, share in enumerate(shares):
        weights = rule.update(weights, state(share, step=5 * (k + 1)))
    return weights


def test_a_guard_hands_through_what_does_not_go_astray():
    rule = Growing(1.5)
    guarded = run(Guarded(rule, spread=100.0), [0.5, 0.1, 0.15, 0.02])
    assert torch.equal(guarded.values, run(rule, [0.5, 0.1, 0.15, 0.02]).values)
    assert guarded.memory["astray"] == ""
    assert guarded.memory["inner"] == {"updates": 4}


def test_a_guard_falls_back_where_weights_spread_and_says_so():
    rule = Guarded(Growing(5.0), fallback=PerChannel(sensitivities=2.0), spread=100.0)
    with pytest.warns(
        UserWarning, match=r"Growing.* went astray \(weights spread to 6.3e\+01.* at step 15\).*takes over"
    ):
        weights = run(Guarded(Growing(5.0), fallback=PerChannel(sensitivities=2.0), spread=60.0), [0.5, 0.4, 0.3, 0.2])
    assert torch.equal(weights.values, PerChannel(sensitivities=2.0).start(TARGETS).values)
    assert "step 15" in weights.memory["astray"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(rule, [0.5, 0.4, 0.3])


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_guard_falls_back_where_a_weight_is_not_finite(wrong):
    with pytest.warns(UserWarning, match="not finite at step 5"):
        weights = run(Guarded(Growing(wrong)), [0.5])
    assert torch.equal(weights.values, PerChannel().start(TARGETS).values)


def test_a_guard_falls_back_where_the_loss_stays_above_its_best():
    shares = [0.1, 0.3, 0.05, 0.2, 0.09, 0.2, 0.3, 0.4]  # too high at 2, 4, and from 6 on
    rule = Guarded(Growing(1.0), worse=2.0, patience=3)
    with pytest.warns(UserWarning, match="the loss by the fallback's weights is 8 times its best at step 40"):
        run(rule, shares)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(rule, shares[:-1])


def test_a_guard_that_has_fallen_back_stays_there():
    with pytest.warns(UserWarning, match="went astray"):
        weights = run(Guarded(Growing(float("nan"))), [0.5])
    rule = Guarded(Growing(1.5))
    assert rule.update(weights, state(0.1)) is weights


def test_what_a_guard_remembers_can_be_stored_and_read_back():
    rule = Guarded(ProfiledLikelihood())
    weights = rule.update(rule.start(TARGETS), state(0.1))
    tensors = {}
    memory = unpack(pack(weights.memory, "memory", tensors), tensors)
    again = rule.update(Weights(weights.values, memory), state(0.05))
    assert torch.equal(again.values, rule.update(weights, state(0.05)).values)


def test_a_guarded_training_tells_its_user_and_ends_with_the_fallback():
    data = five_samples(12, seed=0)
    rule = Guarded(ProfiledLikelihood(groups="all", floor=0.0, interval=5), spread=1.5)
    with pytest.warns(UserWarning, match=r"ProfiledLikelihood.* went astray"):
        history = train(data, network=MLP(6, 1), weighting=rule, optimizers=(Adam(60, 0.02),)).history
    fallback = train(data, network=MLP(6, 1), optimizers=(Adam(5),)).history
    assert (history.weights[-1] == fallback.weights[0]).all()


def test_until_adapts_up_to_a_step_and_keeps_what_it_has():
    weights = run(Until(Growing(2.0), steps=12), [0.5, 0.4, 0.3, 0.2])
    assert torch.equal(weights.values, run(Growing(2.0), [0.5, 0.4]).values)


def test_until_leaves_out_weights_that_were_negative():
    rule = Until(ConFIG("all", scaled=False), steps=5)
    gradients = [[1.0, 0.0, 0.0], [1.0, 0.1, 0.0], [1.0, 0.3, 0.05]]
    signed = rule.update(begun(rule, (1, 3)), terms([[1.0] * 3], gradients=gradients, step=5))
    assert signed.values.min() < 0.0
    kept = rule.update(signed, terms([[1.0] * 3], gradients=gradients, step=6))
    assert kept.reference is None
    assert kept.values.tolist() == signed.values.clamp(min=0.0).tolist()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Guarded({"interval": 5}),
            TypeError,
            r"adaptive of Guarded is \{.*expected a weighting, as PerChannel",
        ),
        (lambda: Guarded(Fixed(), fallback=None), TypeError, "fallback of Guarded is None"),
        (
            lambda: Guarded(Fixed(), spread=0.5),
            ValueError,
            "spread is 0.5, worse 2 and patience 3; expected more than 1",
        ),
        (lambda: Until("GradNorm", 10), TypeError, "adaptive of Until is 'GradNorm'; expected a weighting"),
        (lambda: Until(InverseDirichlet(), float("nan")), ValueError, "steps of Until is nan; expected at least 1"),
        (lambda: Until(InverseDirichlet(), 0), ValueError, "steps of Until is 0; expected at least 1"),
    ],
)
def test_what_can_not_be_wrapped_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_guard_does_not_mind_terms_without_labels():
    rule = Guarded(ProfiledLikelihood(groups="all", scaled=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights = rule.start(TARGETS)
        losses, squares = 0.1 * SQUARES, SQUARES.clone()
        losses[1, 2] = squares[1, 2] = 0.0
        new = rule.update(weights, terms(losses.tolist(), squares=squares.tolist()))
    assert torch.isfinite(new.values).all()
    assert new.values[1, 2] == tensor(1.0)
