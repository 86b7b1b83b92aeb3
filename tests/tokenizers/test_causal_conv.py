"""A causal convolution is torch's own behind a repeated first frame, plain or sped up."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from contar._layers import CausalConv3d
from contar.cpu import plain, speed_up

CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def made(kernel=3, stride=1, padding=(1, 1), dtype=torch.float32):
    conv = CausalConv3d(6, 5, kernel, stride=stride, padding=padding)
    for seed, parameter in enumerate(conv.parameters()):
        draws = torch.Generator().manual_seed(seed)
        parameter.data = torch.randn(parameter.shape, generator=draws) / 10
    return conv.to(dtype)


def formula(conv, x):
    """The formula in float64."""
    before = conv.kernel_size[0] - 1
    x = torch.cat([x[:, :, :1]] * before + [x], dim=2).double()
    weight, bias = conv.weight.double(), conv.bias.double()
    return functional.conv3d(x, weight, bias, conv.stride, conv.padding)


@given(
    st.sampled_from([1, 3, (1, 3, 3), (3, 1, 1)]), st.sampled_from([1, 2, (2, 1, 1)]),
    st.sampled_from([(0, 0), (1, 1), (0, 1)]), st.integers(0, 2), st.integers(1, 6),
    st.sampled_from(list(CLOSE)), st.booleans(), st.sampled_from([plain, speed_up]),
)  # fmt: skip
def test_a_causal_convolution_is_the_formula_whether_or_not_gradients_are_on(
    kernel, stride, padding, batch, frames, dtype, learns, swap
):
    conv = swap(made(kernel, stride, padding, dtype))
    draws = torch.Generator().manual_seed(frames)
    x = torch.randn(batch, frames, 8, 7, 6, generator=draws).to(dtype)
    x = x.movedim(-1, 1)  # not contiguous
    with torch.set_grad_enabled(learns):
        result = conv(x)
    assert result.requires_grad == learns
    assert result.dtype == dtype
    expected = formula(conv, x).to(dtype)
    torch.testing.assert_close(result, expected, rtol=CLOSE[dtype], atol=CLOSE[dtype])


class Seen(TorchDispatchMode):
    """Counts the convolutions that oneDNN is called for by name."""

    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += func is torch.ops.aten.mkldnn_convolution.default
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="built without oneDNN")
def test_sped_up_it_is_onednns_without_gradients():
    conv, x = speed_up(made()), torch.ones(1, 6, 4, 8, 8)
    with Seen() as seen:
        conv(x).sum().backward()
        with torch.no_grad():
            made()(x)
            speed_up(made(dtype=torch.float64))(x.double())
            assert seen.calls == 0
            conv(x)
    assert seen.calls == 1


@pytest.mark.parametrize("learns", [True, False])
def test_operations_of_a_causal_convolution_are_counted(learns):
    with torch.set_grad_enabled(learns), FlopCounterMode(display=False) as counter:
        speed_up(made())(torch.ones(1, 6, 4, 8, 8))
    assert counter.get_total_flops() == 2 * 4 * 8 * 8 * 5 * 6 * 27
