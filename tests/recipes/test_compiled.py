"""A compiled model generates what it generated before, in few graphs for any number of sets."""

from typing import Any

import pytest
from forks import Fork
from tiny_mar import SIZES

from recipes import mar, nova

PROGRAM = """
import copy
import pickle
import torch
from recipes import mar, nova

torch.manual_seed(0)
tower, guided = nova.Tower(2, 32, 2), nova.Guidance(3.0)
if "{recipe}" == "nova":
    recipe, given = nova, torch.randn(2, 4, 16)
    model = nova.build(nova.NovaConfig(
        temporal=tower, encoder=tower, decoder=tower,
        head={"name": "flow", "width": 32, "depth": 2},
        text_width=16,
        text_length=4, latent=(16, 16), frames=2, adapter=4,
    ))
    options = {"frames": 2, "guidance": guided}
else:
    recipe, given = mar, torch.tensor([1, 0])
    model = mar.build(mar.MarConfig(
        encoder=tower, decoder=tower, head=mar.official_head(32, 2), latent=(8, 8), channels=4,
        patch=1, classes=3, buffer=4,
    ))
    options = {"rounding": "floor", "guidance": guided}
for weight in model.head.parameters():  # MAR's head starts at 0
    torch.nn.init.normal_(weight, std=0.2)
model.eval()
plans = [recipe.GenerationPlan(diffusion_steps=3, sets=sets, **options) for sets in (9, 5, 7)]
options["diffusion_steps"] = 2
plans += [recipe.GenerationPlan(sets=12, refresh=refresh, **options) for refresh in (4, 12)]
plans.append(recipe.GenerationPlan(sets=6, refresh=3, **options))


def generate(plan, batch, model=model):
    return recipe.generate(model, given[:batch], plan, generator=torch.Generator().manual_seed(1))


graphs = 0


def count(graph, inputs):
    global graphs
    graphs += 1
    return graph


cases = list(zip(plans, (1, 2, 1, 1, 1, 1)))
wanted = [generate(*case) for case in cases]
names = list(model.state_dict())
model.compile(backend=count)
counts = []
for case, want in zip(cases, wanted):
    torch.testing.assert_close(generate(*case), want, rtol=0, atol=1e-4)
    counts.append(graphs)
assert list(model.state_dict()) == names
for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # which are not compiled
    assert torch.equal(generate(*cases[0], model=twin), wanted[0])
    torch.nn.init.zeros_(twin.head.network.out.weight)
    assert not torch.allclose(generate(*cases[0], model=twin), wanted[0])
assert graphs == counts[-1]
print(*counts)
"""


@pytest.mark.parametrize("recipe", ["nova", "mar"])
def test_a_compiled_model_generates_the_same_in_graphs_that_know_no_number_of_tokens(
    recipe, tmp_path
):
    # In a process of its own, because the shape-checking hook of the other tests breaks graphs.
    program = PROGRAM.replace("{recipe}", recipe)
    code, printed = Fork(tmp_path / "printed.txt", exec, program, {}).finish()
    assert code == 0, printed[-3000:]
    counts = [int(count) for count in printed.splitlines()[-1].split()]
    assert 1 <= counts[0] <= 6  # 5; were the head's modulations views of one product: 8
    assert counts[0] == counts[1] == counts[2]  # other numbers of sets and samples
    assert counts[3] == counts[4] <= 16  # features kept across 4 sets, and across 12
    assert counts[5] <= 24


@pytest.mark.parametrize("compile", [True, False])
def test_a_model_and_a_pipeline_may_be_asked_for_compiled(compile, monkeypatch):
    compiled = []
    for model in (nova.Nova, mar.Mar):
        monkeypatch.setattr(model, "compile", lambda self: compiled.append(self))
    made = [
        nova.from_pretrained("moving-digits", compile=compile).transformer,
        nova.build(compile=compile, device="meta"),
        mar.build(mar.MarConfig(**SIZES), compile=compile),
    ]
    assert compiled == (made if compile else [])


def test_a_word_for_compile_is_refused(refuses):
    word: Any = "yes"
    with refuses("compile", "str"):
        nova.from_pretrained("moving-digits", compile=word)
    with refuses("compile", "str"):
        mar.build(mar.MarConfig(**SIZES), compile=word)
