"""Parts kept from training."""

from collections.abc import Iterable

from torch import nn

from contar._errors import bad, check_instance


def freeze(model: nn.Module, parts: Iterable[str]) -> list[str]:
    """Turn off gradients of parts by name and return the names of the frozen parameters.

    Args:
        model: whose parameters are frozen, in place.
        parts: names of modules or parameters, as in `model.named_modules()`.

    Raises:
        ValueError: no model, one string instead of several, or a name that the model does not
            have; nothing is frozen then.

    Example:
        >>> from torch import nn
        >>> freeze(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), ["0"])
        ['0.weight', '0.bias']
    """
    check_instance("model", model, nn.Module)
    if isinstance(parts, str) or not isinstance(parts, Iterable):
        raise bad("parts", parts, "several names, as in ['motion']")
    parameters = dict(model.named_parameters())
    frozen = []
    for part in parts:
        names = [name for name in parameters if name == part or name.startswith(f"{part}.")]
        if not names:
            children = sorted({name.split(".")[0] for name in parameters})
            raise bad("parts", part, "names of parts with parameters: " + ", ".join(children))
        frozen += names
    for name in frozen:
        parameters[name].requires_grad_(False)
    return frozen
