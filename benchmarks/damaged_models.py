"""What becomes of damaged model files: thousands of damages to each kind, and what reading them did.

python -m benchmarks.damaged_models 5000
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
import copy
from functools import partial
import json
from pathlib import Path
import signal
import sys
from tempfile import TemporaryDirectory
from typing import Any
import warnings

import numpy as np
from rich.console import Console
from rich.table import Table
import torch

from sobofem import surrogate
from sobofem.surrogate.export import open_exported
from sobofem.surrogate.files import container
from sobofem.surrogate.operators import (
    DeepONet,
    Mesh,
    OperatorSamples,
    OperatorSurrogate,
    ReducedOperator,
    train_operator,
)
from sobofem.surrogate.reduction import FieldSamples, linear_subspace

LIMIT = 20
"""Seconds after which reading counts as endless."""
QUICK = (surrogate.Adam(20),)
FINE = ("refused", "the same")
OUTCOMES = (*FINE, "read with a warning", "silent", "traceback", "endless")
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 10**6, 10**18, 10**400, 1.5, float("nan"), "", "x", [], {}, [[]], [None], {"network": None},
    {"network": {"name": "MLP", "fields": {"width": 10**9}}}, {"tensor": "x"}, json.loads("[" * 90 + "]" * 90),
)  # fmt: skip
"""What is put in the place of parts of a record."""


def models(folder: Path, *, programs: bool = True) -> dict[Path, Callable[[Path], Any]]:
    """A small file of each kind, and what reads it."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(20, 2))
    y = np.stack([np.sin(x @ [2.0, 1.0]), x[:, 0] * x[:, 1]], 1)
    slopes = np.stack([np.cos(x @ [2.0, 1.0])[:, None] * [2.0, 1.0], x[:, ::-1]], 1)
    data = surrogate.Samples(x, y, slopes, ("a", "b"), ("q", "r"))
    small = {"network": surrogate.MLP(6, 1), "optimizers": QUICK}
    plain = surrogate.train(data, **small)
    ensemble = surrogate.train_ensemble(data, members=2, calibration=2, **small)
    families = (surrogate.Kriging(), surrogate.Solved(units=8, members=1, iterations=10))
    mixture = surrogate.fit(data, families=families)
    subspace = linear_subspace(np.eye(2), data.parameters, data.bounds)
    projected = surrogate.ProjectedSurrogate(subspace, surrogate.train(subspace.reduce(data), **small))
    fields = surrogate.FieldSamples(x, y @ rng.standard_normal((2, 12)), None, data.parameters, data.bounds)
    basis = surrogate.reduced_basis(fields, rank=2)
    field = surrogate.FieldSurrogate(basis, surrogate.train(basis.reduce(fields), **small))
    saved = {"plain": plain, "ensemble": ensemble, "mixture": mixture, "projected": projected, "field": field}
    saved |= between_fields(rng)
    for name, model in saved.items():
        model.save(folder / f"{name}.safetensors")
    settings = surrogate.OnlineSettings(network=surrogate.MLP(6, 1), watermark=8)
    training = surrogate.OnlineTraining(data.parameters, data.responses, data.bounds, settings=settings)
    training.add(np.arange(20), x, y, slopes)
    training.step()
    training.save_checkpoint(folder / "checkpoint.safetensors")
    kinds = ("pt2", "onnx") if programs else ()
    for kind in kinds:
        surrogate.export_model(plain, folder / f"program.{kind}")
    readers: dict[Path, Callable[[Path], Any]] = {folder / f"{name}.safetensors": surrogate.load for name in saved}
    readers[folder / "checkpoint.safetensors"] = surrogate.OnlineTraining.load_checkpoint
    return readers | {folder / f"program.{kind}": open_exported for kind in kinds}


def between_fields(rng: np.random.Generator) -> dict[str, Any]:
    """A network between the nodal fields of a bar, and its modes, learned in two cases."""
    nodes = np.arange(6)
    mesh = Mesh(nodes[:, None] / 5.0, np.stack((nodes[:-1], nodes[1:]), 1), "line")
    loads, matrix = np.zeros((24, 4)), rng.standard_normal((6, 4))
    loads[:12, :2], loads[12:, 2:] = rng.uniform(-1.0, 1.0, (2, 12, 2))
    y, names = loads @ matrix.T, tuple("abcd")
    modes = surrogate.fit_field(
        FieldSamples(loads, y, np.tile(matrix, (24, 1, 1)), names, np.tile((-1.0, 1.0), (4, 1)))
    )
    samples = OperatorSamples(mesh, np.pad(loads, ((0, 0), (1, 1)))[:, :, None], y[:, :, None])
    return {
        "modes between fields": ReducedOperator(modes, mesh, nodes[1:5], ("load",), ("u",)),
        "network between fields": train_operator(samples, DeepONet(width=6, depth=1), optimizers=QUICK),
    }


def damages(content: bytes, count: int, rng: np.random.Generator) -> Iterator[bytes]:
    """Accidents: flipped bits, every second one in the header, and now and then a cut, zeros or what is too much."""
    head = min(8 + int.from_bytes(content[:8], "little"), len(content))
    for k in range(count):
        damaged = bytearray(content)
        at = int(rng.integers(head if k % 2 else len(content)))
        kind = k % 10
        if kind == 7:
            damaged = damaged[:at]
        elif kind == 8:
            damaged[at : at + 64] = bytes(len(damaged[at : at + 64]))
        elif kind == 9:
            damaged[at:at] = rng.bytes(int(rng.integers(1, 9)))
        else:
            damaged[at] ^= 1 << int(rng.integers(8))
        yield bytes(damaged)


def forgeries(content: bytes) -> Iterator[Callable[[], bytes]]:
    """What makes files whose checksum fits and whose record, texts or tensors say what none of ours does."""
    found = container.unpack(content)
    tensors, metadata = found.arrays(), {k: v for k, v in found.metadata.items() if k != container.CHECKSUM}
    record = json.loads(metadata["record"])
    for place in _places(record):
        for value in VALUES:
            changed = copy.deepcopy(record)
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            yield partial(container.pack, tensors, metadata | {"record": json.dumps(changed)})
    for text in ("null", "[]", "1", "", "{", "[" * 100_000, '{"a": NaN}', "9" * 5000):
        yield partial(container.pack, tensors, metadata | {"record": text})
    for version in ("", "0", "-1", "00", "²", "3", "9" * 5000, "1.0", "x"):
        yield partial(container.pack, tensors, metadata | {"version": version})
    for key in metadata:
        yield partial(container.pack, tensors, {k: v for k, v in metadata.items() if k != key})
    for name, tensor in tensors.items():
        yield partial(container.pack, {k: v for k, v in tensors.items() if k != name}, metadata)
        wrong = [
            tensor.flatten()[:-1],
            torch.zeros(0),
            torch.zeros(3, 3, dtype=torch.int64),
            tensor.cfloat(),
        ]
        if tensor.is_floating_point():
            wrong += [torch.full_like(tensor, torch.nan), torch.full_like(tensor, torch.inf), -tensor]
        for other in wrong:
            yield partial(container.pack, tensors | {name: other}, metadata)


def _places(record: Any, depth: int = 5) -> Iterator[tuple[Any, ...]]:
    """Where something can be put in a record: keys of nested tables and lists."""
    keys = range(min(len(record), 3)) if isinstance(record, list) else record if isinstance(record, dict) else ()
    for key in keys:
        yield (key,)
        if depth:
            yield from ((key, *rest) for rest in _places(record[key], depth - 1))


def outcome(path: Path, read: Callable[[Path], Any], expected: bytes) -> tuple[str, str]:
    """What reading a file did, one of `OUTCOMES`, and the message."""
    try:
        with warnings.catch_warnings(record=True) as said, _limited():
            warnings.simplefilter("always")
            answer = answers(read(path))
    except ValueError as error:
        text = str(error)
        return ("refused" if path.name in text and "\n" not in text and len(text) < 600 else "traceback"), text
    except TimeoutError:
        return "endless", ""
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {error}"
    if answer == expected:
        return "the same", ""
    return ("read with a warning", str(said[0].message)) if said else ("silent", "")


def answers(model: Any) -> bytes:
    """All that a model says at some points, to the last bit; of a training all that it would save."""
    if isinstance(model, surrogate.OnlineTraining):
        with TemporaryDirectory() as folder:
            model.save_checkpoint(path := Path(folder) / "checkpoint")
            return container.unpack(path.read_bytes()).digest.encode()
    rng = np.random.default_rng(1)
    if isinstance(model, ReducedOperator | OperatorSurrogate):
        x = np.zeros((2, len(model.mesh), 1))
        x[0, 1:3], x[1, 3:5] = rng.uniform(0.2, 0.8, (2, 2, 1))
        numbers = (model.predict(x), model.vjp(x, np.ones((1, *x.shape[1:]))), model.mesh.points, model.mesh.cells)
        names = json.dumps([model.input_names, model.output_names, dict(model.units)])
        return b"".join(array.tobytes() for array in numbers) + names.encode()
    low, high = model.bounds.T
    x = low + (high - low) * rng.uniform(0.2, 0.8, (3, len(low)))
    y, slopes = model.predict(x, jacobian=True)
    names = json.dumps([model.parameters, model.responses, dict(getattr(model, "units", {}))])
    return y.tobytes() + slopes.tobytes() + model.bounds.tobytes() + names.encode()


@contextmanager
def _limited() -> Iterator[None]:
    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


Counts = dict[str, Counter[str]]


def trial(count: int, *, forged: int | None = None, programs: bool = True) -> tuple[Counts, list[str]]:
    """Outcomes by kind of file, of so many accidents each and of forgeries, and the messages of bad ones.

    What a forgery says is no damage: its checksum fits, and only a traceback or an endless reading counts against it.

    Args:
        count: Accidents to each kind of file.
        forged: Every which forgery is tried; all of them where None, none where 0.
        programs: Whether exported programs are tried, too.
    """
    rng, counts, bad = np.random.default_rng(0), Counts(), list[str]()
    with TemporaryDirectory() as folder:
        for path, read in models(Path(folder), programs=programs).items():
            content, expected = path.read_bytes(), answers(read(path))
            victims: list[tuple[bool, Callable[[], bytes]]] = []
            victims += [(False, partial(bytes, damaged)) for damaged in damages(content, count, rng)]
            if path.suffix == ".safetensors" and forged != 0:
                victims += [(True, make) for make in list(forgeries(content))[:: forged or 1]]
            for is_forged, make in victims:
                path.write_bytes(make())
                found, text = outcome(path, read, expected)
                found = "refused" if is_forged and found in ("silent", "read with a warning") else found
                counts.setdefault(f"{path.stem}{', forged' if is_forged else ''}", Counter())[found] += 1
                if found not in (*FINE, "read with a warning"):
                    bad.append(f"{path.name}: {found}: {text[:300]}")
    return counts, bad


def table(count: int = 700) -> Table:
    """Outcomes of so many accidents to each kind of file, and of all forgeries."""
    counts, bad = trial(count)
    shown = Table("file", *OUTCOMES, title=f"{sum(c.total() for c in counts.values())} damages to model files")
    for name, found in counts.items():
        shown.add_row(name, *(str(found[outcome]) for outcome in OUTCOMES))
    print("\n".join(bad[:20]), file=sys.stderr)
    return shown


if __name__ == "__main__":
    Console(width=120).print(table(-(-int(sys.argv[1] if len(sys.argv) > 1 else "7000") // 10)))
