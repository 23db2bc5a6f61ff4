"""The weightings that the study compares."""

from __future__ import annotations

from sobofem.surrogate import weighting as w
from sobofem.surrogate.weighting import Weighting

ADAM = 200
REFERENCE = "per channel"


def _early(adaptive: Weighting) -> Weighting:
    return w.Until(adaptive, steps=ADAM)


SWEEP: dict[str, Weighting] = {
    "per channel × 0.01": w.PerChannel(0.01),
    "per channel × 0.1": w.PerChannel(0.1),
    REFERENCE: w.PerChannel(),
    "per channel × 10": w.PerChannel(10.0),
    "per channel × 100": w.PerChannel(100.0),
}
ARMS: dict[str, Weighting] = {
    "values only": w.ValuesOnly(),
    "fixed": w.Fixed(),
    **SWEEP,
    "balanced": w.Balanced(),
    "epsilon-optimal": w.EpsilonOptimal(),
    "phased in": w.Schedule(steps=ADAM, interval=20),
    "phased out": w.Schedule(first=1.0, last=0.0, steps=ADAM, interval=20),
    "power mean, p = ½": w.PowerMean(0.5),
    "power mean, p = 0.7": w.PowerMean(0.7),
    "power mean, p = 2": w.PowerMean(2.0),
    "profiled likelihood": w.ProfiledLikelihood(),
    "the same, each term": w.ProfiledLikelihood(groups="all"),
    "evidence": w.Evidence(),
    "evidence by input": w.Evidence(groups="inputs"),
    "the default": w.BY_DEFAULT,
    "hypergradient": w.Hypergradient(),
    "hypergradient by input": w.Hypergradient(groups="inputs"),
    "learned likelihood": _early(w.LearnedLikelihood()),
    "SoftAdapt": _early(w.SoftAdapt()),
    "SoftAdapt, loss-weighted": _early(w.SoftAdapt(loss_weighted=True)),
    "ReLoBRaLo": _early(w.ReLoBRaLo()),
    "GradNorm": _early(w.GradNorm()),
    "annealing": _early(w.Annealing()),
    "inverse Dirichlet": _early(w.InverseDirichlet()),
    "the same, two groups": _early(w.InverseDirichlet(groups="two", scaled=True)),
    "neural tangent": w.NeuralTangent(),
    "self-adaptive": _early(w.SelfAdaptive()),
    "the same, each sample": _early(w.SelfAdaptive(per_sample=True)),
    "dual-balanced": _early(w.DualBalanced()),
    "PCGrad": _early(w.PCGrad()),
    "ConFIG": _early(w.ConFIG()),
    "MGDA": _early(w.MGDA(normalized=True)),
    "guarded likelihood": w.Guarded(w.ProfiledLikelihood()),
}
LEFT_OUT = {
    *("per channel × 0.01", "per channel × 100", "epsilon-optimal", "phased out", "power mean, p = 0.7"),
    *("power mean, p = 2", "the same, each term", "SoftAdapt, loss-weighted", "inverse Dirichlet"),
    *("the same, each sample", "hypergradient by input", "guarded likelihood"),
}
REDUCED = tuple(arm for arm in ARMS if arm not in LEFT_OUT)
"""One of each rule."""
