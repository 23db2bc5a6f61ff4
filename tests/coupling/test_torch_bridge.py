import numpy as np
from problems import block, interior_point
import pytest
import torch
from torch.autograd import functional, gradcheck, gradgradcheck
from torch.func import jacrev, vmap
from toys import Smooth

from sobofem.coupling.models import torch_bridge
from sobofem.coupling.models.torch_bridge import torch_function
from sobofem.fem.library.random_block import random_block


def scaled(model):
    """The model on the unit box, with responses of order one, as a function of tensors."""
    low, high = torch.as_tensor(model.bounds).T
    middle = model.evaluate(model.bounds.mean(axis=1), jacobian=False)[0]
    function, size = torch_function(model), torch.as_tensor(np.abs(middle))
    return lambda t: function(low + t * (high - low)) / size


def unit_points(model, count, seed=3):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0.3, 0.7, (count, len(model.parameters)))
    return torch.as_tensor(points).requires_grad_()


@pytest.mark.slow
@pytest.mark.parametrize("make", [block, lambda: random_block(cells=(4, 4), modes=10)], ids=["linear", "neo-Hookean"])
def test_a_problem_passes_torchs_first_and_second_order_checks(make):
    problem = make()
    t = unit_points(problem, 2)
    assert gradcheck(scaled(problem), (t,), eps=1e-5, atol=1e-6, rtol=1e-5)
    assert gradgradcheck(scaled(problem), (t,), eps=1e-5, atol=1e-5, rtol=1e-4)


def test_products_replace_a_jacobian_that_would_be_too_large(monkeypatch):
    problem = block()
    x = torch.as_tensor(interior_point(problem, 1)).requires_grad_()
    by_jacobian = torch.autograd.grad(torch_function(problem)(x).sum(), x)[0]
    monkeypatch.setattr(torch_bridge, "MAX_DENSE_JACOBIAN_ENTRIES", 1)
    monkeypatch.setattr(type(problem), "evaluate", without_jacobian(type(problem).evaluate))
    by_products = torch.autograd.grad(torch_function(problem)(x).sum(), x)[0]
    assert by_products.numpy() == pytest.approx(by_jacobian.numpy(), rel=1e-10)


def without_jacobian(evaluate):
    def refusing(self, x, *, jacobian=True):
        assert not jacobian
        return evaluate(self, x, jacobian=False)

    return refusing


def test_training_through_a_model_recovers_a_parameter():
    model = Smooth()
    function = torch_function(model)
    truth = torch.tensor([2e5, 1.2, 1.5], dtype=torch.float64)
    observed = function(truth)
    thickness = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([thickness], max_iter=30, tolerance_grad=1e-12)

    def closure():
        optimizer.zero_grad()
        loss = (function(torch.stack([truth[0], thickness, truth[2]])) - observed).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert thickness.item() == pytest.approx(1.2, rel=1e-6)


def test_a_model_without_second_derivatives_says_so():
    x = torch.tensor([2e5, 1.2, 1.5], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(torch_function(Smooth())(x).sum(), x, create_graph=True)
    with pytest.raises(TypeError, match="Smooth has no hvp"):
        gradient.sum().backward()


def test_shape_type_and_batches_are_those_of_the_tensor():
    function = torch_function(Smooth())
    x = torch.tensor([[[2e5, 1.2, 1.5]], [[2.5e5, 1.0, 0.5]]], dtype=torch.float32)
    assert function(x).shape == (2, 1, 3)
    assert function(x).dtype == torch.float32
    assert function(x[:0]).shape == (0, 1, 3)
    with pytest.raises(ValueError, match=r"x has shape \(2,\), expected \(\.\.\., 3\)"):
        function(torch.zeros(2))


@pytest.mark.slow
def test_transforms_of_torch_give_the_derivatives_of_the_model():
    problem = block()
    function = torch_function(problem)
    points = torch.stack([torch.as_tensor(interior_point(problem, seed)) for seed in (1, 2)])
    jacobians = vmap(jacrev(function))(points)
    for x, jacobian in zip(points, jacobians, strict=True):
        assert jacobian.numpy() == pytest.approx(problem.evaluate(x.numpy())[1], rel=1e-12)
    assert torch.equal(vmap(function, in_dims=1)(points.T), function(points))

    def loss(x):
        return function(x).square().sum()

    hessian = vmap(jacrev(jacrev(loss)))(points)[1]
    expected = torch.autograd.functional.hessian(loss, points[1])
    assert hessian.numpy() == pytest.approx(expected.numpy(), rel=1e-9)


def test_a_bound_in_single_precision_is_within_bounds_and_whole_numbers_are_refused():
    problem = block()
    upper = torch.as_tensor(problem.bounds[:, 1])
    assert (upper.float().double() > upper).any()
    assert torch_function(problem)(upper.float()).numpy() == pytest.approx(
        torch_function(problem)(upper).numpy(), rel=1e-6
    )
    with pytest.raises(ValueError, match="outside its bounds"):
        torch_function(problem)(1.001 * upper.float())
    with pytest.raises(TypeError, match="expected a floating type"):
        torch_function(problem)(upper.int())


@pytest.mark.slow
def test_second_derivatives_come_by_every_way_through_autograd():
    problem = block()
    function, x = torch_function(problem), torch.as_tensor(interior_point(problem, 1))
    v = torch.as_tensor(np.random.default_rng(0).uniform(-1.0, 1.0, len(x)))

    def loss(x):
        return function(x).square().sum()

    def slope(x):
        return functional.jvp(function, x, v, create_graph=True)[1].square().sum()

    hessian = functional.hessian(loss, x)
    assert functional.hvp(loss, x, v)[1].numpy() == pytest.approx((hessian @ v).numpy(), rel=1e-9)
    assert functional.vhp(loss, x, v)[1].numpy() == pytest.approx((hessian @ v).numpy(), rel=1e-9)
    found, h = functional.vjp(slope, x)[1], 1e-5
    differences = [(slope(x + h * e) - slope(x - h * e)).item() / (2 * h) for e in torch.eye(len(x), dtype=x.dtype)]
    assert found.numpy() == pytest.approx(differences, rel=1e-6)


def test_derivatives_along_directions_need_no_second_derivatives():
    model = Smooth()
    x, v = (torch.tensor(values, dtype=torch.float64) for values in ([2e5, 1.2, 1.5], [1e4, -0.1, 0.3]))
    assert functional.jvp(torch_function(model), x, v)[1].numpy() == pytest.approx(
        model.evaluate(x.numpy())[1] @ v.numpy(), rel=1e-12
    )


@pytest.mark.slow
def test_third_derivatives_are_refused():
    problem = block()
    x = torch.as_tensor(interior_point(problem, 1)).requires_grad_()
    (gradient,) = torch.autograd.grad(torch_function(problem)(x).square().sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(gradient.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no third ones"):
        torch.autograd.grad(curvature.sum(), x)
