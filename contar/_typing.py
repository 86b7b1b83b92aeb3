"""The legend of the axis letters in every annotation.

    b  batch                    h w  grid of tokens or latent pixels
    t  frames                   d    width of a network
    n  tokens, m some of them   c    channels of a latent, or values of a token
    l  length of a text         e    width of a text encoder's states
    p  tokens of a prefix       r    draws for each token
    s  attention heads          k    values per attention head

`q` and `kv` are lengths of queries and of keys and values. A number behind a letter is another
size of the same kind, as `b2`: the samples and, for guidance, each once more without its prompt; or
each frame of the samples by itself. `...` and `*m` are any leading axes.
The annotations are enforced in the test run by jaxtyping's import hook. Without jaxtyping at hand
before contar is imported, they are the tensors' types alone.
"""

import sys
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING or sys.modules.get("jaxtyping"):
    from jaxtyping import Bool, Float, Int, UInt8
else:

    class _Shaped:
        def __class_getitem__(cls, kind_and_shape: tuple[Any, str]) -> Any:
            return kind_and_shape[0]

    Bool = Float = Int = UInt8 = _Shaped

__all__ = ["Bool", "Float", "Int", "Tensor", "UInt8"]
