"""NOVA's folders: ours and the released layout, read and written. No file in them is ever run."""

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file

from contar._building import TooLargeError, build_for
from contar._defaults import fixed_defaults, without_bars
from contar._errors import FLOATS, bad, check_choice, check_count, check_instance
from contar._files import (
    WEIGHTS,
    apart,
    check_finite,
    check_weights,
    load_exactly,
    read_json,
    read_weights,
)
from contar._saving import written_beside
from contar.conditioning import text_package
from contar.cpu import speed_up
from contar.diffusion import load_scheduler
from contar.tokenizers import KNOWN_VAES, CausalVAE, OpenSoraVAE
from recipes._nova.config import NovaConfig
from recipes._nova.keys import from_official
from recipes._nova.network import Nova
from recipes._nova.pipeline import NovaPipeline
from recipes._shared.building import build_empty

# What the official code calls our classes, and where in its package `diffnext.models` they are.
_OFFICIAL = {
    "transformer": ("NOVATransformer3DModel", "transformers.transformer_nova"),
    "text_encoder": ("PhiEncoderModel", "text_encoders.phi"),
    "OpenSoraVAE": ("AutoencoderKLOpenSora", "autoencoders.autoencoder_kl_opensora"),
    "AutoencoderKL": ("AutoencoderKL", "autoencoders.autoencoder_kl"),
}
_TIMESTEPS = 1_000_000  # of a scheduler, which makes tables of them
# Folders of pipelines that this project trained, by name.
SHIPPED = Path(__file__).parents[1] / "moving_digits" / "weights"
_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]  # what a folder needs; no code


@fixed_defaults()
def from_pretrained(
    folder_or_hub_id: str | Path,
    *,
    dtype: torch.dtype | None = None,
    num_heads: tuple[int, int] | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    compile: bool = False,
) -> NovaPipeline:
    """Load a pipeline: one that this package carries, from a folder, ours or released, or the hub.

    Args:
        folder_or_hub_id: "moving-digits", which a folder of that name does not hide
            ("./moving-digits" is that), a folder with a `model_index.json`, or a hub's
            "owner/name".
        dtype: of the weights; None keeps the files'.
        num_heads: attention heads (temporal, spatial), for networks in the released layout whose
            architecture is not among the released ones.
        revision: of a hub's folder.
        token: for a hub's closed folders.
        cache_dir: where a hub's folders are kept.
        local_files_only: take what was downloaded before.
        compile: call the network's `compile`.

    Raises:
        FileNotFoundError: no such folder, a part or file of it missing, or a hub out of reach.
        ValueError: a config that is no JSON, has other values, or sizes of a model far larger than
            its weights; weights that are cut off, pickled, missing, unexpected, misshapen, NaN or
            infinite (all are listed); an unknown option.
        ImportError: a scheduler of a library that is not installed.
    """
    if dtype is not None:
        check_choice("dtype", dtype, FLOATS)
    check_instance("compile", compile, bool)
    hub = {"revision": revision, "token": token, "cache_dir": cache_dir}
    folder = _locate(folder_or_hub_id, {**hub, "local_files_only": local_files_only})
    index = read_index(folder, "folder_or_hub_id", folder_or_hub_id)
    names = ("transformer", "vae", "scheduler", "text_encoder", "tokenizer")
    parts = {part: _part(folder, part, index, dtype, num_heads) for part in names}
    parts |= {name: index.get(name) for name in ("defaults", "text_package")}
    if compile:
        parts["transformer"].compile()
    return NovaPipeline(**parts)


def read_index(folder: Path, name: str, got: str | Path) -> dict[str, Any]:
    """Return what a pipeline's folder holds; `name` is the argument that was `got`, for errors.

    Raises:
        FileNotFoundError: it is no pipeline's.
        ValueError: the index is no JSON object.
    """
    if not (folder / "model_index.json").is_file():
        allowed = "a pipeline's folder, with a model_index.json in it"
        raise FileNotFoundError(f"{name}: got {str(got)!r}, allowed: {allowed}")
    return read_json(folder / "model_index.json")


def _part(
    folder: Path,
    part: str,
    index: Mapping[str, Any],
    dtype: torch.dtype | None,
    num_heads: tuple[int, int] | None,
) -> Any:
    """Return a part of a pipeline's folder; None where the index names none and none is needed."""
    named = index.get(part) or [None]
    if not isinstance(named, list):
        raise bad(f"model_index.json[{part!r}]", named, "[library, class] or [null, null]")
    if part in NovaPipeline._optional_components and named[0] is None:
        return None
    place = folder / part
    if part in ("text_encoder", "tokenizer") and index.get("text_package"):
        place = text_package(index["text_package"])
    if not place.is_dir():
        raise FileNotFoundError(f"{part}: got no such folder in {folder}, allowed: one")
    if part == "transformer":
        return _network(place, dtype, num_heads)
    if part == "vae":
        return _vae(place, dtype)
    return _scheduler(place) if part == "scheduler" else _text(place, part, dtype)


def carried_folder(name: str | Path) -> Path | None:
    """Return the folder of a pipeline that this package carries, by its name; None of another."""
    there = name in os.listdir(SHIPPED) and (SHIPPED / name).is_dir()  # the judge is none
    return SHIPPED / name if there else None


def _locate(name: str | Path, hub: dict[str, Any]) -> Path:
    if not isinstance(name, str | Path):
        raise bad("folder_or_hub_id", name, "a folder, or a hub's id")
    if (carried := carried_folder(name)) is not None:
        return carried
    folder = Path(name)
    if os.path.isdir(folder):  # unlike Path's, False for a name that is too long
        return folder
    is_id = isinstance(name, str) and name.count("/") == 1 and name[0] not in "./~"
    if os.path.exists(folder) or not is_id:
        raise FileNotFoundError(
            f"folder_or_hub_id: got {str(name)!r}, allowed: a folder that exists, or a hub's id"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), allow_patterns=_PATTERNS, **hub))
    except Exception as error:  # the hub's own errors, and those of the network below it
        said = shorten(f"{type(error).__name__}: {error}", 100, placeholder=" …")
        raise FileNotFoundError(
            f"folder_or_hub_id: got {name!r}, allowed: a folder, or an id that the hub has and that"
            f" can be reached or was downloaded before ({said})"
        ) from error


def open_network(
    folder: Path, state: Mapping[str, Any] | None, num_heads: tuple[int, int] | None = None
) -> tuple[Nova, bool]:
    """Return the network of a folder on `meta`, and whether it is in the released layout.

    Raises:
        ValueError: a config with other values, or of a network far larger than the weights `state`.
    """
    config = read_json(folder / "config.json")
    released = "sizes" not in config
    if released:
        sizes = NovaConfig.from_official(config, num_heads=num_heads)
    else:
        sizes = NovaConfig.from_dict(config["sizes"])
    return build_empty(Nova, sizes, state), released


def open_vae(folder: Path, state: Mapping[str, Any] | None = None) -> Any:
    """Return the autoencoder of a folder on `meta`; errors as `open_network`."""
    config = read_json(folder / "config.json")
    name = str(config.get("_class_name"))
    name = {"AutoencoderKLOpenSora": "OpenSoraVAE"}.get(name, name)
    if name not in KNOWN_VAES:
        raise bad("vae/config.json", f"_class_name {name}", "one of " + ", ".join(KNOWN_VAES))
    ours = {"OpenSoraVAE": OpenSoraVAE, "CausalVAE": CausalVAE}
    cls = ours.get(name) or getattr(diffusers, name)
    try:
        return build_for(
            state, lambda: cls.from_config(config), name="vae/config.json", sizes=config
        )
    except TooLargeError:
        raise
    except Exception as error:  # of any kind: diffusers builds whatever the config says
        raise bad("vae/config.json", str(error), f"a config that {name} takes") from error


def _network(folder: Path, dtype: torch.dtype | None, num_heads: tuple[int, int] | None) -> Nova:
    state, name = read_weights(folder), f"transformer/{WEIGHTS}"
    model, released = open_network(folder, state, num_heads)
    state = _cast(state, dtype)
    model.rename_saved(state)
    if released:
        state = from_official(state, model.state_dict(), model.sizes, name=name)
    load_exactly(model, state, name)
    return speed_up(model.eval())


def _vae(folder: Path, dtype: torch.dtype | None) -> Any:
    state, name = read_weights(folder), f"vae/{WEIGHTS}"
    vae = open_vae(folder, state)
    vae._fix_state_dict_keys_on_load(state)  # names of attention layers before diffusers 0.18
    check_weights(name, state, vae.state_dict())
    if not isinstance(vae, OpenSoraVAE | CausalVAE):  # diffusers' hold more than their weights
        vae = type(vae).from_config(vae.config)
    load_exactly(vae, _cast(state, dtype), name)
    return speed_up(vae.eval())


def _cast(state: dict[str, torch.Tensor], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    floats = {name: value for name, value in state.items() if value.is_floating_point()}
    return {**state, **{name: value.to(dtype or value.dtype) for name, value in floats.items()}}


def _scheduler(folder: Path) -> Any:
    config = read_json(folder / "scheduler_config.json")
    if config.get("num_train_timesteps") is not None:
        steps = check_count("scheduler.num_train_timesteps", config["num_train_timesteps"])
        if steps > _TIMESTEPS:
            raise bad("scheduler.num_train_timesteps", steps, f"at most {_TIMESTEPS}")
    keys = ("_class_name", "_sample_class_name", "_noise_class_name")
    names = {key: config[key] for key in keys if config.get(key) is not None}
    if not names:
        raise bad("scheduler/scheduler_config.json", "no class", "one of " + ", ".join(keys))
    sampling = next(names[key] for key in ("_sample_class_name", *keys) if key in names)
    scheduler = load_scheduler({**config, "_class_name": sampling})
    scheduler.register_to_config(**{**names, "_class_name": sampling})
    return scheduler


@without_bars()
def _text(folder: Path, part: str, dtype: torch.dtype | None) -> Any:
    """Return a text encoder or a tokenizer of transformers."""
    import transformers

    name, options, state = "AutoTokenizer", {}, None
    if part == "text_encoder":
        config = read_json(folder / "config.json")
        state = read_weights(folder, "model.safetensors")
        # With its language head, which no one calls, a released folder can be written again.
        listed = config.get("architectures")
        named = str(listed[0]) if isinstance(listed, list) and listed else ""
        causal = named.endswith("ForCausalLM") and hasattr(transformers, named)
        name = named if causal else "AutoModel"
        options = {"dtype": dtype or "auto", "use_safetensors": True, "output_loading_info": True}
        options["ignore_mismatched_sizes"] = True  # they are listed below
    try:
        cls = getattr(transformers, name)
        if state is not None:
            known = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            make = partial(cls.from_config, trust_remote_code=False) if name == "AutoModel" else cls
            whole = {"name": f"{part}/config.json", "sizes": known.to_dict()}
            build_for(state, lambda: make(known), **whole)
        loaded = cls.from_pretrained(folder, trust_remote_code=False, **options)
    except TooLargeError:
        raise
    except Exception as error:  # of any kind: transformers reads files of many
        raise bad(part, f"{type(error).__name__}: {error}", "one of transformers") from error
    if part == "tokenizer":
        return loaded
    encoder, info = loaded
    wrong = [f"missing {key}" for key in sorted(info["missing_keys"])]
    wrong += [
        f"{key} is {tuple(came)}, must be {tuple(wanted)}"
        for key, came, wanted in sorted(info["mismatched_keys"])
    ]
    if wrong:
        raise bad(f"{part}/model.safetensors", "; ".join(wrong), "all weights of the model")
    check_finite(f"{part}/model.safetensors", dict(encoder.named_parameters()))
    return encoder.eval()


def save_pipeline(pipe: NovaPipeline, folder: Path, layout: str, **options: Any) -> None:
    """Write a pipeline, as `NovaPipeline.save_pretrained` says."""
    with written_beside(folder) as beside:
        save = _save_contar if layout == "contar" else _save_released
        index = save(pipe, beside, **options)
        scheduler = beside / "scheduler" / "scheduler_config.json"
        if "_sample_class_name" in (content := read_json(scheduler)):  # it may be another now
            sampling = type(pipe.scheduler).__name__
            _write_json(scheduler, {**content, "_sample_class_name": sampling})
        _write_json(beside / "model_index.json", index)


def _save_contar(pipe: NovaPipeline, folder: Path, **options: Any) -> dict[str, Any]:
    index: dict[str, Any] = {"_class_name": "NovaPipeline"}
    index |= {name: pipe.config[name] for name in ("defaults", "text_package")}
    components: dict[str, Any] = pipe.components
    for part, value in sorted(components.items()):
        index[part] = (
            [None, None] if value is None else [type(value).__module__, type(value).__name__]
        )
        packaged = part in ("text_encoder", "tokenizer") and pipe.config["text_package"]
        if value is not None and not packaged:
            kept = options if part in ("transformer", "vae", "text_encoder") else {}
            value.save_pretrained(folder / part, **kept)
    return index


def _save_released(pipe: NovaPipeline, folder: Path) -> dict[str, Any]:
    network: Any = pipe.transformer
    config: dict[str, Any] = {"_diffusers_version": diffusers.__version__}
    config |= network.sizes.to_official()
    vae_name, text_name = type(pipe.vae).__name__, type(pipe.text_encoder).__name__
    if vae_name not in _OFFICIAL:
        raise bad("vae", vae_name, "OpenSoraVAE or AutoencoderKL, for the released layout")
    if pipe.text_encoder is not None and text_name != "PhiForCausalLM":
        raise bad("text_encoder", text_name, "PhiForCausalLM or None, for the released layout")
    parts: dict[str, Any] = pipe.components
    index = {"_class_name": "NOVAPipeline", **{k: v for k, v in config.items() if k[0] == "_"}}
    for part, value in sorted(parts.items()):
        index[part] = [None, None]
        if value is None:
            continue
        target = folder / part
        target.mkdir(parents=True, exist_ok=True)
        if part == "transformer":
            _write_json(target / "config.json", config)
            save_file(apart(network.official_state_dict()), target / WEIGHTS, {"format": "pt"})
        else:
            value.save_pretrained(target)
        index[part] = [*type(value).__module__.split(".")[:1], type(value).__name__]
        if part == "tokenizer":
            index[part] = ["transformers", "CodeGenTokenizerFast"]  # Phi's
        official = _OFFICIAL.get(vae_name if part == "vae" else part)
        if official is not None:
            name, module = official
            index[part] = [f"__{part}__", name]
            code = f"from diffnext.models.{module} import {name}  # noqa: F401\n"
            (target / f"__{part}__.py").write_text(code)
        if part == "vae":
            stored = read_json(target / "config.json")
            _write_json(target / "config.json", {**stored, "_class_name": index[part][1]})
    return index


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
