"""What L-BFGS knows of the curvature of several functions."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

import torch
from torch import Tensor

_ARRAYS = ("_pairs", "_SY", "_YY", "_gamma", "count")

MIN_CURVATURE = 1e-14
"""A pair is kept if its curvature, relative to the lengths of step and gradient change, is more than this."""


class CurvaturePairs:
    """K inverse Hessians of size P × P, each of at most M pairs, in compact form.

    With pairs s_i, y_i in the columns of S and Y, R the upper triangle of SᵀY (older pairs first), D its diagonal, and
    γ = s·y / y·y of the newest pair (Byrd, Nocedal & Schnabel 1994, *Representations of quasi-Newton matrices*),

        H g = γ g + S R⁻ᵀ (D u + γ YᵀY u − γ Yᵀg) − γ Y u,  u = R⁻¹ Sᵀg.

    Members take pairs in at different times: each fills its own ring of M slots. What is of size P is done in batched
    products, and those with the gradient of a point serve twice: in H g, and when the next step is taken in.

    Args:
        like: Any tensor (K, P) of the type and on the device that is wanted.
        length: M.

    Attributes:
        count: Pairs that each member has taken in (K,), since they were cleared.
    """

    def __init__(self, like: Tensor, length: int) -> None:
        K, P = like.shape
        self._pairs = like.new_zeros(K, 2, length, P)  # steps, then changes of the gradient
        self._SY, self._YY = like.new_zeros(K, length, length), like.new_zeros(K, length, length)
        self._gamma = like.new_ones(K)
        self.count = torch.zeros(K, dtype=torch.long, device=like.device)
        self._slots = torch.arange(length, device=like.device)
        self._at: Tensor | None = None
        self._products = like.new_zeros(K, 2, length)

    def select(self, members: Tensor) -> CurvaturePairs:
        """Copies of those of these members (k,)."""
        return self._of(vars(self)[name][members] for name in _ARRAYS)

    def joined(self, others: Iterable[CurvaturePairs]) -> CurvaturePairs:
        """Copies of these, and of others after them."""
        every = (self, *others)
        return self._of(torch.cat([vars(one)[name] for one in every]) for name in _ARRAYS)

    def clear(self, members: Tensor) -> None:
        """Forget all pairs of these members (k,)."""
        for array in (self._pairs, self._SY, self._YY, self._products, self.count):
            array[members] = 0
        self._gamma[members] = 1.0

    def add(self, steps: Tensor, before: Tensor, after: Tensor, where: Tensor) -> None:
        """Take in the steps (K, P) of the members where that is True (K,), and what they changed.

        Pairs along which the function does not curve upwards are left out.

        Args:
            steps: Steps.
            before: Gradients (K, P) before them.
            after: Gradients after them; those before of members that made none.
            where: Who made one.
        """
        changes = after - before
        sy, yy = (steps * changes).sum(1), changes.square().sum(1)
        where = where & (sy > MIN_CURVATURE * (steps.square().sum(1) * yy).sqrt())
        members = where.nonzero().squeeze(1)
        if not len(members):
            return
        slot = self.count[members] % len(self._slots)
        old = self._with(before)[members]
        self._pairs[members, 0, slot], self._pairs[members, 1, slot] = steps[members], changes[members]
        self._gamma[members] = (sy / yy)[members]
        self.count[members] += 1
        self._at = None
        with_s, with_y = (self._with(after)[members] - old).unbind(1)
        rows = torch.arange(len(members), device=slot.device)
        with_s[rows, slot], with_y[rows, slot] = sy[members], yy[members]  # of the slot's own pair, not the one before
        self._SY[members, :, slot] = with_s
        self._YY[members, :, slot] = with_y
        self._YY[members, slot, :] = with_y

    def times(self, g: Tensor) -> Tensor:
        """H g (K, P) of all members."""
        M = len(self._slots)
        order = (self._slots + self.count.unsqueeze(1)) % M  # oldest first; empty slots add nothing wherever they are
        rows = order.unsqueeze(2).expand(-1, -1, M)
        SY, YY = (A.gather(1, rows).gather(2, rows.mT) for A in (self._SY, self._YY))
        p, q = self._with(g).gather(2, order.unsqueeze(1).expand(-1, 2, -1)).unbind(1)
        D = SY.diagonal(dim1=1, dim2=2).clone()
        R = SY.triu_()
        R.diagonal(dim1=1, dim2=2).add_((D == 0.0).to(D.dtype))
        gamma = self._gamma.unsqueeze(1)
        u = torch.linalg.solve_triangular(R, p.unsqueeze(2), upper=True).squeeze(2)
        v = D * u + gamma * (row_times(u, YY) - q)
        v = torch.linalg.solve_triangular(R.mT, v.unsqueeze(2), upper=False).squeeze(2)
        back = order.argsort(dim=1)
        shares = torch.stack((v, -gamma * u), 1).gather(2, back.unsqueeze(1).expand(-1, 2, -1))
        return torch.addcmul(row_times(shares.flatten(1), self._pairs.flatten(1, 2)), gamma, g)

    def _with(self, g: Tensor) -> Tensor:
        """Products of all pairs with g (K, 2, M); at hand if they are asked for a second time."""
        if self._at is not g:
            self._products = row_times(g, self._pairs.flatten(1, 2).mT).unflatten(1, self._pairs.shape[1:3])
            self._at = g
        return self._products

    def _of(self, arrays: Iterable[Tensor]) -> CurvaturePairs:
        """Others that are made of these arrays."""
        new = copy(self)
        for name, array in zip(_ARRAYS, arrays, strict=True):
            setattr(new, name, array)
        new._at, new._products = None, new._pairs.new_zeros(new._pairs.shape[:3])
        return new


def row_times(x: Tensor, A: Tensor) -> Tensor:
    """Products (K, q) of rows x (K, p) with matrices A (K, p, q).

    A row times the transpose takes a tenth of the time that the matrix times a column takes, in MKL 2024.
    """
    return torch.bmm(x.unsqueeze(1), A).squeeze(1)
