"""Models, made for a group of ranks or for a worker: checked for the derivatives that are wanted, and described."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import sys
from typing import TYPE_CHECKING

from sobofem.coupling.contract import Curved, Description, Model, Products, WarmStarting, describe, name_of
from sobofem.coupling.dataset.mesh import on_mesh_of
from sobofem.coupling.models.loading import build, find, source_of
from sobofem.coupling.parallel.groups import Groups
from sobofem.coupling.parallel.interruption import StopRequest
from sobofem.coupling.parallel.world import Serial
from sobofem.coupling.solving.products import NOTHING, Multiplied

if TYPE_CHECKING:
    from mpi4py import MPI


def make_model(
    model: Model | Callable[..., Model] | str,
    groups: Groups,
    stop: StopRequest,
    *,
    order: int = 1,
    products: Multiplied = NOTHING,
    warm_start: bool = False,
) -> tuple[Model | None, Description, str]:
    """This group's model, made in the first group first; what describes it, and its name. Collective on all ranks.

    Raises:
        TypeError: If second derivatives are wanted (`order` 2) or products, and it has none.
        ValueError: If products are wanted with vectors of another size.
    """
    found = find(model) if isinstance(model, str) else model
    stop.arm()  # PETSc took the signals as it was imported
    name = name_of(model)

    answer = groups.in_turn(
        lambda: made_and_described(model, found, groups.own, name, order, products, warm_start=warm_start),
        lambda first: _send_compiled(groups, first),
    )
    solver, description = answer or (None, None)
    if not isinstance(groups.world, Serial) and groups.leaders[0]:  # rank 0 has no model
        description = groups.world.bcast(description, root=groups.leaders[0])
    assert description is not None
    return solver, description, name


def _send_compiled(groups: Groups, first: int) -> None:
    """Give the forms that the first group has compiled, if it has, to nodes that don't see them. Collective on all."""
    world = groups.world
    assert not isinstance(world, Serial)
    if world.bcast("sobofem.fem.assembly.compilation" in sys.modules, root=first):
        from sobofem.fem.assembly.sending import send_compiled

        send_compiled(world, first)


def made_and_described(
    model: Model | Callable[..., Model] | str,
    found: Model | Callable[..., Model],
    comm: MPI.Comm | None,
    name: str,
    order: int,
    products: Multiplied = NOTHING,
    *,
    warm_start: bool = False,
) -> tuple[Model, Description]:
    """A model, made of what its specification names, and what identifies it.

    Raises:
        TypeError: If second derivatives (`order` 2) or products are wanted, and it has none.
        ValueError: If products don't fit its inputs or responses.
    """
    made = build(found, comm, name)
    if order == 2 and not isinstance(made, Curved):
        raise TypeError(f"{name} has no hvp(x, weights, directions), which Hessian actions are made of; leave them")
    if products and not isinstance(made, Products):
        raise TypeError(f"{name} has no jvp(x, directions) and vjp(x, weights), which products are made by; leave them")
    description = describe(made, name=name.rpartition(":")[2], source=source_of(found, model))
    products.check(description)
    if warm_start and isinstance(made, WarmStarting):
        made.warm_start()
    return made, replace(description, on_mesh=on_mesh_of(made))
