"""What datasets must agree in to be continued or merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coupling.dataset import Dataset


def identity(data: Dataset) -> dict[str, Any]:
    """Names, bounds, units, problem definition, design and what is stored, by what a person calls them."""
    description = data.description
    return {
        "parameters": description.parameters,
        "responses": description.responses,
        "bounds": {
            name: (float(low), float(high))
            for name, (low, high) in zip(description.parameters, description.bounds, strict=True)
        },
        "units": dict(description.units),
        "problem definition (digest)": description.digest,
        "design": data.provenance.get("design", "none"),
        "seed": data.provenance.get("seed"),
        "Jacobians": "stored" if data.jacobian is not None else "left out",
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs, in words; of mappings with the same keys only the entries that do."""
    found = []
    for name, before in old.items():
        now = new[name]
        if before == now:
            continue
        if isinstance(before, dict) and before.keys() == now.keys():
            found += differences(
                {f"{name} of {k}": v for k, v in before.items()}, {f"{name} of {k}": v for k, v in now.items()}
            )
        else:
            found.append(f"{name} was {before}, now {now}")
    return found
