"""torch.ops.dmc.* against their definitions written down once more, token by token."""

import math

import pytest
import torch
from dmc.torch import compose, ops

B, H, K, D = 2, 4, 2, 8


def inputs(tokens, sharpness=3.0, seed=1):
    """q [B, T, H, D], four of [B, T, K, D], two logits [B, T, K]: leaves in f64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, times=1.0):
        x = torch.randn(*shape, generator=generator, dtype=torch.double) * times
        return x.requires_grad_()

    heads = [normal(B, tokens, K, D) for _ in range(4)]
    logits = [normal(B, tokens, K, times=sharpness) for _ in range(2)]
    return normal(B, tokens, H, D), *heads, *logits


def literal_pool(x, merge, importance, window, newest_weighs_one):
    alpha, omega, rows = merge.sigmoid(), importance.sigmoid(), []
    for t in range(x.shape[1]):
        total, mean = 0.0, 0.0
        for j in range(max(0, t - window + 1) if window else 0, t + 1):
            weight = omega[:, j] * alpha[:, j + 1 : t + 1].prod(1)
            if newest_weighs_one and j == t:
                weight = torch.ones_like(weight)
            total, mean = total + weight, mean + weight[..., None] * x[:, j]
        rows.append(mean / total[..., None])
    return torch.stack(rows, 1)


def literal_attention(q, near, far, merge, delay):
    """near and far: (k, v) as queries less than `delay` behind see them, and as others do."""
    hidden, rows = merge.sigmoid(), []
    for i in range(q.shape[1]):
        heads = []
        for h in range(H):
            g, scores, values = h // (H // K), [], []
            for j in range(i + 1):
                k, v = near if i - j < delay else far
                score = (q[:, i, h] * k[:, j, g]).sum(-1) / math.sqrt(D)
                if i - j > delay:
                    score = score + torch.log(1 - hidden[:, j + 1, g])
                scores.append(score)
                values.append(v[:, j, g])
            weights = torch.stack(scores, -1).softmax(-1)
            heads.append((weights[..., None] * torch.stack(values, 1)).sum(1))
        rows.append(torch.stack(heads, 1))
    return torch.stack(rows, 1)


def with_gradients(outputs, leaves):
    gradient = torch.Generator().manual_seed(9)
    loss = sum((o * torch.randn(o.shape, generator=gradient, dtype=o.dtype)).sum() for o in outputs)
    # What nothing sees has a gradient of zeros.
    return *outputs, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)


def assert_equal(got, wanted, tolerance=1e-9):
    for x, y in zip(got, wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def test_the_kernels_are_there():
    assert ops.HAS_KERNELS


@pytest.mark.parametrize("implementation", [ops.pool, compose.pool])
@pytest.mark.parametrize("window,tokens", [(0, 9), (1, 5), (4, 70), (12, 13)])
@pytest.mark.parametrize("newest", [False, True])
def test_pool_is_its_definition(implementation, window, tokens, newest):
    _, k, v, _, _, merge, importance = inputs(tokens)
    leaves = [k, v, merge, importance]
    got = with_gradients(implementation(*leaves, window, newest), leaves)
    twin = [literal_pool(x, merge, importance, window, newest) for x in (k, v)]
    assert_equal(got, with_gradients(twin, leaves))


@pytest.mark.parametrize("delay", [0, 1, 3, 9, 20])
@pytest.mark.parametrize("composed", [False, True])
@pytest.mark.parametrize("turns", [False, True])
def test_attention_is_its_definition(delay, composed, turns, monkeypatch):
    if composed:
        monkeypatch.setattr(ops, "HAS_KERNELS", False)
    q, k, v, far_k, far_v, merge, _ = inputs(10)
    near, far = (k, v), (far_k, far_v) if turns else (k, v)
    if turns:
        out = ops.delayed_attention(q, near, far, merge, delay)
    else:
        out = ops.decision_attention(q, k, v, merge, delay)
    leaves = [q, k, v, far_k, far_v, merge]
    assert_equal(
        with_gradients([out], leaves),
        with_gradients([literal_attention(q, near, far, merge, delay)], leaves),
    )


def test_gradients_are_the_numeric_ones():
    q, k, v, far_k, far_v, merge, importance = inputs(5, sharpness=1.0)
    for newest in (False, True):
        assert torch.autograd.gradcheck(
            lambda *x, newest=newest: ops.pool(*x, 3, newest), (k, v, merge, importance)
        )
    for delay in (0, 2):
        assert torch.autograd.gradcheck(
            lambda *x, delay=delay: ops.decision_attention(*x, delay), (q, k, v, merge)
        )
        assert torch.autograd.gradcheck(
            lambda q, a, b, c, d, m, delay=delay: ops.delayed_attention(
                q, (a, b), (c, d), m, delay
            ),
            (q, k, v, far_k, far_v, merge),
        )


def test_opcheck():
    q, k, v, far_k, far_v, merge, importance = inputs(7)
    turned = k.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    torch.library.opcheck(torch.ops.dmc.pool, (k, v, merge, importance, 3, True))
    torch.library.opcheck(torch.ops.dmc.pool, (turned, v, merge, importance, 0, False))
    for optional in [(None,) * 3, (merge, None, None), (merge, far_k, far_v)]:
        torch.library.opcheck(torch.ops.dmc.attend, (q, k, v, *optional, 2))


def test_compiles_as_one_graph():
    q, k, v, _, _, merge, importance = (x.detach().float().requires_grad_() for x in inputs(33))

    def layer(q, k, v, merge, importance):
        k_mean, v_mean = ops.pool(k, v, merge, importance, 12)
        return ops.delayed_attention(q, (k, v), (k_mean, v_mean), merge, 8).tanh()

    leaves = [q, k, v, merge, importance]
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_equal(
        with_gradients([compiled(*leaves)], leaves), with_gradients([layer(*leaves)], leaves), 1e-5
    )


def test_bf16_is_computed_in_f32():
    q, k, v, _, _, merge, _ = (x.detach().float() for x in inputs(20))
    narrow = [x.bfloat16() for x in (q, k, v)]
    out = ops.decision_attention(*narrow, merge, 4)
    assert out.dtype == torch.bfloat16
    wide = ops.decision_attention(*(x.float() for x in narrow), merge, 4)
    torch.testing.assert_close(out, wide.bfloat16())


@pytest.mark.parametrize("turns", [False, True])
def test_flex_attention_gives_the_same(turns):
    """Its forward pass, which is all of it that runs on a CPU."""
    flex = pytest.importorskip("torch.nn.attention.flex_attention").flex_attention
    q, k, v, far_k, far_v, merge, _ = (x.detach() for x in inputs(40))
    far = (far_k, far_v) if turns else (None, None)
    for delay in (0, 5, 60):
        arguments = (q, k, v, ops.bias_of(merge), *far, delay)
        torch.testing.assert_close(
            compose._flex(*arguments, attention=flex), ops.attend(*arguments), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(
    "change,message",
    [
        ({"v": lambda x: x[:, :-1]}, "k and v must be alike"),
        ({"bias": lambda x: x[..., :1]}, "bias must be"),
        ({"k": lambda x: x.float()}, "H a multiple of K"),
        ({"far_k": lambda x: None}, "belong together"),
    ],
)
def test_refuses_what_does_not_fit(change, message):
    q, k, v, far_k, far_v, bias, _ = (x.detach() for x in inputs(6))
    given = {"q": q, "k": k, "v": v, "bias": bias, "far_k": far_k, "far_v": far_v, "delay": 1}
    for name, altered in change.items():
        given[name] = altered(given[name])
    with pytest.raises(RuntimeError, match=message):
        torch.ops.dmc.attend(*given.values())
