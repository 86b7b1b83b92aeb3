"""Faster layers on a CPU are the plain ones: their numbers, and all that is done with modules."""

import contextlib
import copy
import ctypes
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from heads import HEADS  # type: ignore[attr-defined]
from heads import make as make_small  # type: ignore[attr-defined]
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_mar import tiny_mar
from tiny_nova import CONFIGS, texts  # type: ignore[import-not-found]
from torch import Tensor, distributed, nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from contar import cpu
from contar._layers import CausalConv3d, Mlp
from contar.cpu import FastCausalConv3d, FastLinear, laid_out, plain, speed_up
from contar.heads import MeanFlowHead, make_head
from contar.tokenizers import CausalVAE
from recipes import mar, nova

PRODUCT = torch.ops.mkldnn._linear_pointwise.default
ON = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
ONE_DNN = pytest.mark.skipif(not ON, reason="torch was built without oneDNN")
LABELS = torch.tensor([2, 0, 1])
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


class Seen(TorchDispatchMode):
    """Counts the products of oneDNN, and keeps the weights that they took."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is PRODUCT:
            self.weights.append(args[1])
        return func(*args, **(kwargs or {}))

    @property
    def products(self):
        return len(self.weights)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=seeded(seed)).to(dtype)


def drawn(module, dtype=torch.float32):
    """Draw the weights of a module."""
    for seed, parameter in enumerate(module.parameters()):
        parameter.data = made(*parameter.shape, seed=seed) / parameter.shape[-1] ** 0.5
    return module.to(dtype)


def fast_layer(inputs=512, outputs=512, dtype=torch.float32, **options):
    return speed_up(drawn(nn.Linear(inputs, outputs, **options), dtype))


def fast_mlp(act=nn.SiLU, dtype=torch.float32):
    return speed_up(drawn(Mlp(512, act_layer=act), dtype))


@contextlib.contextmanager
def one_dnn_off():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of Intel's GPUs, which nobody asked about
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def without(run):
    with torch.no_grad(), one_dnn_off():
        return run()


def assert_close(result, expected):
    torch.testing.assert_close(
        result, expected, rtol=CLOSE[expected.dtype], atol=CLOSE[expected.dtype]
    )


# The layer.


@given(
    st.integers(1, 3), st.integers(0, 40), st.sampled_from([1, 24, 512, 640]),
    st.sampled_from([3, 512]), st.booleans(), st.sampled_from(list(CLOSE)),
)  # fmt: skip
@example(2, 7, 640, 512, True, torch.float32)
@example(2, 7, 640, 512, False, torch.bfloat16)
def test_fast_products_equal_those_of_torch(batch, rows, width, out, biased, dtype):
    x = made(batch, rows + 2, width, dtype=dtype)[:, 1:-1]  # not contiguous
    layer = fast_layer(width, out, dtype, bias=biased)
    whole = torch.cat([torch.ones(1, width), layer.weight, torch.ones(1, width)]).to(dtype)
    layer.weight.data = whole[1:-1]  # not from its beginning
    with torch.no_grad():
        result = layer(x)
    assert_close(result, without(lambda: functional.linear(x, layer.weight, layer.bias)))


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("calls", [1, 20])
@pytest.mark.parametrize("rows", [1, 5, 7])
def test_weights_laid_out_for_many_calls_give_the_same_for_any_rows(rows, calls, dtype):
    mlp, x = fast_mlp(dtype=dtype), made(2, 5, 512, seed=9, dtype=dtype)
    with torch.no_grad(), laid_out(mlp.children(), rows, calls):
        results = [mlp(x), mlp(x)]
    expected = without(lambda: mlp(x))
    for result in results:
        assert_close(result, expected)


@ONE_DNN
def test_a_weight_is_laid_out_within_alone_and_never_kept():
    mlp, x = fast_mlp(), made(3, 512)
    with torch.no_grad(), Seen() as seen:
        with laid_out(mlp.children(), 3, calls=20):
            for _ in range(2):
                mlp(x)
        mlp.fc1.weight.data.zero_()  # which no counter of versions notices
        mlp.fc2.weight.data.zero_()
        assert_close(mlp(x), mlp.fc2.bias.expand(3, -1))
    assert seen.products == 6
    assert seen.weights[0] is seen.weights[2]
    assert seen.weights[0] is not mlp.fc1.weight
    assert seen.weights[4] is mlp.fc1.weight


@ONE_DNN
def test_large_products_without_gradients_are_onednns_and_are_counted():
    layer, x = fast_layer(), made(3, 512)
    with torch.no_grad(), Seen() as seen:
        layer(x)
        plain(copy.deepcopy(layer))(x)
        fast_mlp()(x)
    assert seen.products == 3
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() == 2 * 3 * 512 * 512


@ONE_DNN
def test_attention_on_a_cpu_is_counted_forward_and_backward():
    q, k, v = (made(1, 2, length, 8).requires_grad_() for length in (6, 5, 5))
    product = 2 * 2 * 6 * 5 * 8  # of two heads
    with FlopCounterMode(display=False) as counter:
        out = functional.scaled_dot_product_attention(q, k, v)
    assert counter.get_total_flops() == 2 * product
    with FlopCounterMode(display=False) as counter:
        out.sum().backward()
    assert counter.get_total_flops() == 5 * product  # one of them again


@ONE_DNN
def test_with_gradients_the_product_and_that_of_its_input_are_onednns():
    layer, x = fast_layer(), made(3, 512).requires_grad_()
    with Seen() as seen:
        layer(x).sum().backward()
    assert seen.products == 2


@ONE_DNN
@pytest.mark.parametrize("learns", [True, False])
def test_small_ones_and_those_of_other_kinds_are_torchs(learns):
    class Other(torch.Tensor):
        pass

    layer, x = fast_layer(), made(3, 512)
    with Seen() as seen, torch.set_grad_enabled(learns):
        fast_layer(8, 8)(made(3, 8))
        layer(x.as_subclass(Other))
        layer.double()(x.double())
        with one_dnn_off():
            layer.float()(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        assert layer.to("meta")(x.to("meta")).device.type == "meta"
    assert seen.products == 0


@pytest.mark.parametrize("frozen", [(), ("x",), ("weight",), ("weight", "bias")])
@pytest.mark.parametrize("shape", [(), (5,), (2, 5)])
@pytest.mark.parametrize("dtype", CLOSE)
def test_derivatives_of_first_and_second_order_are_those_of_torch(dtype, shape, frozen):
    def derivatives():
        layer = fast_layer(520, 512, dtype)
        values = {"x": made(*shape, 520, dtype=dtype).requires_grad_(), **layer._parameters}
        wanted: Any = [value for name, value in values.items() if name not in frozen]
        for name in frozen:
            values[name].requires_grad_(False)  # type: ignore[union-attr]
        out = layer(values["x"]).float()
        once = torch.autograd.grad((out.sin() + out.square()).mean(), wanted, create_graph=True)
        size = torch.stack([grad.float().square().sum() for grad in once]).sum()
        twice = torch.autograd.grad(size, wanted)
        return [out.detach(), *once, *twice]

    with one_dnn_off():
        expected = derivatives()
    for result, want in zip(derivatives(), expected, strict=True):
        scale = want.float().abs().max()
        torch.testing.assert_close(
            result.float() / scale, want.float() / scale, rtol=0, atol=CLOSE[dtype]
        )


def test_a_gradient_is_the_same_where_onednn_is_off_by_then():
    layer, x = fast_layer(), made(3, 512).requires_grad_()
    out = layer(x).sum()
    with one_dnn_off():
        (grad,) = torch.autograd.grad(out, x)
    torch.testing.assert_close(grad, layer.weight.sum(0).expand(3, -1))


@ONE_DNN
@pytest.mark.parametrize(("frozen", "kept"), [((), 2), (("x",), 1), (("weight",), 1)])
def test_no_factor_is_kept_that_no_gradient_needs(frozen, kept):
    x, layer = made(3, 512).requires_grad_("x" not in frozen), fast_layer()
    layer.weight.requires_grad_("weight" not in frozen)
    tensors = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: tensors.append(t) or t, lambda t: t):
        layer(x)
    assert len(tensors) == kept


# What is done with modules.


@pytest.mark.filterwarnings("ignore::UserWarning")  # of operations that vmap loops over
def test_transforms_of_functions_go_through():
    layer, x = fast_layer(bias=False), made(4, 512)

    def loss(weight, x):
        return torch.func.functional_call(layer, {"weight": weight}, (x,)).square().mean()

    weight = layer.weight.detach()
    gradient = torch.func.grad(loss)(weight, x)
    out = x.double() @ weight.double().T
    want = (2 / out.numel() * out.T @ x.double()).float()
    torch.testing.assert_close(gradient, want, rtol=1e-4, atol=1e-7)
    alone = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weight, x)
    torch.testing.assert_close(alone.mean(0), want, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(torch.func.vmap(layer)(x[:, None])[:, 0], layer(x))
    ensemble = torch.stack([weight, 2 * weight])
    twice = torch.func.vmap(loss, in_dims=(0, None))(ensemble, x)
    torch.testing.assert_close(twice[1], 4 * twice[0])


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own use of torch.jit
def test_derivatives_along_a_path_go_through_where_gradients_are_off():
    layer, x, along = fast_layer(), made(3, 512), made(3, 512, seed=1)
    with torch.no_grad(), forward_ad.dual_level():
        moving = layer(forward_ad.make_dual(x, along))
        slope = forward_ad.unpack_dual(moving).tangent
    assert slope is not None
    torch.testing.assert_close(slope, without(lambda: along @ layer.weight.T))


@pytest.mark.parametrize("learns", [True, False])
def test_hooks_are_called_and_what_a_layer_was_wrapped_in(learns):
    x, mlp, told = made(3, 512).requires_grad_(learns), fast_mlp(), []
    mlp.fc1.register_forward_pre_hook(lambda *_: told.append("before"))
    mlp.fc1.register_forward_hook(lambda *_: told.append("after"))
    mlp.fc2.register_full_backward_hook(lambda *_: told.append("back"))
    every = nn.modules.module.register_module_forward_hook(lambda *_: told.append("any"))
    try:
        with torch.set_grad_enabled(learns):
            out = mlp(x)
    finally:
        every.remove()
    if learns:
        out.sum().backward()
    assert told == ["before", "any", "after", "any", "any", "any"] + ["back"] * learns
    wrapped: Any = fast_layer()
    forward = wrapped.forward
    wrapped.forward = lambda x: 2 * forward(x)  # as offloading does
    torch.testing.assert_close(wrapped(x), 2 * fast_layer()(x))


def test_layers_of_other_kinds_stay_as_they_are():
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    kinds = [Doubled(2, 2), nn.Conv3d(1, 1, 1), nn.LayerNorm(2), nn.Linear(2, 2, device="meta")]
    model = speed_up(nn.Sequential(*kinds))
    assert [type(module) for module in model] == [Doubled, nn.Conv3d, nn.LayerNorm, nn.Linear]


def test_a_parametrization_goes_on_and_off():
    layer, x = fast_layer(), made(3, 512)
    parametrizations.weight_norm(layer)
    torch.testing.assert_close(layer(x), fast_layer()(x))
    assert plain(layer) is layer
    torch.testing.assert_close(layer(x), fast_layer()(x))


def test_a_fast_class_equals_the_one_it_replaces_and_no_other():
    assert {nn.Linear: 1, nn.LayerNorm: 2}.get(FastLinear) == 1
    assert FastLinear in [nn.Linear]
    assert FastLinear not in [nn.Module, nn.Conv3d, CausalConv3d, FastCausalConv3d]


def test_a_fast_layer_compiles_to_one_graph():
    layer, x = fast_layer(), made(3, 512)
    graph = torch.compile(layer, backend="eager", fullgraph=True)
    with torch.no_grad():
        for rows in (3, 2):
            torch.testing.assert_close(graph(x[:rows]), layer(x[:rows]))


# Whole models.


def nova_of(name) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nova.build(CONFIGS[name]).eval()


def nova_loss(model):
    clips = made(2, 2, 2, 4, 4)
    return nova.training_losses(model, clips, texts(2, 0), generator=seeded()).total


def nova_made(model):
    plan = nova.GenerationPlan(frames=2, sets=2, diffusion_steps=8, guidance=nova.Guidance(2.0))
    return nova.generate(model, texts(2, 0), plan, generator=seeded())


def mar_loss(model):
    return mar.training_losses(model, made(3, 2, 4, 8), LABELS, generator=seeded()).total


def mar_made(model):
    plan = mar.GenerationPlan(sets=2, diffusion_steps=8, guidance=mar.Guidance(2.0))
    return mar.generate(model, LABELS, plan, generator=seeded())


def head_of(kind):
    return lambda: make_small(kind, 4, 8, width=512)


def head_loss(head):
    return head.loss(made(6, 4), made(6, 8, seed=1), generator=seeded()).mean()


def head_made(head):
    return head.sample(made(2, 3, 8), noise=seeded())


def vae_of():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CausalVAE(widths=(8, 16, 16)).eval()


def vae_made(vae):
    return vae.decode(vae.encode(made(1, 3, 5, 16, 16)).latent_dist.mean).sample


def vae_loss(vae):
    return vae_made(vae).square().mean()


MODELS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "NOVA": (lambda: nova_of("absolute, adapter"), nova_loss, nova_made),
    "rotary NOVA": (lambda: nova_of("rotary"), nova_loss, nova_made),
    "MAR": (tiny_mar, mar_loss, mar_made),
    "VAE": (vae_of, vae_loss, vae_made),
    **{kind: (head_of(kind), head_loss, head_made) for kind in HEADS},
}


@pytest.fixture(params=list(MODELS))
def case(request, monkeypatch):
    """A plain model, its loss and what it makes; every layer, small ones too, would be fast."""
    monkeypatch.setattr("contar.cpu._LARGE", 0)
    make, loss, made = MODELS[request.param]
    return plain(make()), loss, made


def gradients(model, loss):
    value = loss(model)
    wanted = [p for p in model.parameters() if p.requires_grad]
    return value.detach(), torch.autograd.grad(value, wanted, allow_unused=True)


def test_a_swapped_model_equals_the_plain_one_and_swaps_back(case):
    model, loss, make = case
    kinds = [type(module) for module in model.modules()]
    names, parameters = list(model.state_dict()), list(model.parameters())
    with torch.no_grad():
        before = make(model)
    value, grads = gradients(model, loss)
    assert speed_up(model) is model
    fast = [type(module) is FastLinear for module in model.modules()]
    assert sum(fast) == sum(kind is nn.Linear for kind in kinds) > 0
    assert list(model.state_dict()) == names
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    with torch.no_grad(), Seen() as seen:
        torch.testing.assert_close(make(model), before, rtol=1e-4, atol=1e-4)
    assert seen.products or not ON
    same_value, same_grads = gradients(model, loss)
    torch.testing.assert_close(same_value, value, rtol=1e-4, atol=1e-5)
    for grad, want in zip(same_grads, grads, strict=True):
        torch.testing.assert_close(grad, want, rtol=1e-3, atol=1e-4)
    assert plain(model) is model
    assert all(type(m) is kind for m, kind in zip(model.modules(), kinds, strict=True))
    with torch.no_grad(), Seen() as seen:
        assert torch.equal(make(model), before)
    assert seen.products == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_have_weights_of_their_own_and_are_as_fast(copied):
    model = speed_up(vae_of())
    other = copied(model)
    assert [type(m) for m in other.modules()] == [type(m) for m in model.modules()]
    assert FastCausalConv3d in map(type, other.modules())
    with torch.no_grad():
        want = vae_made(model)
        for parameter in model.parameters():
            parameter.zero_()
        torch.testing.assert_close(vae_made(other), want)
    other.load_state_dict(model.state_dict())
    assert all(bool((p == 0).all()) for p in other.parameters())


def test_what_builds_and_loads_models_speeds_them_up(tmp_path):
    model = nova_of("absolute")
    model.save_pretrained(tmp_path / "nova")
    vae_of().save_pretrained(tmp_path / "vae")
    loaded = [nova.Nova.from_pretrained(tmp_path / "nova")]
    loaded += [nova.from_pretrained("moving-digits").transformer, tiny_mar(), model]
    for network in loaded:
        assert FastLinear in map(type, network.modules())
        assert not any(type(module) is nn.Linear for module in network.modules())
    for vae in (
        CausalVAE.from_pretrained(tmp_path / "vae"),
        nova.from_pretrained("moving-digits").vae,
    ):
        assert FastCausalConv3d in map(type, vae.modules())
        assert not any(type(module) is CausalConv3d for module in vae.modules())


def test_a_swapped_model_runs_in_bfloat16_and_under_autocast():
    model = nova_of("absolute")
    want = nova_made(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert nova_loss(model).isfinite()
    half = nova.generate(
        model.to(torch.bfloat16), texts(2, 0).bfloat16(), nova.GenerationPlan(frames=2, sets=2),
        generator=seeded(),
    )  # fmt: skip
    assert half.shape == want.shape
    assert half.isfinite().all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")  # all of torch's own
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("swap", [speed_up, plain])
def test_torchs_quantisation_finds_every_linear_layer_and_the_model_generates(swap, inplace):
    model = swap(nova_of("rotary, adapter"))
    want = nova_made(model)
    layers = sum(isinstance(module, nn.Linear) for module in model.modules())
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, inplace=inplace)
    small: Any = torch.ao.nn.quantized.dynamic.Linear  # type: ignore[attr-defined]
    assert sum(isinstance(module, small) for module in quantized.modules()) == layers
    result = nova_made(quantized)
    assert 0 < (result - want).norm() < 0.1 * want.norm()


def test_a_fast_mlp_trains_in_distributed_data_parallel(tmp_path):
    distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mlp, x = fast_mlp(), made(3, 512)
        want = torch.autograd.grad(mlp(x).square().sum(), list(mlp.parameters()))
        DistributedDataParallel(mlp)(x).square().sum().backward()
    finally:
        distributed.destroy_process_group()
    for parameter, grad in zip(mlp.parameters(), want, strict=True):
        torch.testing.assert_close(parameter.grad, grad)


def test_a_mean_flow_of_large_layers_learns_from_the_same_losses():
    head = speed_up(MeanFlowHead(4, 8, width=512, depth=1))
    target, cond = made(6, 4), made(6, 8, seed=1)

    def loss():
        return head.loss(target, cond, generator=seeded()).detach()

    torch.testing.assert_close(loss(), without(loss))


# Names that torch may change. It needs some itself, so they come back once contar has looked.
WITHOUT = """
import importlib, types
import torch
from torch.autograd import forward_ad

NAMES = [
    (torch.ops.mkldnn, "_linear_pointwise"), (torch.ops.mkldnn, "_reorder_linear_weight"),
    (torch.ops.mkldnn, "_is_mkldnn_bf16_supported"),
    (torch._C, "_are_functorch_transforms_active"), (forward_ad, "_current_level"),
]

class Without(types.ModuleType):
    def __init__(self, place, names):
        self.place, self.names = place, names
    def __getattr__(self, name):
        if name in self.names:
            raise AttributeError(name)
        return getattr(self.place, name)

def look(names):
    owners = [(torch.ops, "mkldnn"), (torch, "_C"), (torch.autograd, "forward_ad")]
    kept = [(owner, of, getattr(owner, of)) for owner, of in owners]
    for owner, of, place in kept:
        setattr(owner, of, Without(place, [name for where, name in names if where is place]))
    try:
        import contar.cpu
        return importlib.reload(contar.cpu) if "seen" in globals() else contar.cpu
    finally:
        for owner, of, place in kept:
            setattr(owner, of, place)

cpu = look(NAMES)
seen = True
assert cpu._KNOWN is False

from recipes import nova
from tiny_nova import CONFIGS, texts  # type: ignore[import-not-found]

model = nova.build(CONFIGS["absolute"]).eval()
assert all(type(module).__module__ != "contar.cpu" for module in model.modules())
layer = torch.nn.Linear(512, 512)
layer.__class__ = cpu.FastLinear  # as in a model that was pickled elsewhere
assert layer(torch.zeros(3, 512)).shape == (3, 512)
plan = nova.GenerationPlan(frames=2, sets=2, diffusion_steps=8)
made = nova.generate(model, texts(1, 0), plan, generator=torch.Generator().manual_seed(0))
nova.training_losses(model, made, texts(1, 0), generator=torch.Generator()).total.backward()
for name in NAMES:
    assert type(look([name]).speed_up(torch.nn.Linear(2, 2))) is torch.nn.Linear, name
assert type(look([]).speed_up(torch.nn.Linear(2, 2))) is not torch.nn.Linear
print("made", tuple(made.shape))
"""


@ONE_DNN
def test_where_torch_lacks_a_name_layers_stay_plain_and_all_runs():
    folder = os.path.dirname(__file__)
    paths = [os.path.dirname(folder), os.path.join(folder, "laws")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", WITHOUT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[-2] == "made (1, 2, 2, 4, 4)"


class Memory(ctypes.Structure):
    """What glibc's mallinfo2 tells: bytes and blocks, of which `hblks` the system gave apart."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks")]
    _fields_ += [(f"further{i}", ctypes.c_size_t) for i in range(6)]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="not glibc, or before 2.33")
def test_memory_is_kept_for_a_sped_up_model_and_not_fetched_block_by_block():
    speed_up(nn.Linear(2, 2))
    told = ctypes.CDLL(None).mallinfo2
    told.restype = Memory
    before = told().hblks
    held = torch.empty(2**24, dtype=torch.uint8)
    assert told().hblks <= before
    assert held.numel() == 2**24


@ONE_DNN
def test_a_draw_of_a_head_multiplies_by_weights_that_are_laid_out_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = {"name": "flow", "width": 512, "depth": 2, "steps": 10}
    head: Any = make_head(sizes, 4, 16)
    speed_up(head)
    product, seen = cpu._product, []

    def watched(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        seen.append(weight.is_mkldnn)
        return product(x, weight, *rest)

    monkeypatch.setattr(cpu, "_product", watched)
    with torch.no_grad():
        head.sample(torch.randn(1, 4, 16), noise=torch.Generator().manual_seed(0))
    assert sum(seen) >= 2 * 2 * 10  # both layers of each block, in each step
