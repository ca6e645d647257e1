"""What every attention variant must satisfy; a new variant is found and tested by itself."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.attention import Variant, build_attention, load_variant
from models.attention.base import (
    AttentionBlock,
    AttentionConfig,
    AttentionShape,
    ValueConvolutionConfig,
)
from models.attention.dydila import Attention as DynamicDifferential
from models.attention.parts.products import SumPrecision
from models.errors import UserError
from models.randomness import initialize
from tests.models.attention.conftest import WIDTH, Case

GRIDS = [(7, 9), (10, 10), (4, 4), (2, 5)]


def naive(block: AttentionBlock, tokens: Tensor) -> Tensor:
    """The block's output from its N x N matrices, one head after the other."""
    values = block.qkv(tokens)[..., 2 * block.width :]
    heads = []
    for head, value in enumerate(values.split(block.width // block.heads, dim=-1)):
        attended = block.attention_weights(tokens, head) @ value
        if isinstance(block, DynamicDifferential) and block.config.normalizer == "rms":
            attended = block.rms_norm(attended)
        heads.append(attended)
    return block.output(block.value_convolution(torch.cat(heads, dim=-1), values))


def output_and_gradients(
    block: AttentionBlock, tokens: Tensor, output: Tensor
) -> dict[str, Tensor]:
    """The output, and the gradients of a random projection of it, by name."""
    names, parameters = zip(*block.named_parameters(), strict=True)
    stream = torch.Generator().manual_seed(4)
    weight = torch.randn(output.shape, generator=stream, dtype=torch.float64).to(output)
    gradients = torch.autograd.grad((output * weight).sum(), (tokens, *parameters))
    return {"output": output, **dict(zip(("tokens", *names), gradients, strict=True))}


def assert_agree(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Each entry to within `tolerance` of the largest magnitude in it.

    Gradients that are next to nothing beside the others (that of a key's bias in softmax attention
    is zero but for rounding) are measured by 1e-3 of the largest.
    """
    least = 1e-3 * max(reference.abs().max().item() for reference in expected.values())
    for name, reference in expected.items():
        scale = max(reference.abs().max().item(), least)
        difference = (actual[name] - reference).abs().max().item()
        assert difference <= tolerance * scale, f"{name}: {difference:g} of {scale:g}"


def test_output_and_gradients_equal_the_naive_twin_in_every_configuration(any_case: Case) -> None:
    block = any_case.build((7, 9))
    tokens = any_case.tokens((7, 9)).requires_grad_()
    fast = output_and_gradients(block, tokens, block(tokens))
    assert_agree(fast, output_and_gradients(block, tokens, naive(block, tokens)), 1e-9)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_output_and_gradients_equal_the_naive_twin_in_double_precision(
    case: Case, grid: tuple[int, int], device: str
) -> None:
    block = case.build(grid, convolution=3, qk_norm=grid == (4, 4), device=device)
    tokens = case.tokens(grid, device=device).requires_grad_()
    fast = output_and_gradients(block, tokens, block(tokens))
    assert_agree(fast, output_and_gradients(block, tokens, naive(block, tokens)), 1e-9)


@pytest.mark.parametrize("grid", [(7, 9), (4, 4)], ids=str)
def test_output_and_gradients_equal_the_naive_twin_in_single_precision(
    case: Case, grid: tuple[int, int], device: str
) -> None:
    block = case.build(grid, convolution=3, dtype=torch.float32, device=device)
    tokens = case.tokens(grid, torch.float32, device).requires_grad_()
    fast = output_and_gradients(block, tokens, block(tokens))
    assert_agree(fast, output_and_gradients(block, tokens, naive(block, tokens)), 1e-4)


def test_permuting_the_tokens_permutes_the_output(case: Case, device: str) -> None:
    grid = (7, 9)
    block = case.build(grid, device=device)
    tokens = case.tokens(grid, device=device)
    order = torch.randperm(63, generator=torch.Generator().manual_seed(5)).to(device)
    torch.testing.assert_close(
        block(tokens[:, order]), block(tokens)[:, order], rtol=1e-9, atol=1e-9
    )


def test_images_of_a_batch_do_not_see_each_other(case: Case, device: str) -> None:
    block = case.build((7, 9), convolution=3, device=device)
    tokens = case.tokens((7, 9), device=device)
    torch.testing.assert_close(block(tokens)[1:], block(tokens[1:]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("activations", ["zero", "plus 1e4", "random 1e4", "tiny"])
@pytest.mark.parametrize("precision", ["float32", "bf16 autocast", "bf16 tokens, autocast"])
def test_outputs_and_gradients_are_finite(
    case: Case, activations: str, precision: str, device: str
) -> None:
    grid = (7, 9)
    block = case.build(grid, convolution=3, dtype=torch.float32, device=device)
    tokens = case.tokens(grid, torch.float32, device)
    tokens = {
        "zero": torch.zeros_like(tokens),
        "plus 1e4": torch.full_like(tokens, 1e4),
        "random 1e4": 1e4 * tokens,
        "tiny": 1e-20 * tokens,
    }[activations]
    if precision == "bf16 tokens, autocast":
        tokens = tokens.bfloat16()
    tokens.requires_grad_()
    with torch.autocast(device, torch.bfloat16, enabled=precision != "float32"):
        output = block(tokens)
    assert output.isfinite().all()
    output.float().sum().backward()
    for name, tensor in (("tokens", tokens), *block.named_parameters()):
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name


def test_half_precision_comes_near_single_precision(case: Case, device: str) -> None:
    grid = (7, 9)
    block = case.build(grid, convolution=3, dtype=torch.float32, device=device)
    tokens = case.tokens(grid, torch.float32, device)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
        half = block(tokens).float()
    full = block(tokens)
    # bfloat16 has 8 bits; the median leaves out tokens whose router chose otherwise.
    assert (half - full).abs().median() < 0.02 * full.abs().median()


def test_every_parameter_gets_a_gradient(case: Case, device: str) -> None:
    block = case.build((7, 9), convolution=3, qk_norm=True, device=device)
    block(case.tokens((7, 9), device=device)).square().sum().backward()
    dead = [
        name
        for name, parameter in block.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not dead


@pytest.mark.parametrize("grid", [(7, 9), (4, 4)], ids=str)
@pytest.mark.parametrize("convolution", [0, 5])
@pytest.mark.parametrize("name", ["sana", "dydila"])
def test_torch_counts_the_flops_of_the_closed_form(
    name: str, grid: tuple[int, int], convolution: int
) -> None:
    """Two for a multiply-add: a token takes 4 D^2 for the projections, 2 d D or 2 N D for the
    products (the lesser) and k^2 D for the convolution. In dydila come the chosen projector and a
    router of n_P options for Q' and for K', routers of n_K options on Q, K, Q', K' and of n_D on
    both pairs.
    """
    case = Case(name, load_variant(name).config())
    block = case.build(grid, convolution, dtype=torch.float32)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        block(case.tokens(grid, torch.float32))
    tokens = grid[0] * grid[1]
    a_token = 4 * WIDTH**2 + 2 * min(tokens, 32) * WIDTH + convolution**2 * WIDTH
    if name == "dydila":
        a_token += 2 * (WIDTH**2 + 3 * WIDTH) + 4 * 9 * WIDTH + 2 * 2 * 9 * WIDTH
    assert counter.get_total_flops() == 2 * 2 * tokens * a_token


def test_variant_describes_itself(variant: Variant) -> None:
    assert variant.question
    assert "\n" not in variant.question
    assert variant.config().name == variant.name
    assert issubclass(variant.config, AttentionConfig)
    assert issubclass(variant.block, AttentionBlock)
    with pytest.raises(ValidationError):
        variant.config(no_such_field=1)


def test_heads_that_do_not_divide_the_width_are_named_with_the_width(variant: Variant) -> None:
    convolution = ValueConvolutionConfig(size=0, initialization="identity")
    with pytest.raises(UserError, match=r"\b\d+ .*divide.*\b51\b"):
        variant.block(
            variant.config(),
            AttentionShape(
                width=51, heads=2, grid=(4, 4), value_convolution=convolution, qk_norm=False
            ),
        )


@pytest.mark.parametrize("name", ["sana", "lit", "focused", "dydila", "softmax"])
def test_the_precision_of_the_sums_reaches_every_linear_variant(name: str) -> None:
    def output(precision: SumPrecision) -> Tensor:
        convolution = ValueConvolutionConfig(size=0, initialization="zero")
        shape = AttentionShape(
            width=64,
            heads=2,
            grid=(7, 9),
            value_convolution=convolution,
            qk_norm=False,
            sum_precision=precision,
        )
        block = build_attention(load_variant(name).config(), shape)
        initialize(block, seed=0)
        tokens = torch.randn(2, 63, 64, generator=torch.Generator().manual_seed(0))
        return block(tokens)

    exact, rounded = output("float32"), output("bf16")
    if name == "softmax":
        assert torch.equal(exact, rounded)
        return
    error = ((exact - rounded).norm() / exact.norm()).item()
    assert 1e-5 < error < 2e-2
