"""The package as a whole: light to import, in the layers it promises, compiled without breaks."""

import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300
    )


HEAVY = (
    "timm torchvision diffusers transformers xformers matplotlib av cv2 accelerate torchmetrics "
    "rapidocr datatrove pyarrow scenedetect imagehash"
)


def test_importing_rooms_imports_nothing_heavy():
    result = run(f"""
        import contar
        import sys
        assert "torch" not in sys.modules
        import contar.attention, contar.ordering, contar.diffusion, contar.conditioning
        import contar.tokenizers, contar.generation, contar.training, contar.media
        import contar.evaluation, contar.data, contar.backbones, contar.heads, recipes.cli
        import contar.preparation
        print([name for name in "{HEAVY}".split() if name in sys.modules])
    """)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_parts_run_where_only_torch_and_einops_are_installed():
    result = run(f"""
        import sys
        import torch  # before the rest: of what it imports it takes what there is
        import torch.nn.attention.flex_attention, torch.utils.checkpoint
        others = "{HEAVY} safetensors PIL numpy jaxtyping tqdm tyro huggingface_hub scipy".split()
        sys.modules.update(dict.fromkeys(others))  # importing one of them now fails
        import contar.attention, contar.backbones, contar.conditioning, contar.tokenizers
        from contar.diffusion import iddpm_table
        from contar.heads import make_head
        from contar.ordering import set_sizes
        head = make_head({{"name": "mean_flow", "width": 32, "depth": 1}}, 4, 8)
        tokens = head.sample(torch.randn(1, len(iddpm_table(3)), 8))
        print(sum(set_sizes(24, 4)), *tokens.shape)
    """)
    assert (result.stdout, result.stderr) == ("24 1 3 4\n", ""), result.stdout + result.stderr


def test_help_is_light_and_a_recipe_takes_little_more_than_what_it_is_made_of():
    result = run(f"""
        import contextlib, io, sys, time
        begun = time.process_time()
        from recipes import cli
        said, sys.argv = io.StringIO(), ["contar", "--help"]
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
            cli.main()
        help = time.process_time() - begun
        assert not {{"torch", "numpy", *"{HEAVY}".split()}} & {{*sys.modules}}
        assert help < 1, help
        assert all(name in said.getvalue() for name in cli.COMMANDS)

        import torch
        from diffusers.configuration_utils import ConfigMixin
        from diffusers.models.modeling_utils import ModelMixin
        needed = time.process_time() - begun - help
        from recipes import nova
        whole = time.process_time() - begun - help
        assert whole < 1.5 * needed, (whole, needed)
        print([name for name in "timm torchvision xformers matplotlib av cv2 torchmetrics".split()
               if name in sys.modules])
        import contar.tokenizers.opensora  # with which diffusers imports an xformers that is there
    """)
    assert (result.stdout, result.stderr) == ("[]\n", ""), result.stdout + result.stderr


def test_make_says_what_comes_and_takes_torch_from_an_index_of_ones_own(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"  # makes environments of itself, and tells what it is asked for
    python.write_text(
        '#!/bin/sh\n[ "$2" = venv ] && mkdir -p "$3/bin" && cp "$0" "$3/bin/python"'
        ' && cp "$0" "$3/bin/contar"\necho ran "$@"\n'
    )
    python.chmod(0o755)
    index = "TORCH_INDEX=https://wheels.example/cpu"

    def make(*words: str) -> list[str]:
        command = ["make", "-C", str(tmp_path), f"PYTHON={python}", *words]
        usual = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        result = subprocess.run(command, capture_output=True, text=True, env=usual)
        assert result.returncode == 0, result.stderr
        return [line for line in result.stdout.splitlines() if not line.startswith("make")]

    said = make("demo", index)
    ran = [line for line in said if line.startswith("ran")]
    pip = "ran -m pip install --disable-pip-version-check"
    assert ran == [
        "ran -m venv .venv",
        f"{pip} --index-url https://wheels.example/cpu torch>=2.10 torchvision",
        f"{pip} -e .[demo,video]",
        "ran demo --out demo",
    ]
    assert said[0].startswith("Installing contar[demo,video]")  # before anything is done
    assert "GB" in said[1]
    assert make("demo")[-1] == "ran demo --out demo"
    assert not [line for line in make("demo") if "pip" in line]  # it is installed
    said = make("install")
    assert [line for line in said if line.startswith("ran")] == [f"{pip} -e .[dev,scale]"]
    assert "3.3 GB" in said[1]
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "oldest.py").touch()
    asked = [line for line in make("test-oldest", index) if line.startswith("ran -m pip")]
    pip = "ran -m pip install --quiet --disable-pip-version-check -c .venv-oldest/constraints.txt"
    assert asked == [
        f"{pip} --index-url https://wheels.example/cpu torch torchvision",
        f"{pip} -e .[dev]",
    ]


def test_a_wheel_holds_styles_scripts_and_weights(tmp_path):
    pytest.importorskip("setuptools", "70.1")  # the first that makes wheels alone
    for name in ("contar", "recipes"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / "root" / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "root")
    result = subprocess.run(
        [sys.executable, "-c", "from setuptools import build_meta as b; b.build_wheel('..')"],
        cwd=tmp_path / "root", capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = {*zipfile.ZipFile(wheel).namelist()}
    found = [
        path for name in ("contar", "recipes") for path in (tmp_path / "root" / name).rglob("*")
    ]
    files = {path.relative_to(tmp_path / "root").as_posix() for path in found if path.is_file()}
    assert {Path(file).suffix for file in files} >= {".css", ".js", ".safetensors", ".typed"}
    assert files <= held, files - held


def test_xformers_reports_nothing_when_it_comes_along(tmp_path):
    # One that reports what it lacks, as it does where its kernels were built for another torch.
    for name, text in {
        "xformers/__init__.py": "import logging\nlogging.getLogger('xformers').warning('none')\n",
        "xformers/ops.py": "",
        "xformers-0.0.35.dist-info/METADATA": "Name: xformers\nVersion: 0.0.35\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    result = run(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import contar.tokenizers.opensora
        assert "xformers" in sys.modules
    """)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_chosen_level_of_xformers_stays():
    result = run("""
        import logging
        logging.getLogger("xformers").setLevel(logging.INFO)
        import contar
        print(logging.getLogger("xformers").level == logging.INFO)
    """)
    assert result.stdout == "True\n", result.stderr


def test_leaf_parts_compile_without_a_graph_break_and_keep_their_values():
    # In a process of its own, because the shape-checking hook of the other tests breaks graphs.
    result = run("""
        import torch
        from contar.attention import BlockLayout, attend, dense_mask, rotary_table, rotate
        from contar.attention import grid_coordinates
        from contar.backbones import Block, SpatialTower, TemporalTower
        from contar.conditioning import AdaptiveLayerNorm, FrameTimes, MotionTokens
        from contar.conditioning import ScaleShiftAdapter, TextProjection
        from contar.heads import DiffusionMLP
        from contar.tokenizers import patchify, unpatchify

        torch.manual_seed(0)
        x = torch.randn(2, 6, 64)
        q = torch.randn(1, 2, 6, 32)
        mask = dense_mask(BlockLayout((2, 4)))
        table = rotary_table(grid_coordinates(1, 2, 3), 32)
        spatial = SpatialTower(4, 64, encoder=(1, 64, 2), decoder=(1, 32, 1))
        visible = torch.tensor([[0, 3], [2, 1]])
        parts = {
            "attend": (lambda q: attend(q, q, q, mask=mask), (q,)),
            "rotate": (rotate, (q, table)),
            "block": (Block(64, 2), (x,)),
            "prenorm": (Block(64, 2, prenorm=True), (x,)),
            "temporal": (TemporalTower(depth=1, width=64, heads=2), (x.view(2, 3, 2, 64),)),
            "spatial": (spatial, (torch.randn(2, 5, 4), x, visible)),
            "norm": (AdaptiveLayerNorm(64), (x, x)),
            "adapter": (ScaleShiftAdapter(64, rank=4), (x, x)),
            "times": (FrameTimes(64, base=4), (3,)),
            "motion": (MotionTokens(64), (torch.ones(2), torch.ones(2))),
            "text": (TextProjection(64, 32, length=6), (x,)),
            "head": (DiffusionMLP(4, 64, width=32, depth=2),
                     (torch.randn(2, 6, 4), torch.ones(1, 1), torch.randn(2, 6, 32))),
            "patchify": (lambda z: unpatchify(patchify(z, 2), (2, 3), 2),
                         (torch.randn(2, 4, 4, 6),)),
        }
        mars = DiffusionMLP(4, 64, width=32, depth=2, prenorm=True, projection="linear")
        parts["another head"] = (mars, parts["head"][1])
        for name, (part, inputs) in parts.items():
            compiled = torch.compile(part, fullgraph=True, backend="eager")
            torch.testing.assert_close(compiled(*inputs), part(*inputs), msg=name)
            print(name)
        print("all", len(parts))
    """)
    assert result.stdout.endswith("all 14\n"), result.stdout + result.stderr[-3000:]
