"""Limited-memory models of several inverse Hessians, each from its own pairs of steps and gradient changes."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

import torch
from torch import Tensor

_ARRAYS = ("_S", "_Y", "_SY", "_YY", "_gamma", "count")

FLATTEST = 1e-14
"""A pair is kept if its curvature, relative to the lengths of step and gradient change, is more than this."""


class CurvaturePairs:
    """K inverse Hessians of size P × P, each of at most M pairs, in compact form.

    With pairs s_i, y_i in the columns of S and Y, R the upper triangle of SᵀY (older pairs first), D its diagonal, and
    γ = s·y / y·y of the newest pair (Byrd, Nocedal & Schnabel 1994, *Representations of quasi-Newton matrices*),

        H g = γ g + S R⁻ᵀ (D u + γ YᵀY u − γ Yᵀg) − γ Y u,  u = R⁻¹ Sᵀg.

    Members take pairs in at different times: each fills its own ring of M slots. What is of size P is done in a few
    batched products.

    Args:
        like: Any tensor (K, P) of the type and on the device that is wanted.
        length: M.

    Attributes:
        count: Pairs that each member has taken in (K,), since they were cleared.
    """

    def __init__(self, like: Tensor, length: int) -> None:
        K, P = like.shape
        self._S, self._Y = like.new_zeros(K, length, P), like.new_zeros(K, length, P)
        self._SY, self._YY = like.new_zeros(K, length, length), like.new_zeros(K, length, length)
        self._gamma = like.new_ones(K)
        self.count = torch.zeros(K, dtype=torch.long, device=like.device)
        self._slots = torch.arange(length, device=like.device)

    def select(self, members: Tensor) -> CurvaturePairs:
        """Copies of those of these members (k,)."""
        return self._of(getattr(self, name)[members] for name in _ARRAYS)

    def joined(self, others: Iterable[CurvaturePairs]) -> CurvaturePairs:
        """Copies of these, and of others after them."""
        every = (self, *others)
        return self._of(torch.cat([getattr(one, name) for one in every]) for name in _ARRAYS)

    def clear(self, members: Tensor) -> None:
        """Forget all pairs of these members (k,)."""
        for array in (self._S, self._Y, self._SY, self._YY, self.count):
            array[members] = 0
        self._gamma[members] = 1.0

    def add(self, steps: Tensor, changes: Tensor, where: Tensor) -> None:
        """Take in steps and changes of the gradient (K, P) of the members where that is True (K,).

        Pairs along which the function does not curve upwards are left out.
        """
        sy, yy = (steps * changes).sum(1), changes.square().sum(1)
        where = where & (sy > FLATTEST * (steps.square().sum(1) * yy).sqrt())
        members = where.nonzero().squeeze(1)
        if not len(members):
            return
        slot = self.count[members] % len(self._slots)
        self._S[members, slot], self._Y[members, slot] = steps[members], changes[members]
        self._gamma[members] = (sy / yy)[members]
        self.count[members] += 1
        with_s, with_y = (_products(A, changes)[members] for A in (self._S, self._Y))
        self._SY[members, :, slot] = with_s
        self._YY[members, :, slot] = with_y
        self._YY[members, slot, :] = with_y

    def _of(self, arrays: Iterable[Tensor]) -> CurvaturePairs:
        """Others that are made of these arrays."""
        new = copy(self)
        for name, array in zip(_ARRAYS, arrays, strict=True):
            setattr(new, name, array)
        return new

    def times(self, g: Tensor) -> Tensor:
        """H g (K, P) of all members."""
        M = len(self._slots)
        order = (self._slots + self.count.unsqueeze(1)) % M  # oldest first; empty slots add nothing wherever they are
        rows = order.unsqueeze(2).expand(-1, -1, M)
        SY, YY = (A.gather(1, rows).gather(2, rows.mT) for A in (self._SY, self._YY))
        p, q = (_products(A, g).gather(1, order) for A in (self._S, self._Y))
        D = SY.diagonal(dim1=1, dim2=2).clone()
        R = SY.triu_()
        R.diagonal(dim1=1, dim2=2).add_((D == 0.0).to(D.dtype))
        gamma = self._gamma.unsqueeze(1)
        u = torch.linalg.solve_triangular(R, p.unsqueeze(2), upper=True).squeeze(2)
        v = D * u + gamma * (_products(YY, u) - q)
        v = torch.linalg.solve_triangular(R.mT, v.unsqueeze(2), upper=False).squeeze(2)
        back = order.argsort(dim=1)
        u, v = u.gather(1, back), v.gather(1, back)
        total = torch.baddbmm((gamma * g).unsqueeze(1), v.unsqueeze(1), self._S)
        return total.baddbmm_((-gamma * u).unsqueeze(1), self._Y).squeeze(1)


def _products(A: Tensor, x: Tensor) -> Tensor:
    """A x (K, M) for matrices A (K, M, P) and vectors x (K, P).

    A row times the transpose takes a tenth of the time that the matrix times a column takes, in MKL 2024.
    """
    return torch.bmm(x.unsqueeze(1), A.mT).squeeze(1)
