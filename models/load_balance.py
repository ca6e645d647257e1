"""The load-balancing loss: keeps routers from sending all tokens to few of their options."""

from __future__ import annotations

from torch import Tensor, nn

from models.routing import Router


def balance_loss(model: nn.Module) -> Tensor | None:
    """The weighted sum of the routers' load-balancing terms in the last forward pass.

    Each term is 1 where a router uses its options alike and n where one of n takes everything. The
    routers forget their terms, so that no graph outlives its step.

    Returns:
        A differentiable scalar to add to the loss, or None where no router has a weight, or where
        the last pass was not one of training.
    """
    total: Tensor | None = None
    for router in model.modules():
        if isinstance(router, Router) and router.balance_term is not None:
            term = router.learning.balance_weight * router.balance_term
            total = term if total is None else total + term
            router.balance_term = None
    return total
