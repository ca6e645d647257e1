"""The power kernel against its plain formula, which autograd differentiates."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.attention.parts.power_kernel import (
    ChosenPower,
    ExponentMap,
    power_kernel,
    share_exponents,
)
from models.attention.parts.routing import InitialFactors, RouterLearning
from models.randomness import initialize

LEARNING = RouterLearning("straight_through", 0.0)
MAP = ExponentMap(1.0, "softplus")


def plain_formula(rows: Tensor, exponents: Tensor) -> Tensor:
    """`||relu(z)|| relu(z)^g / ||relu(z)^g||` as written; needs one positive entry in each row."""
    positive = rows.relu()
    # A power has no derivative at 0 that autograd could use, so zeros are left out of it.
    base = torch.where(positive > 0, positive, 1.0)
    powered = torch.where(positive > 0, base ** exponents[..., None], 0.0)
    return positive.norm(dim=-1, keepdim=True) * powered / powered.norm(dim=-1, keepdim=True)


def random_rows(*shape: int) -> Tensor:
    stream = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=stream, dtype=torch.float64)


def random_exponents(*shape: int) -> Tensor:
    stream = torch.Generator().manual_seed(1)
    return 0.5 + 4.0 * torch.rand(shape, generator=stream, dtype=torch.float64)


def value_and_gradients(function, rows: Tensor, exponents: Tensor) -> list[Tensor]:
    rows = rows.clone().requires_grad_()
    exponents = exponents.clone().requires_grad_()
    value = function(rows, exponents)
    weight = random_rows(*rows.shape[:-1], 2 * rows.shape[-1])[..., ::2].to(value)
    return [value, *torch.autograd.grad((value * weight).sum(), (rows, exponents))]


def test_value_and_gradients_equal_the_plain_formula() -> None:
    rows, exponents = random_rows(2, 3, 40, 16), random_exponents(2, 3, 40)
    actual = value_and_gradients(power_kernel, rows, exponents)
    expected = value_and_gradients(plain_formula, rows, exponents)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_gradients_equal_finite_differences() -> None:
    rows = random_rows(6, 5)
    rows[rows.abs() < 0.05] = 0.5
    arguments = (rows.requires_grad_(), random_exponents(6).requires_grad_())
    assert torch.autograd.gradcheck(power_kernel, arguments)


def test_exponent_one_is_relu() -> None:
    rows = random_rows(50, 8)
    torch.testing.assert_close(power_kernel(rows, torch.ones(50).double()), rows.relu())


def test_norm_of_a_row_is_kept_and_its_direction_sharpened() -> None:
    rows = random_rows(50, 8)
    result = power_kernel(rows, torch.full((50,), 5.0, dtype=torch.float64))
    torch.testing.assert_close(result.norm(dim=-1), rows.relu().norm(dim=-1))
    assert (result.amax(dim=-1) >= rows.relu().amax(dim=-1) - 1e-12).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_row_without_a_positive_entry_is_zero_with_zero_gradients(dtype: torch.dtype) -> None:
    rows = torch.tensor([[-1.0, -2.0, 0.0], [0.0, 0.0, 0.0]], dtype=dtype)
    for tensor in value_and_gradients(power_kernel, rows, torch.full((2,), 3.0, dtype=dtype)):
        assert not tensor.any()


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e-10, 1e10, 1e30, 1e37])
def test_tiny_and_huge_rows_agree_with_double_precision(scale: float) -> None:
    rows, exponents = (random_rows(30, 8) * scale).float(), random_exponents(30).float()
    value, to_rows, to_exponents = value_and_gradients(power_kernel, rows, exponents)
    # The map is homogeneous; the plain formula would overflow at some of these scales.
    expected = value_and_gradients(plain_formula, rows.double() / scale, exponents.double())
    actual = [value.double() / scale, to_rows.double(), to_exponents.double() / scale]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("exponent", [0.1, 1.0, 3.0, 50.0])
def test_entries_far_below_the_largest_agree_with_double_precision(exponent: float) -> None:
    rows = torch.tensor([[1.0, small, 0.0, -1.0] for small in 10.0 ** -torch.arange(0.0, 34.0)])
    exponents = torch.full((len(rows),), exponent)
    actual = value_and_gradients(power_kernel, rows, exponents)
    expected = value_and_gradients(plain_formula, rows.double(), exponents.double())
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["softplus", "exp"])
@pytest.mark.parametrize("raw", [-60.0, -5.0, 0.0, 2.0])
def test_exponents_stay_above_the_floor_and_can_come_back(name: str, raw: float) -> None:
    kernel = chosen_power(ExponentMap(1.0, name))
    with torch.no_grad():
        kernel.raw_exponents.fill_(raw)
    assert (kernel.exponents >= 1.0).all()
    kernel(random_rows(20, 8).float()).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in kernel.parameters())
    assert raw < -50 or kernel.raw_exponents.grad.any()


@pytest.mark.parametrize("name", ["softplus", "exp"])
def test_an_exponent_map_gives_the_exponents_that_were_asked_for(name: str) -> None:
    exponents = torch.tensor([1.0, 1.01, 1.5, 3.0, 40.0])
    mapping = ExponentMap(1.0, name)
    found = mapping.exponents(mapping.parameters(exponents))
    torch.testing.assert_close(found, torch.tensor([1.05, 1.05, 1.5, 3.0, 40.0]))


def chosen_power(mapping: ExponentMap = MAP, heads: int = 1) -> ChosenPower:
    """Four exponents from 1.5 to 4.5 at first."""
    kernel = ChosenPower(8, InitialFactors(4, 3.0, 1.5), mapping, LEARNING, heads)
    initialize(kernel, seed=0)
    return kernel


def test_chosen_power_applies_the_exponent_of_the_largest_logit() -> None:
    kernel = chosen_power().double()
    rows = random_rows(30, 8)
    for row, actual in zip(rows, kernel(rows), strict=True):
        exponent = kernel.exponents[int((row @ kernel.router.weight[0]).argmax())]
        torch.testing.assert_close(actual, plain_formula(row, exponent), rtol=1e-9, atol=1e-9)


def test_kernel_per_head_equals_one_kernel_for_each_head() -> None:
    kernel = chosen_power(heads=3).double()
    with torch.no_grad():
        kernel.raw_exponents.mul_(
            torch.rand(3, 4, generator=torch.Generator().manual_seed(2)) + 0.5
        )
    rows = random_rows(2, 20, 3, 8)
    together = kernel(rows)
    for head in range(3):
        alone = chosen_power().double()
        with torch.no_grad():
            alone.raw_exponents.copy_(kernel.raw_exponents[head])
            alone.router.weight.copy_(kernel.router.weight[head : head + 1])
        torch.testing.assert_close(together[:, :, head], alone(rows[:, :, head]))


def test_shared_exponents_stay_one_parameter_with_routers_of_their_own() -> None:
    kernels = torch.nn.ModuleList(
        ChosenPower(8, InitialFactors(4, 3.0, 1.5), MAP, LEARNING) for _ in range(3)
    )
    share_exponents(kernels)
    initialize(kernels, seed=0)
    assert sum(parameter.numel() for parameter in kernels.parameters()) == 4 + 3 * 8 * 4
    assert not torch.equal(kernels[0].router.weight, kernels[1].router.weight)
    assert kernels[2].exponents.tolist() == pytest.approx([1.5, 2.5, 3.5, 4.5])


def test_factors_spread_evenly_around_the_centre() -> None:
    assert InitialFactors(9, 3.0, 0.0).values().tolist() == [3.0] * 9
    assert InitialFactors(9, 0.01, 0.0).values().tolist() == pytest.approx([0.01] * 9)
    assert InitialFactors(3, 2.0, 0.5).values().tolist() == [1.5, 2.0, 2.5]
    assert InitialFactors(1, 2.0, 0.5).values().tolist() == [2.0]
