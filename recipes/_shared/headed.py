"""Models and their heads: chosen by a config, saved with it, given what a training step needs."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from contar._errors import bad, check_instance, check_size
from contar._models import Model
from contar._typing import Tensor
from contar.heads import DiffusionHead, TokenHead, make_head

_PLAIN = (bool, int, float, str, list)
_RECOMPILES = 64  # graphs of a part: with and without cache, rows, mask


def choose_head(
    own: TokenHead | None, named: Mapping[str, Any], token_dim: int, cond_dim: int
) -> TokenHead:
    """Return one's own head, or the one that a config names.

    Raises:
        ValueError: an own head that is no module, does not keep the protocol, or is of other sizes.
    """
    if own is None:
        return make_head(named, token_dim, cond_dim)
    check_instance("head", own, nn.Module)
    check_instance("head", own, TokenHead)
    for name, size in (("token_dim", token_dim), ("cond_dim", cond_dim)):
        if getattr(own, name) != size:
            raise bad(f"head.{name}", getattr(own, name), f"{size}, as the model has it")
    return own


def check_named(head: Any, config: Mapping[str, Any]) -> None:
    """Raise a ValueError unless a config names a head that is made as this one is.

    Compared are the kinds, the names and shapes of their weights, the numbers and words that they
    are made from, and a diffusion's solver.
    """
    with torch.device("meta"):
        named: Any = make_head(config, head.token_dim, head.cond_dim)
    if type(named) is not type(head):
        allowed = f"a {type(named).__name__}, as the config names it; one of your own is saved by "
        allowed += "a name that `register_head` gives it and the config says"
        raise bad("head", type(head).__name__, allowed)
    found: dict[str, Any]
    wanted: dict[str, Any]
    found, wanted = (
        {name: tuple(x.shape) for name, x in each.state_dict().items()} for each in (head, named)
    )
    for name in inspect.signature(type(head)).parameters:
        values = [getattr(each, name, None) for each in (head, named)]
        values = [list(value) if isinstance(value, tuple) else value for value in values]
        if all(value is None or isinstance(value, _PLAIN) for value in values):
            found[name], wanted[name] = values
    for name in (*wanted, *found):
        if found.get(name) != wanted.get(name):
            allowed = f"{wanted.get(name)}, as of the head that the config names"
            raise bad(f"head.{name}", found.get(name), allowed)
    if isinstance(head, DiffusionHead) and head.table() != named.table():
        raise bad("head", "another scheduler or solver", f"{named.drawing}, as the config names it")


class Headed(Model):
    """A model whose config names its head, so that both come back from a folder."""

    head: Any
    sizes: Any
    spatial: Any

    def save_pretrained(self, save_directory: Any, **options: Any) -> None:  # type: ignore[override]
        """Save as `contar._models.Model` does.

        Raises:
            ValueError: a head of one's own of another kind, or of other sizes and options, than the
                config names.
            OSError: a file could not be written; the folder is as it was.
        """
        check_named(self.head, self.sizes.head)
        super().save_pretrained(save_directory, **options)

    def compile(self, **options: Any) -> None:
        """Compile what sampling repeats: the blocks of a tower and the head's network.

        Each is one graph, of any number of tokens; the first samples wait for the compiler. Of use
        where launches cost more than what they run, as small sets on a GPU do.

        Args:
            options: of `torch.compile`; `mode="reduce-overhead"` replays CUDA graphs.
        """
        defaults: dict[str, Any] = {"fullgraph": True, "dynamic": True}
        if "recompile_limit" in inspect.signature(torch.compile).parameters:
            defaults["recompile_limit"] = _RECOMPILES
        else:  # torch below 2.13 knows one for all graphs alone
            config = torch._dynamo.config
            config.recompile_limit = max(_RECOMPILES, config.recompile_limit)
        for part in [*self.repeated(), self.head]:  # one's own compiles as a module: its forward
            part.compile(**{**defaults, **options})

    def repeated(self) -> list[nn.Module]:
        """Return the parts, beside the head, that sampling repeats."""
        return [*self.spatial.encoder, *self.spatial.decoder]

    def official_state_dict(self) -> dict[str, Tensor]:
        """Return the state dict in the names and shapes of official checkpoints."""
        return self._to_official(self.state_dict())

    def load_official_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict in the names and shapes of official checkpoints.

        Raises:
            ValueError: missing, unexpected or misshapen weights, all listed; nothing is loaded.
        """
        self.load_state_dict(self._from_official(state))

    def _to_official(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError

    def _from_official(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError

    def rename_saved(self, state: dict[str, Any]) -> None:
        """Rename in place the weights of a file that an earlier version has saved."""
        # Before 0.2 a head was the network that is in it now.
        if "head.token.weight" in state and "head.token.weight" not in self.state_dict():
            for name in [name for name in state if name.startswith("head.")]:
                state[name.replace("head.", "head.network.", 1)] = state.pop(name)

    def _fix_state_dict_keys_on_load(self, state_dict: dict[str, Any]) -> None:
        self.rename_saved(state_dict)


def learning_head(
    head: TokenHead,
    repeats: int,
    count: int,
    *,
    scheduler: Any = None,
    noise: Tensor | None = None,
    index: Tensor | None = None,
) -> tuple[TokenHead, dict[str, Tensor]]:
    """Return the head of a training step of `count` hidden tokens, and what replaces its draws.

    Raises:
        ValueError: what does not fit, or something for a diffusion and another head.
    """
    given = {name: x for name, x in (("noise", noise), ("index", index)) if x is not None}
    if isinstance(head, DiffusionHead):
        head = head if scheduler is None else head.with_scheduler(scheduler)
        head.check_draws(repeats, count, noise, index)
        return head, given
    for name, value in (("scheduler", scheduler), *given.items()):
        if value is not None:
            raise bad(name, "one", f"None: a {type(head).__name__} is no diffusion")
    check_size("repeats", repeats)
    return head, given
