from dataclasses import replace
from types import SimpleNamespace

from analytic import five_samples
import numpy as np
import pytest

from sobofem.surrogate import Samples


def changed(array, index, value):
    copy = array.copy()
    copy[index] = value
    return copy


@pytest.fixture(scope="module")
def data():
    return five_samples(12, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"y": d.y[:-1]}, r"y has shape \(11, 5\), expected \(12, 5\) for 12 samples"),
        (lambda d: {"x": d.x[:, :4]}, r"x has shape \(12, 4\), expected \(12, 6\)"),
        (lambda d: {"jacobian": d.jacobian.swapaxes(1, 2)}, r"jacobian has shape \(12, 6, 5\), expected \(12, 5, 6\)"),
        (lambda d: {"bounds": d.bounds.T}, r"bounds has shape \(2, 6\), expected \(6, 2\)"),
        (lambda d: {"y": changed(d.y, (3, 1), np.nan)}, "y holds NaN or infinity in row 3"),
        (lambda d: {"x": changed(d.x, ([2, 5], 0), np.inf)}, r"x holds NaN or infinity in 2 rows \(2, 5\)"),
        (lambda d: {"jacobian": changed(d.jacobian, (7, 0, 0), np.nan)}, "jacobian holds NaN or infinity in row 7"),
        (lambda d: {"x": changed(d.x, (4, 2), 1.5)}, r"'p2' is 1.5 in row 4, outside its bounds \[-1, 1\]"),
        (lambda d: {"bounds": changed(d.bounds, (1, 1), -2.0)}, r"bounds of 'p1' are \[-1, -2\]"),
        (lambda d: {"parameters": ("p0", *d.parameters[:-1])}, r"these repeat: \['p0'\]"),
        (lambda d: {"responses": ("p3", *d.responses[1:])}, r"these repeat: \['p3'\]"),
        (lambda d: {"responses": (), "y": d.y[:, :0]}, "6 parameters and 0 responses"),
        (
            lambda d: {"x": d.x[:3], "y": d.y[:3], "jacobian": d.jacobian[:3]},
            "there are 3 samples; expected at least 4",
        ),
    ],
)
def test_unusable_samples_are_refused_with_the_reason(data, change, message):
    with pytest.raises(ValueError, match=message):
        replace(data, **change(data))


def test_a_sample_on_the_bounds_up_to_rounding_is_inside(data):
    edge = np.nextafter(1.0, 2.0)
    assert replace(data, x=changed(data.x, (0, 0), edge)).x[0, 0] == edge


def test_any_object_with_the_attributes_will_do(data):
    record = SimpleNamespace(**{name: getattr(data, name) for name in ("x", "y", "parameters", "responses", "bounds")})
    with pytest.raises(TypeError, match="it lacks jacobian"):
        Samples.of(record)
    record.jacobian = None
    samples = Samples.of(record)
    assert samples.jacobian is None
    assert samples.units == {}
    assert np.array_equal(samples.x, data.x)


def labelled(data, **changes):
    """The samples with directions and actions, which needn't be true here."""
    full = {"directions": data.x + 2.0, "hessian_actions": 2.0 * data.jacobian}
    return replace(data, **(full | changes))


def test_what_the_caller_writes_later_changes_nothing_and_a_file_that_is_only_read_is_not_copied(data, tmp_path):
    np.save(tmp_path / "jacobian.npy", data.jacobian)
    stored, own = np.load(tmp_path / "jacobian.npy", mmap_mode="r"), data.x.copy()
    view = own.view()
    view.flags.writeable = False  # as frames give out their columns
    given = {name: getattr(data, name) for name in ("y", "parameters", "responses", "bounds")}
    found = Samples.of(SimpleNamespace(x=view, jacobian=stored, **given))
    own[:] = 0.0
    assert np.array_equal(found.x, data.x) and np.shares_memory(found.jacobian, stored)


def test_nan_means_missing_only_where_that_is_said(data):
    jacobian = changed(changed(data.jacobian, 3, np.nan), (5, 1, 2), np.nan)
    with pytest.raises(ValueError, match=r"jacobian holds NaN or infinity in 2 rows \(3, 5\).*say missing=True"):
        replace(data, jacobian=jacobian)
    samples = replace(data, jacobian=jacobian, missing=True)
    assert not samples.complete and data.complete
    assert np.argwhere(~samples.known)[:, 0].tolist() == [3] * 30 + [5]
    assert Samples.of(samples).missing
    record = SimpleNamespace(
        **{name: getattr(samples, name) for name in ("x", "y", "jacobian", "parameters", "responses")}
    )
    record.bounds = data.bounds
    with pytest.raises(ValueError, match="say missing=True"):
        Samples.of(record)
    assert not Samples.of(record, missing=True).complete
    record.missing = True
    assert not Samples.of(record).complete
    with pytest.raises(ValueError, match="say missing=True"):
        Samples.of(record, missing=False)


def test_there_is_nothing_to_be_known_without_jacobians(data):
    bare = replace(data, jacobian=None)
    assert bare.known is None and bare.complete


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"jacobian": np.full_like(d.jacobian, np.nan)}, "jacobian holds no label, NaN only; give None"),
        (lambda d: {"jacobian": changed(d.jacobian, (2, 0, 1), np.inf)}, "jacobian holds infinity in row 2"),
        (lambda d: {"y": changed(d.y, (3, 1), np.inf)}, "y holds infinity in row 3"),
        (lambda d: {"y": d.y * np.where(np.arange(d.y.shape[1]), 1.0, np.nan)}, "has no value in any sample"),
        (lambda d: {"x": changed(d.x, (3, 1), np.nan)}, "x holds NaN or infinity in row 3"),
    ],
)
def test_no_input_may_be_missing_and_no_response_altogether(data, change, message):
    with pytest.raises(ValueError, match=message):
        replace(data, missing=True, **change(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: {"directions": None},
            "directions is None; expected jacobian, directions and hessian_actions together",
        ),
        (lambda d: {"hessian_actions": None}, "hessian_actions is None"),
        (lambda d: {"jacobian": None}, "jacobian is None"),
        (lambda d: {"directions": d.x[:, :4]}, r"directions has shape \(12, 4\), expected \(12, 6\)"),
        (
            lambda d: {"hessian_actions": d.jacobian[:, :2]},
            r"hessian_actions has shape \(12, 2, 6\), expected \(12, 5, 6\)",
        ),
        (lambda d: {"directions": changed(d.x + 2.0, 4, 0.0)}, "directions are zero, NaN or infinite in row 4"),
        (lambda d: {"directions": changed(d.x + 2.0, (4, 1), np.nan)}, "directions are zero, NaN or infinite in row 4"),
        (
            lambda d: {"hessian_actions": changed(d.jacobian, (7, 0, 0), np.nan)},
            "hessian_actions holds NaN .* in row 7",
        ),
    ],
)
def test_unusable_actions_of_hessians_are_refused_with_the_reason(data, change, message):
    with pytest.raises(ValueError, match=message):
        labelled(data, **change(data))


def test_a_direction_may_be_nothing_where_its_action_is_missing(data):
    directions, actions = changed(data.x + 2.0, 4, np.nan), changed(data.jacobian, 4, np.nan)
    samples = labelled(data, directions=directions, hessian_actions=actions, missing=True)
    assert not samples.complete
    assert Samples.of(samples).directions.shape == (12, 6)
