"""dmc.KvCache against its definition in numpy. Runs where the wheel is installed (./run test wheel)."""

import threading

import numpy as np
import pytest

pytest.importorskip("dmc._core", reason="the wheel is not installed: ./run test wheel")
import dmc  # noqa: E402

LAYERS, KV_HEADS, HEADS, DIM = 2, 2, 4, 8


def make(**options):
    return dmc.KvCache(LAYERS, KV_HEADS, DIM, query_heads=HEADS, **options)


def tokens(count, seed=0):
    random = np.random.default_rng(seed)

    def draw(*shape):
        return random.standard_normal(shape, dtype=np.float32)

    return {
        "q": draw(count, HEADS, DIM),
        "k": draw(count, KV_HEADS, DIM),
        "v": draw(count, KV_HEADS, DIM),
        "decisions": random.random((count, KV_HEADS)) < 0.5,
        "importance": random.random((count, KV_HEADS), dtype=np.float32) + 0.1,
    }


def part(given, first, last):
    return {name: array[first:last] for name, array in given.items()}


def attend(cache, given):
    return [cache.attend(layer, **given) for layer in range(LAYERS)][-1]


def definition(given):
    """What each token's queries read, and the slots each head has at the end."""
    out, lengths = np.zeros_like(given["q"]), []
    for head in range(KV_HEADS):
        sums = []  # of each slot: weight, weighted key, weighted value
        for t in range(len(out)):
            weight = given["importance"][t, head]
            token = weight * np.concatenate([[1.0], given["k"][t, head], given["v"][t, head]])
            if sums and given["decisions"][t, head]:
                sums[-1] = sums[-1] + token
            else:
                sums.append(token)
            slots = np.array([s[1:] / s[0] for s in sums])
            for query in range(head * 2, head * 2 + 2):
                scores = slots[:, :DIM] @ given["q"][t, query] / np.sqrt(DIM)
                shares = np.exp(scores - scores.max())
                out[t, query] = shares / shares.sum() @ slots[:, DIM:]
        lengths.append(len(sums))
    return out, lengths


def in_two_steps(cache, given, first):
    read = [attend(cache, part(given, 0, first))] if first else []
    read += [attend(cache, part(given, t, t + 1)) for t in range(first, len(given["q"]))]
    return np.concatenate(read)


@pytest.mark.parametrize("first", [0, 50], ids=["token by token", "a prompt first"])
def test_it_reads_what_the_definition_reads(first):
    given = tokens(60)
    cache = make(window=0)
    read = in_two_steps(cache, given, first)
    wanted, lengths = definition(given)
    np.testing.assert_allclose(read, wanted, atol=1e-5)
    assert cache.lengths.tolist() == [lengths] * LAYERS
    assert len(cache) == cache.length == 60
    assert cache.ratio == pytest.approx(120 / sum(lengths))


def test_without_decisions_nothing_is_merged():
    given = tokens(30)
    cache = make(policy="dense")
    read = attend(cache, {"q": given["q"], "k": given["k"], "v": given["v"]})
    wanted, _ = definition({**given, "decisions": np.zeros((30, KV_HEADS), bool)})
    np.testing.assert_allclose(read, wanted, atol=1e-5)
    assert (cache.lengths == 30).all() and cache.ratio == 1.0


def test_what_is_appended_is_what_attending_takes_in():
    given = tokens(40)
    first, second = make(), make()
    attend(first, part(given, 0, 30))
    unasked = {name: array for name, array in part(given, 0, 30).items() if name != "q"}
    for layer in range(LAYERS):
        second.append(layer, **unasked)
    assert (first.lengths == second.lengths).all()
    rest = part(given, 30, 40)
    np.testing.assert_array_equal(attend(first, rest), attend(second, rest))
    with pytest.raises(dmc.InvalidArgumentError, match="attend"):
        make(policy="tova", budget=16).append(0, **{k: v for k, v in unasked.items() if k in "kv"})


def test_a_fork_goes_on_by_itself():
    given = tokens(40)
    parent = make()
    attend(parent, part(given, 0, 30))
    fork, slots = parent.fork(), parent.lengths
    read = attend(fork, part(given, 30, 40))
    assert (parent.lengths == slots).all() and len(parent) == 30
    np.testing.assert_array_equal(attend(parent, part(given, 30, 40)), read)
    del parent
    assert len(fork) == 40


def test_arrays_of_another_type_or_order_are_copied():
    given = tokens(20)
    wanted = attend(make(), given)
    strided = {name: np.asfortranarray(a) for name, a in given.items()}
    np.testing.assert_array_equal(attend(make(), strided), wanted)
    wide = {**given, "k": given["k"].astype(np.float64), "decisions": given["decisions"].astype(np.uint8)}
    np.testing.assert_array_equal(attend(make(), wide), wanted)


def test_what_is_returned_outlives_the_cache():
    given = tokens(20)
    cache = make()
    read, lengths = attend(cache, given), cache.lengths
    copies = read.copy(), lengths.copy()
    del cache
    attend(make(), tokens(20, seed=1))
    np.testing.assert_array_equal(read, copies[0])
    np.testing.assert_array_equal(lengths, copies[1])


def test_errors_have_a_class_and_a_field():
    with pytest.raises(dmc.InvalidArgumentError) as error:
        make(policy="best")
    assert error.value.field == "policy" and isinstance(error.value, ValueError)
    with pytest.raises(dmc.InvalidArgumentError) as error:
        make().attend(0, **{**tokens(4), "k": tokens(4)["q"]})
    assert error.value.field == "k" and "(4, 2, 8)" in str(error.value)
    cache = make(max_pages=2, window=1)
    given = tokens(200)
    with pytest.raises(dmc.ExhaustedError) as error:
        attend(cache, {name: given[name] for name in ["q", "k", "v"]})
    assert isinstance(error.value, MemoryError)


def test_threads_may_share_pages():
    first = make()
    given = tokens(50)
    wanted = attend(make(), given)
    results = {}

    def work(i, text):
        results[i] = attend(text, given)

    threads = [threading.Thread(target=work, args=(i, first.new_text())) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        np.testing.assert_array_equal(results[i], wanted)
