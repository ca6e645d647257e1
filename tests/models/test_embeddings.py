"""Position and timestep embeddings against diffusers'."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed, get_timestep_embedding

from models.embeddings import position_embedding, sinusoid


@pytest.mark.parametrize("size", [4, 8, 16])
def test_position_embedding_equals_diffusers(size: int) -> None:
    expected = get_2d_sincos_pos_embed(96, size, base_size=size, output_type="pt")
    torch.testing.assert_close(
        position_embedding(96, (size, size)), expected.float(), rtol=1e-6, atol=1e-6
    )


def test_positions_of_an_oblong_grid_are_those_of_the_square_it_is_cut_from() -> None:
    square = position_embedding(32, (9, 9)).unflatten(0, (9, 9))
    oblong = position_embedding(32, (7, 9)).unflatten(0, (7, 9))
    assert torch.equal(oblong, square[:7])
    assert torch.equal(position_embedding(32, (9, 5)).unflatten(0, (9, 5)), square[:, :5])


def test_sinusoid_equals_diffusers() -> None:
    times = torch.tensor([0.0, 0.5, 7.0, 999.0, 1000.0])
    expected = get_timestep_embedding(times, 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(sinusoid(times, 256), expected, rtol=1e-5, atol=1e-5)


def test_sinusoid_of_half_precision_times_is_in_single_precision() -> None:
    assert sinusoid(torch.tensor([3.0]).bfloat16(), 8).dtype == torch.float32
