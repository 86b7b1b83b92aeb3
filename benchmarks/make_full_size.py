"""Write the released 480p pipeline at full size with random weights, in the released layout.

    python benchmarks/make_full_size.py FOLDER [--text]

7.3 GiB in bfloat16 with the text encoder (Phi-2's sizes, 2.8 billion parameters), 1.6 GiB without.
Only one part is in memory at a time. The tokenizer is the tests' small one.
"""

import argparse
import gc
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PhiConfig, PhiForCausalLM

from contar.tokenizers import OpenSoraVAE
from recipes import nova

TOKENIZER = Path(__file__).parents[1] / "tests" / "goldens" / "checkpoint" / "tokenizer"
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}


def fill(model: torch.nn.Module, seed: int) -> Any:
    """Give a model on `meta` random weights, of a size that keeps activations finite."""
    generator = torch.Generator().manual_seed(seed)
    model = model.to_empty(device="cpu")
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if tensor.ndim > 1:
            tensor.normal_(std=tensor[0].numel() ** -0.5, generator=generator)
        else:
            tensor.fill_(1.0 if name.endswith("weight") else 0.0)
    return model


def write(folder: Path, text: bool) -> None:
    index: dict[str, Any] = {
        "_class_name": "NOVAPipeline",
        "scheduler": ["diffusers", SCHEDULER["_class_name"]],
    }
    parts = ["transformer", "vae", "scheduler", *(["text_encoder", "tokenizer"] if text else [])]
    for part in parts:
        (folder / part).mkdir(parents=True, exist_ok=True)
    network = nova.build(device="meta", dtype=torch.bfloat16)
    fill(network, 0)
    save_file(
        network.official_state_dict(), folder / "transformer/diffusion_pytorch_model.safetensors"
    )
    config = network.sizes.to_official()
    (folder / "transformer/config.json").write_text(json.dumps(config, indent=2))
    index["transformer"] = ["__transformer__", "NOVATransformer3DModel"]
    del network
    gc.collect()
    with torch.device("meta"):
        vae = OpenSoraVAE().bfloat16()
    fill(vae, 1).save_pretrained(folder / "vae")
    config = json.loads((folder / "vae/config.json").read_text())
    config["_class_name"] = "AutoencoderKLOpenSora"
    (folder / "vae/config.json").write_text(json.dumps(config, indent=2))
    index["vae"] = ["__vae__", "AutoencoderKLOpenSora"]
    del vae
    gc.collect()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2))
    if text:
        with torch.device("meta"):
            encoder: Any = PhiForCausalLM(
                PhiConfig(
                    vocab_size=51200,
                    hidden_size=2560,
                    intermediate_size=10240,
                    num_hidden_layers=32,
                    num_attention_heads=32,
                    partial_rotary_factor=0.4,  # type: ignore[call-arg]
                )
            ).bfloat16()
        fill(encoder, 2).save_pretrained(folder / "text_encoder", max_shard_size="5GB")
        shutil.copytree(TOKENIZER, folder / "tokenizer", dirs_exist_ok=True)
        index["text_encoder"] = ["__text_encoder__", "PhiEncoderModel"]
        index["tokenizer"] = ["transformers", "CodeGenTokenizerFast"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", action="store_true", help="with the text encoder")
    arguments = parser.parse_args()
    write(arguments.folder, arguments.text)
