"""The released 480p pipeline at full size, random weights in bfloat16, on a machine of 24 GiB."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = """
import sys, time
from pathlib import Path
import torch
from contar.tokenizers import VAETokenizer, vae_memory
from recipes import nova
from recipes._nova.files import open_vae

torch.set_num_threads(2)

def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

def measured(function):
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts here
    start = time.monotonic()
    out = function()
    return out, status("VmHWM") - before, time.monotonic() - start

folder = sys.argv[1]
pipe, _, seconds = measured(lambda: nova.from_pretrained(folder, dtype=torch.bfloat16))
print(f"loaded in {seconds:.0f} s, {status('VmHWM') / 2**30:.1f} GiB at most")
with torch.device("meta"):
    meta = VAETokenizer(open_vae(Path(folder) / "vae"))
stated = vae_memory(meta, 5, (480, 768), torch.bfloat16)
tokenizer = VAETokenizer(pipe.vae)
pixels = torch.rand(1, 3, 5, 480, 768) * 2 - 1
latents, encoding, seconds = measured(lambda: tokenizer.encode(pixels))
print(f"encode {encoding / 2**30:.2f} GiB, stated {stated['encode'] / 2**30:.2f}, {seconds:.0f} s")
frames, decoding, seconds = measured(lambda: tokenizer.decode(latents))
print(f"decode {decoding / 2**30:.2f} GiB, stated {stated['decode'] / 2**30:.2f}, {seconds:.0f} s")
assert frames.shape == pixels.shape and bool(frames.isfinite().all())
assert abs(encoding / stated["encode"] - 1) < 0.2
assert abs(decoding / stated["decode"] - 1) < 0.2

class Enough(Exception):
    pass

def stop(pipe, step, frame, kept):
    tokens = kept["tokens"]
    assert tokens.shape == (1, 1440, 16) and bool(tokens.isfinite().all()) and bool(tokens.any())
    raise Enough

pipe.set_progress_bar_config(disable=True)
start = time.monotonic()
try:
    pipe("a red ball", num_frames=5, callback_on_step_end=stop)
except Enough:
    print(f"one set in {time.monotonic() - start:.0f} s, {status('VmHWM') / 2**30:.1f} GiB at most")
else:
    raise AssertionError("no set was made")
assert status("VmHWM") < 24 * 2**30
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads memory from /proc")
def test_the_full_480p_pipeline_loads_codes_and_runs_a_set_within_the_memory_stated(tmp_path):
    maker = [sys.executable, "benchmarks/make_full_size.py", str(tmp_path), "--text"]
    subprocess.run(maker, cwd=ROOT, check=True, capture_output=True)
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "one set in" in result.stdout
