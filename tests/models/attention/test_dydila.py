"""DyDiLA against a plain loop over tokens, written from its equations and sharing no code."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from models.attention import build_attention
from models.attention.base import AttentionBlock, AttentionShape, ValueConvolutionConfig
from models.attention.dydila import Config
from models.randomness import initialize

GRID = (4, 5)
TOKENS = 20
WIDTH = 16
HEAD_DIM = 8
HEADS = 2
FIELDS = {
    "head_dim": HEAD_DIM,
    "n_projectors": 3,
    "n_kernels": 4,
    "n_differentials": 5,
    "gamma_init": 3.0,
    "gamma_spread": 1.5,
    "lambda_init": 0.3,
    "lambda_spread": 0.2,
}


def build(width: int = WIDTH, **fields: object) -> AttentionBlock:
    shape = AttentionShape(
        width=width,
        heads=1,
        grid=GRID,
        value_convolution=ValueConvolutionConfig(size=3, initialization="random"),
        qk_norm=False,
    )
    block = build_attention(Config(**{**FIELDS, **fields}), shape)
    initialize(block, seed=0)
    return block.double()


class LoopedDynamicDifferentialAttention:
    """One image, one token after the other; parameters by name.

    Args:
        parameters: of the module under test.
        config: of the module under test.
    """

    def __init__(self, parameters: dict[str, Tensor], config: Config) -> None:
        self.parameters = parameters
        self.config = config

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor | float]:
        """A one-hot vector with the gradient of the softmax or none, and the gate."""
        probabilities = torch.softmax(logits, dim=0)
        best = int(torch.argmax(logits))
        hard = torch.zeros_like(logits)
        hard[best] = 1.0
        if self.config.router_gradient == "gate":
            return hard, probabilities[best]
        return hard + probabilities - probabilities.detach(), 1.0

    def project(self, side: str, token: Tensor) -> Tensor:
        """`X_i W^(u_i)`."""
        bank = self.parameters[f"redundant_{side}.projectors.weight"].split(WIDTH)
        if self.config.projection == "static":
            return bank[0] @ token
        router = self.parameters[f"redundant_{side}.projectors.router.weight"][0]
        choice, gate = self.choose(router.T @ token)
        return sum(choice[m] * (bank[m] @ token) for m in range(len(bank))) * gate

    def phi(self, role: str, row: Tensor) -> Tensor:
        """`||relu(z)|| relu(z)^g / ||relu(z)^g||`."""
        positive = torch.clamp(row, min=0)
        if self.config.kernel == "relu":
            return positive
        exponent: Tensor | float = self.config.static_exponent
        gate: Tensor | float = 1.0
        if self.config.kernel == "dynamic":
            choice, gate = self.choose(self.parameters[f"{role}.router.weight"][0].T @ row)
            raw = self.parameters[f"{role}.raw_exponents"]
            above = torch.log(1 + raw.exp()) if self.config.gamma_map == "softplus" else raw.exp()
            exponent = choice @ (self.config.gamma_floor + above)
        powered = torch.where(row > 0, torch.where(row > 0, row, 1.0) ** exponent, 0.0)
        return positive.norm() * powered / powered.norm() * gate

    def redundancy(self, side: str, plain: Tensor, redundant: Tensor) -> Tensor:
        """`lambda_i Q'~_i`."""
        if self.config.differential == "static":
            return self.parameters[f"redundant_{side}.difference.factor"] * redundant
        router = self.parameters[f"redundant_{side}.difference.router.weight"][0]
        choice, gate = self.choose(router.T @ torch.cat([plain, redundant]))
        factor = choice @ self.parameters[f"redundant_{side}.difference.factors"]
        return factor * gate * redundant

    def sides(self, tokens: Tensor, head: int) -> dict[str, list[tuple[Tensor, Tensor, Tensor]]]:
        """Before the difference, after it, and with all signs positive, for queries and keys."""
        part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        projections = self.parameters["qkv.weight"].split(WIDTH)
        found: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {"query": [], "key": []}
        for side, projection in zip(found, projections, strict=False):
            for token in tokens:
                plain = self.phi(f"{side}_kernel", (projection @ token)[part])
                after = bound = plain
                if self.config.differential != "off":
                    redundant = self.project(side, token)[part]
                    redundant = self.phi(f"redundant_{side}.kernel", redundant)
                    redundancy = self.redundancy(side, plain, redundant)
                    after, bound = plain - redundancy, plain + redundancy.abs()
                found[side].append((plain, after, bound))
        return found

    def attend(self, tokens: Tensor, values: list[Tensor], head: int) -> list[Tensor]:
        """The head's output for each token."""
        sides = self.sides(tokens, head)
        part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        outputs = []
        mean = sum(value[part] for value in values) / TOKENS
        for plain_query, query, query_bound in sides["query"]:
            numerator: Tensor | float = 0.0
            before: Tensor | float = 0.0
            difference: Tensor | float = 0.0
            absolute: Tensor | float = 0.0
            for (plain_key, key, key_bound), value in zip(sides["key"], values, strict=True):
                numerator = numerator + (query @ key) * value[part]
                before = before + plain_query @ plain_key
                difference = difference + query @ key
                absolute = absolute + query_bound @ key_bound
            denominator = {
                "similarity": before + self.config.eps if before > 0 else torch.inf,
                "unit": before + self.config.eps if before > 0 else torch.inf,
                "absolute": absolute + self.config.eps,
                "difference": difference + self.config.eps,
                "none": TOKENS,
                "rms": TOKENS,
            }[self.config.normalizer]
            output = numerator / denominator
            if self.config.normalizer == "unit":
                output = output + (1 - difference / denominator) * mean
            if self.config.normalizer == "rms":
                output = output / (output.square().mean() + 1e-6).sqrt()
                output = output * self.parameters["rms_norm.weight"]
            outputs.append(output)
        return outputs

    def convolve(self, values: list[Tensor], row: int, column: int) -> Tensor:
        """The 3x3 depth-wise convolution of the values at one place, zero outside the grid."""
        weight = self.parameters["value_convolution.convolution.weight"]
        total = self.parameters["value_convolution.convolution.bias"]
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                if 0 <= row + down < GRID[0] and 0 <= column + right < GRID[1]:
                    neighbour = values[(row + down) * GRID[1] + column + right]
                    total = total + weight[:, 0, 1 + down, 1 + right] * neighbour
        return total

    def __call__(self, tokens: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        to_values = self.parameters["qkv.weight"].split(WIDTH)[2]
        values = [to_values @ token for token in tokens]
        heads = [self.attend(tokens, values, head) for head in range(HEADS)]
        weight, bias = self.parameters["output.weight"], self.parameters["output.bias"]
        outputs = []
        for place, attended in enumerate(zip(*heads, strict=True)):
            local = self.convolve(values, place // GRID[1], place % GRID[1])
            outputs.append(weight @ (torch.cat(attended) + local) + bias)
        return torch.stack(outputs)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"router_gradient": "gate"},
        {"normalizer": "difference"},
        {"normalizer": "absolute"},
        {"normalizer": "absolute", "router_gradient": "gate", "lambda_init": -0.3},
        {"normalizer": "unit"},
        {"normalizer": "unit", "differential": "off"},
        {"gamma_map": "exp", "gamma_floor": 0.5},
        {"normalizer": "none"},
        {"normalizer": "rms"},
        {"projection": "static"},
        {"kernel": "static"},
        {"kernel": "relu"},
        {"differential": "static"},
        {"differential": "off"},
        {"differential": "off", "kernel": "relu"},
    ],
    ids=str,
)
def test_output_and_gradients_equal_a_loop_over_tokens(fields: dict[str, object]) -> None:
    block = build(**fields)
    stream = torch.Generator().manual_seed(1)
    tokens = torch.randn(1, TOKENS, WIDTH, generator=stream, dtype=torch.float64)
    tokens.requires_grad_()
    parameters = dict(block.named_parameters())
    actual = block(tokens)[0]
    expected = LoopedDynamicDifferentialAttention(parameters, block.config)(tokens[0])
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    weight = torch.randn(actual.shape, generator=stream, dtype=torch.float64)
    inputs = [tokens, *parameters.values()]
    torch.testing.assert_close(
        torch.autograd.grad((actual * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        rtol=1e-8,
        atol=1e-9,
    )


def test_routers_of_this_test_choose_more_than_one_option() -> None:
    block = build()
    choices: dict[str, set[int]] = {}
    for name, module in block.named_modules():
        if name.endswith("router"):
            module.register_forward_hook(
                lambda _, inputs, choice, name=name: choices.setdefault(name, set()).update(
                    choice.weights.argmax(dim=-1).flatten().tolist()
                )
            )
    block(torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)).double())
    assert len(choices) == 8
    assert all(len(chosen) > 1 for chosen in choices.values())


def test_a_token_whose_query_the_kernel_wipes_out_attends_to_nothing() -> None:
    """In heads of 8 channels one in 256 queries has no positive channel."""
    block = build(width=WIDTH, n_projectors=1)
    tokens = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    tokens.requires_grad_()
    with torch.no_grad():
        # Of this token, the first head's query is negative in every channel.
        first = block.qkv.weight[:HEAD_DIM]
        tokens[0, 7] -= torch.linalg.pinv(first) @ (first @ tokens[0, 7] + 1.0)
    queries = block.qkv(tokens)[0, 7, :HEAD_DIM]
    assert (queries < 0).all()
    weights = block.attention_weights(tokens, 0)[0]
    assert (weights[7] == 0).all()
    assert weights.abs().sum(dim=-1).max() < 10
    output = block(tokens)
    assert output.abs().max() < 100
    (gradient,) = torch.autograd.grad(output.square().sum(), tokens)
    assert gradient.isfinite().all()


def test_lambda_of_zero_is_the_same_as_no_difference() -> None:
    full = build(lambda_init=0.0, lambda_spread=0.0)
    without = build(differential="off")
    without.load_state_dict(
        {name: full.state_dict()[name] for name in without.state_dict()}, strict=True
    )
    tokens = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(full(tokens), without(tokens), rtol=1e-12, atol=1e-12)


def parameter_count(**fields: object) -> int:
    return sum(parameter.numel() for parameter in build(**fields).parameters())


def test_parameter_counts_are_those_of_the_equations() -> None:
    outside = 4 * WIDTH**2 + WIDTH + WIDTH * (3 * 3 + 1)
    projection = 2 * (3 * WIDTH**2 + 3 * WIDTH)
    kernel = 4 * (4 + 4 * HEAD_DIM)
    differential = 2 * (5 + 5 * 2 * HEAD_DIM)
    assert parameter_count() == outside + projection + kernel + differential
    assert parameter_count(normalizer="rms") == parameter_count() + HEAD_DIM
    assert parameter_count(projection="static") == (outside + 2 * WIDTH**2 + kernel + differential)
    assert parameter_count(kernel="relu") == outside + projection + differential
    assert parameter_count(kernel="static") == outside + projection + differential
    assert parameter_count(differential="static") == outside + projection + kernel + 2
    assert parameter_count(differential="off") == outside + kernel // 2
    assert parameter_count(kernel_sharing_roles="shared") == parameter_count() - 3 * 4
    assert parameter_count(kernel_per_head=True) == parameter_count() + kernel * (HEADS - 1)


def test_factors_start_where_the_configuration_says() -> None:
    block = build()
    assert block.query_kernel.exponents.tolist() == pytest.approx([1.5, 2.5, 3.5, 4.5])
    assert block.redundant_key.difference.factors.tolist() == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.5]
    )
    assert build(differential="static").redundant_query.difference.factor.item() == pytest.approx(
        0.3
    )


def test_shared_kernel_bank_is_one_parameter_that_all_four_roles_train() -> None:
    block = build(kernel_sharing_roles="shared")
    shared = [name for name in dict(block.named_parameters()) if name.endswith("exponents")]
    assert shared == ["query_kernel.raw_exponents"]
    tokens = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    separate = build()
    for side in (block, separate):
        side(tokens).square().sum().backward()
    total = sum(
        parameter.grad
        for name, parameter in separate.named_parameters()
        if name.endswith("exponents")
    )
    torch.testing.assert_close(block.query_kernel.raw_exponents.grad, total)


def test_an_exponent_below_the_floor_is_refused_with_both_values() -> None:
    with pytest.raises(ValidationError, match=r"gamma_init.*gamma_spread.*gamma_floor.*0\.5 < 1"):
        Config(gamma_init=2.0, gamma_spread=1.5)


def signed_rows(normalizer: str) -> Tensor:
    """Weights (N, N) of a block whose differences are large, so that many are negative."""
    block = build(normalizer=normalizer, lambda_init=0.9)
    tokens = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    weights = block.attention_weights(tokens, 0)[0]
    assert (weights < 0).sum() > TOKENS
    return weights


def test_rows_of_unit_sum_to_one() -> None:
    assert (signed_rows("similarity").sum(dim=-1) - 1).abs().max() > 0.1
    torch.testing.assert_close(
        signed_rows("unit").sum(dim=-1), torch.ones(TOKENS).double(), rtol=0, atol=1e-9
    )


def test_absolute_weights_of_a_row_sum_to_one_at_most() -> None:
    sums = signed_rows("absolute").abs().sum(dim=-1)
    assert sums.max() <= 1
    # A bound that is far off would make every output small.
    assert sums.min() > 0.05


def test_a_measured_query_near_zero_is_bounded_by_absolute_alone() -> None:
    """A query of 1e-6 in its positive channels; what is subtracted from it stays as it is."""
    largest = {}
    for normalizer in ("similarity", "unit", "absolute"):
        block = build(normalizer=normalizer, lambda_init=0.9)
        tokens = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)).double()
        with torch.no_grad():
            first = block.qkv.weight[:HEAD_DIM]
            tokens[0, 7] -= torch.linalg.pinv(first) @ (first @ tokens[0, 7] + 1.0)
            wanted = torch.full((HEAD_DIM,), -1.0).double()
            wanted[0] = 1e-6
            tokens[0, 7] += torch.linalg.pinv(first) @ (wanted - first @ tokens[0, 7])
        largest[normalizer] = block.attention_weights(tokens, 0)[0, 7].abs().max().item()
    assert largest["absolute"] <= 1
    assert min(largest["similarity"], largest["unit"]) > 100


def test_redundancy_projectors_start_with_the_spread_of_queries_and_keys() -> None:
    block = build(width=256, head_dim=32)
    bank = block.redundant_query.projectors.weight
    assert bank.shape == (3 * 256, 256)
    assert bank.std().item() == pytest.approx(block.qkv.weight.std().item(), rel=0.01)
    assert bank.abs().max().item() == pytest.approx(block.qkv.weight.abs().max().item(), rel=0.01)
