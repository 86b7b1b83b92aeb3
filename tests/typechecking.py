"""The type checker behind jaxtyping's import hook: beartype that takes an int for a float."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
