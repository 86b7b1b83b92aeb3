"""Linear layers by oneDNN are torch's own, and whatever does not suit it runs as it always did."""

import contextlib
import warnings
from typing import Any

import pytest
import torch
from contar._linear import apply_linear, linear
from contar._mlp import Mlp, apply_mlp, packed
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from contar.heads import MeanFlowHead

PRODUCT = torch.ops.mkldnn._linear_pointwise.default
ON = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
ONE_DNN = pytest.mark.skipif(not ON, reason="torch was built without oneDNN")
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


class Seen(TorchDispatchMode):
    """Counts the products of oneDNN."""

    def __init__(self):
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.products += func is PRODUCT
        return func(*args, **(kwargs or {}))


def made(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def mlp_of(width, act, dtype=torch.float32):
    mlp = Mlp(width, width, act_layer=act)
    for seed, parameter in enumerate(mlp.parameters()):
        parameter.data = made(*parameter.shape, seed=seed) / width**0.5
    return mlp.to(dtype)


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


@given(
    st.integers(1, 3), st.integers(0, 40), st.sampled_from([1, 24, 512, 640]),
    st.sampled_from([3, 512]), st.booleans(), st.sampled_from(list(CLOSE)),
)  # fmt: skip
@example(2, 7, 640, 512, True, torch.float32)
@example(2, 7, 640, 512, False, torch.bfloat16)
def test_products_are_those_of_torch(batch, rows, width, out, biased, dtype):
    x = made(batch, rows + 2, width, dtype=dtype)[:, 1:-1]  # not contiguous
    weight = (made(out + 2, width, seed=1) / width**0.5).to(dtype)[1:-1]  # not from its beginning
    bias = made(out, seed=2, dtype=dtype) if biased else None
    with torch.no_grad():
        result = linear(x, weight, bias)
    assert_close(result, without(lambda: linear(x, weight, bias)))


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("act", [nn.GELU, nn.SiLU, nn.ReLU])
@pytest.mark.parametrize("calls", [1, 20])
def test_an_mlp_is_the_mlp_once_or_packed_for_many_calls(act, calls, dtype):
    mlp, x = mlp_of(512, act, dtype), made(2, 5, 512, seed=9, dtype=dtype)
    with torch.no_grad():
        run = packed(mlp, x, calls)
        results = [apply_mlp(mlp, x), run(x), run(x)]
    expected = without(lambda: mlp(x))
    for result in results:
        assert_close(result, expected)


@ONE_DNN
def test_large_products_without_gradients_are_onednns_and_are_counted():
    layer, x = nn.Linear(512, 512), made(3, 512)
    with torch.no_grad(), Seen() as seen:
        apply_linear(layer, x)
        apply_mlp(mlp_of(512, nn.SiLU), x)
        packed(mlp_of(512, nn.SiLU), x, calls=20)(x)
    assert seen.products == 5
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        apply_linear(layer, x)
    assert counter.get_total_flops() == 2 * 3 * 512 * 512


@ONE_DNN
def test_with_gradients_the_product_and_that_of_its_input_are_onednns():
    layer, x = nn.Linear(512, 512), made(3, 512).requires_grad_()
    with Seen() as seen:
        apply_mlp(mlp_of(512, nn.SiLU), x)
        assert seen.products == 2
        apply_linear(layer, x).sum().backward()
    assert seen.products == 4


@ONE_DNN
@pytest.mark.parametrize("learns", [True, False])
def test_small_ones_and_those_of_other_kinds_are_torchs(learns):
    class Other(torch.Tensor):
        pass

    layer, x = nn.Linear(512, 512), made(3, 512)
    with Seen() as seen, torch.set_grad_enabled(learns):
        apply_linear(nn.Linear(8, 8), made(3, 8))
        apply_linear(layer, x.as_subclass(Other))
        apply_linear(layer.double(), x.double())
        with one_dnn_off():
            apply_linear(layer.float(), x)
        with torch.autocast("cpu", torch.bfloat16):
            assert apply_linear(layer, x).dtype == torch.bfloat16
    assert seen.products == 0


@pytest.mark.parametrize("frozen", [(), ("x",), ("weight",), ("weight", "bias")])
@pytest.mark.parametrize("shape", [(), (5,), (2, 5)])
@pytest.mark.parametrize("dtype", CLOSE)
def test_derivatives_of_first_and_second_order_are_those_of_torch(dtype, shape, frozen):
    def derivatives():
        values = {"x": made(*shape, 520), "weight": made(512, 520, seed=1) / 23, "bias": made(512)}
        values = {name: value.to(dtype).requires_grad_() for name, value in values.items()}
        wanted = [value for name, value in values.items() if name not in frozen]
        for name in frozen:
            values[name].requires_grad_(False)
        out = linear(**values).float()
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


@ONE_DNN
@pytest.mark.parametrize(("frozen", "kept"), [((), 2), (("x",), 1), (("weight",), 1)])
def test_no_factor_is_kept_that_no_gradient_needs(frozen, kept):
    x, weight = made(3, 512).requires_grad_("x" not in frozen), made(512, 512)
    tensors = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: tensors.append(t) or t, lambda t: t):
        linear(x, weight.requires_grad_("weight" not in frozen))
    assert len(tensors) == kept


class Dropping(Mlp):
    def forward(self, x):
        return functional.dropout(super().forward(x), 0.5, self.training)


@pytest.mark.parametrize("learns", [True, False])
def test_an_mlp_that_does_more_is_called_as_it_is(learns):
    mlp = Dropping(512)
    x = made(3, 512)
    with torch.set_grad_enabled(learns):
        for run in (lambda x: apply_mlp(mlp, x), packed(mlp, x, 20)):
            assert 100 < (run(x) == 0).sum() < 3 * 512


@pytest.mark.filterwarnings("ignore::UserWarning")  # of operations that vmap loops over
def test_transforms_of_functions_go_through():
    weight, x = made(512, 512, seed=1) / 23, made(4, 512)

    def loss(x, weight):
        return linear(x, weight).square().mean()

    gradient = torch.func.grad(loss)
    want = gradient(x.double(), weight.double()).float()
    torch.testing.assert_close(gradient(x, weight), want, rtol=1e-4, atol=1e-7)
    alone = torch.func.vmap(gradient, in_dims=(0, None))(x, weight)
    torch.testing.assert_close(alone, 4 * want, rtol=1e-4, atol=1e-7)
    shared = torch.func.vmap(lambda factor: factor * loss(x, weight))(torch.ones(2))
    torch.testing.assert_close(shared, loss(x, weight).expand(2))


def test_hooks_are_called_and_what_a_layer_was_wrapped_in():
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    x, mlp = made(3, 512), mlp_of(512, nn.SiLU)
    mlp.fc2 = Doubled(512, 512)
    hooked = mlp_of(512, nn.SiLU)
    hooked.fc1.register_forward_hook(lambda *_: torch.zeros(3, 512))
    with torch.no_grad():
        for module in (mlp, hooked):
            for run in (packed(module, x, 20), lambda x, of=module: apply_mlp(of, x)):
                torch.testing.assert_close(run(x), module(x))
    twice: Any = mlp_of(512, nn.SiLU)
    twice.fc1.forward = lambda x, of=twice.fc1: 2 * nn.Linear.forward(of, x)  # as offloading does
    torch.testing.assert_close(apply_mlp(twice, x), twice(x))
    told = []
    twice.fc2.register_full_backward_hook(lambda *_: told.append(1))
    apply_mlp(twice, x.requires_grad_()).sum().backward()
    assert told


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own use of torch.jit
def test_derivatives_along_a_path_go_through_where_gradients_are_off():
    layer, x, along = nn.Linear(512, 512), made(3, 512), made(3, 512, seed=1)
    with torch.no_grad(), forward_ad.dual_level():
        moving = apply_linear(layer, forward_ad.make_dual(x, along))
        slope = forward_ad.unpack_dual(moving).tangent
    assert slope is not None
    torch.testing.assert_close(slope, without(lambda: along @ layer.weight.T))


def test_a_mean_flow_of_large_layers_learns_from_the_same_losses():
    head = MeanFlowHead(4, 8, width=512, depth=1)
    target, cond = made(6, 4), made(6, 8, seed=1)

    def loss():
        return head.loss(target, cond, generator=torch.Generator().manual_seed(0)).detach()

    torch.testing.assert_close(loss(), without(loss))
