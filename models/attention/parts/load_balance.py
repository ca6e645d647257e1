"""The load-balancing loss: keeps routers from sending all tokens to few of their options.

A router's term is `n sum_m f_m P_m`, with f the share of tokens and P the mean probability of an
option. It is 1 where all options are used alike and n where one takes everything; where heads have
routers of their own, it is the mean over them. Source: Switch Transformers (Fedus et al. 2021),
equation 4.

f and P are of the whole batch of a step, however many processes and micro-batches share it. f has
no gradient, so with f of the whole batch the mean of the parts' terms is the term of the whole, in
value and gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce

import torch
from torch import Tensor, nn

from models.attention.parts.routing import OptionUse, Router
from models.distributed import mean_over_processes


def is_balanced(model: nn.Module) -> bool:
    """Whether any router has a load-balancing loss."""
    return any(router.learning.balance_weight > 0 for router in _routers(model))


def option_shares(model: nn.Module) -> Tensor | None:
    """f of all routers in the last forward pass, one after the other, (sum of their sizes,).

    The routers forget the pass. None where none had a balance to keep.
    """
    uses = [use for _, use in _taken_uses(model)]
    return torch.cat([use.shares.flatten() for use in uses]) if uses else None


def balance_loss(model: nn.Module, shares: Tensor | None = None) -> Tensor | None:
    """The weighted sum of the routers' load-balancing terms in the last forward pass, a scalar.

    None where no router has a weight, or where the last pass was not one of training. The routers
    forget their terms, so that no graph outlives its step.

    Args:
        model: on several processes, all must call it.
        shares: f of the whole batch, where the pass saw only a part of it on this process, as
            means of `option_shares`; None takes the mean over the processes.
    """
    uses = _taken_uses(model)
    if not uses or any(use.means is None for _, use in uses):
        return None
    if shares is None:
        shares = mean_over_processes(torch.cat([use.shares.flatten() for _, use in uses]))
    parts = shares.split([use.shares.numel() for _, use in uses])
    terms = []
    for (router, use), own in zip(uses, parts, strict=True):
        assert use.means is not None
        term = router.options * (own.view_as(use.means) * use.means).sum(dim=-1).mean()
        terms.append(router.learning.balance_weight * term)
    return reduce(torch.add, terms)


@contextmanager
def forgetting(model: nn.Module) -> Iterator[None]:
    """Routers of a model forget what they did inside of this context.

    Where a backward pass computes activations again, the terms of the loss are known already, and
    those of the second pass would keep its graph alive until the next step.
    """
    try:
        yield
    finally:
        _taken_uses(model)


def _routers(model: nn.Module) -> list[Router]:
    return [module for module in model.modules() if isinstance(module, Router)]


def _taken_uses(model: nn.Module) -> list[tuple[Router, OptionUse]]:
    uses = [(router, router.use) for router in _routers(model) if router.use is not None]
    for router, _ in uses:
        router.use = None
    return uses
