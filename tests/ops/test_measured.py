"""The automatic choice by measured times: the nearest shape, the phase, what stands above it, and the file."""

from __future__ import annotations

import json
import logging

import pytest
import torch

from mdg.errors import UserError
from mdg.ops import dispatch, measured, register_backend
from mdg.ops.dispatch import OPERATORS, Backend, Operator, add_operator
from mdg.ops.feed_forward import gelu_linear
from mdg.ops.linear import OPERATOR as LINEAR
from mdg.ops.linear import linear
from mdg.ops.measured import FOLDER_VARIABLE, Timing, of_this_machine


@pytest.fixture(autouse=True)
def own_table(tmp_path, monkeypatch):
    """Every test has a folder of its own, and nothing measured."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    measured.use(None)
    yield
    measured.use(None)


def timing(numbers, forward_ms, backward_ms=None):
    return Timing(
        numbers=numbers, forward_ms=forward_ms, backward_ms=forward_ms if backward_ms is None else backward_ms
    )


def measure(**operators):
    """Takes an invented measurement of this machine for this process."""
    measured.use([of_this_machine(operators)])


@pytest.fixture
def toy(monkeypatch):
    """An operator with the backends 'fast' (length 4 at most), 'plain' and 'big' (only by name), described by its
    length, from 2 on."""
    monkeypatch.setattr(dispatch, "OPERATORS", dict(OPERATORS))

    def refuses(x: torch.Tensor) -> str | None:
        return None if x.shape[0] <= 4 else "only length 4"

    return add_operator(
        "toy",
        Backend("fast", lambda x: x + 1, refuses, priority=10),
        Backend("plain", lambda x: x + 2),
        Backend("big", lambda x: x + 3, why_not_automatic=lambda x: "by name only", priority=-1),
        describe=lambda x: (x.shape[0],) if x.shape[0] > 1 else None,
    )


def chosen(operator: Operator, length: int, **asked) -> str:
    return operator.choose(torch.zeros(length), **asked).name


def test_without_a_measurement_priorities_decide(toy):
    assert chosen(toy, 3) == "fast"


def test_the_nearest_shape_decides(toy):
    """Nearest by ratio: 3 is nearer to 4 than to 2 (3/2 > 4/3), though as far by difference."""
    measure(toy=[timing([2], {"fast": 1.0, "plain": 2.0}), timing([4], {"fast": 2.0, "plain": 1.0})])
    assert [chosen(toy, length) for length in (2, 3, 4)] == ["fast", "plain", "plain"]
    assert toy.report(torch.zeros(4)) == {"fast": "measured: plain is faster", "plain": None, "big": "by name only"}
    assert toy.report(torch.zeros(2))["plain"] == "measured: fast is faster"


def test_of_several_numbers_the_ratios_add_up():
    shapes = ([100, 64, 64], [1000, 64, 256], [1000, 8, 64])
    measure(linear=[timing(numbers, {"torch": place + 1.0}) for place, numbers in enumerate(shapes)])
    assert measured.nearest("linear", (400, 64, 128)).numbers == [1000, 64, 256]  # 2.5 * 2, not 4 * 2 or 2.5 * 8 * 2
    assert measured.nearest("linear", (200, 64, 64)).numbers == [100, 64, 64]
    assert measured.nearest("linear", (200, 64)) is None  # of an operator that describes its inputs another way
    assert measured.nearest("attention", (200, 64, 64)) is None


def test_below_the_floor_nothing_is_looked_up(toy):
    measure(toy=[timing([2], {"plain": 1.0, "fast": 2.0})])
    assert [chosen(toy, length) for length in (1, 2)] == ["fast", "plain"]


def test_objections_stand_above_times(toy):
    measure(toy=[timing([4], {"big": 0.1, "fast": 1.0, "plain": 2.0})])
    assert [chosen(toy, length) for length in (4, 5)] == ["fast", "plain"]
    assert toy.report(torch.zeros(5)) == {"fast": "only length 4", "plain": None, "big": "by name only"}


def test_a_name_stands_above_times(toy):
    measure(toy=[timing([4], {"fast": 1.0, "plain": 2.0})])
    assert chosen(toy, 4, backend="plain") == "plain"
    toy.set_backend("plain")
    assert chosen(toy, 4) == "plain"


def test_what_was_not_measured_keeps_its_place(toy):
    """The measured ones trade places among themselves; a backend from outside stays before or behind them."""
    measure(toy=[timing([4], {"plain": 1.0, "fast": 2.0})])
    register_backend("toy", "late", lambda x: x, priority=5)
    assert [backend.name for backend in toy._in_order(("plain", "fast"))] == ["plain", "late", "fast", "big"]
    assert chosen(toy, 4) == "plain"
    register_backend("toy", "early", lambda x: x, priority=50)
    assert chosen(toy, 4) == "early"


def test_unknown_names_in_a_measurement_do_no_harm(toy):
    measure(toy=[timing([4], {"gone": 0.1, "plain": 1.0, "fast": 2.0})])
    assert chosen(toy, 4) == "plain"


def test_forward_training_and_backward_are_told_apart(toy):
    measure(toy=[timing([4], {"fast": 1.0, "plain": 2.0}, {"fast": 9.0, "plain": 3.0})])
    x = torch.zeros(4)
    assert toy.choose(x).name == "fast"
    assert toy.choose(x.requires_grad_()).name == "plain"
    with torch.no_grad():
        assert toy.choose(x).name == "fast"
    measure(toy=[timing([4], {"fast": 1.0, "plain": 9.0}, {"fast": 3.0, "plain": 2.0})])
    assert (toy.choose(x).name, toy.choose(x, phase="backward").name) == ("fast", "plain")


def test_what_has_no_backward_is_not_chosen_for_training(toy):
    measure(toy=[timing([4], {"fast": 1.0, "plain": 2.0}, {"plain": 3.0})])
    ranked = [measured.ranking("toy", (4,), phase, toy.names) for phase in ("forward", "backward", "training")]
    assert ranked == [("fast", "plain"), ("plain",), ("plain",)]


def test_near_ties_stay_with_the_expected_choice(toy):
    """Noise of a few per cent must not give another backend after the next race."""
    names = ("a", "b", "c")
    assert measured.by_time({"a": 1.0, "b": 0.9, "c": 0.86}, names) == names
    assert measured.by_time({"a": 1.0, "b": 0.9, "c": 0.7}, names) == ("c", "a", "b")
    assert measured.by_time({"b": 2.0, "c": 1.9, "gone": 0.1}, names) == ("b", "c")
    measure(toy=[timing([4], {"fast": 1.0, "plain": 0.9})])
    assert chosen(toy, 4) == "fast"
    measure(toy=[timing([4], {"fast": 1.0, "plain": 0.8})])
    assert chosen(toy, 4) == "plain"


def test_a_tie_of_one_thread_stays_with_the_guess():
    x, weight, before = torch.zeros(400, 64), torch.zeros(128, 64), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        measure(linear=[timing([400, 64, 128], {"onednn": 0.95, "torch": 1.0})])
        assert LINEAR.choose(x, weight, None).name == "torch"
    finally:
        torch.set_num_threads(before)


def test_a_measured_time_stands_above_a_guess():
    """One thread is what a guess is about; the product is above the floor."""
    x, weight = torch.zeros(400, 64), torch.zeros(128, 64)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert LINEAR.choose(x, weight, None).name == "torch"
        measure(linear=[timing([400, 64, 128], {"onednn": 1.0, "torch": 2.0})])
        assert LINEAR.choose(x, weight, None).name == "onednn"
        assert LINEAR.choose(x[:1], weight, None).name == "torch"  # too small for a look-up
        torch.set_num_threads(2)  # which was not measured; the guess is that of the processor
        assert not LINEAR._ranking((x, weight, None), None)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("forward", "backward"), [("onednn", "torch"), ("torch", "onednn")])
def test_forward_and_backward_of_a_fused_layer_are_chosen_apart(monkeypatch, forward, backward):
    def times(fastest):
        return {name: 1.0 if name == fastest else 2.0 for name in ("onednn", "torch")}

    measure(linear=[timing([400, 64, 128], times(forward), times(backward))])
    phases, choose = [], LINEAR.choose

    def note(*inputs, **asked):
        phases.append((asked.get("phase", "forward"), choose(*inputs, **asked).name))
        return choose(*inputs, **asked)

    monkeypatch.setattr(LINEAR, "choose", note)
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 64, generator=generator).requires_grad_() for n in (400, 128))
    gelu_linear(x, weight, None).square().sum().backward()
    assert phases == [("forward", forward), ("backward", backward)]
    exact = torch.nn.functional.gelu(x.detach().double()) @ weight.detach().double().t()
    expected = 2 * exact.t() @ torch.nn.functional.gelu(x.detach().double())
    torch.testing.assert_close(weight.grad.double(), expected, rtol=1e-4, atol=1e-3)


DESCRIBED = {
    "linear": (((10, 400, 64), (128, 64), None), (4000, 64, 128)),
    "attention": (((2, 300, 64), (2, 70, 64), (2, 70, 64), 4), (8, 300, 70, 16)),
    "neighborhood_attention": ((*3 * [(2, 30, 4, 2, 32)], 5, 0.1), (480, 20, 32)),  # no window is wider than the map
    "channel_scan": (((300, 8, 32), (300, 8, 52), (2, 32, 2), (2, 32), (2, 32, 12), (2, 32)), (300, 8, 64)),
}


@pytest.mark.parametrize("name", DESCRIBED)
def test_numbers_of_an_operator_by_hand(name):
    shapes, numbers = DESCRIBED[name]
    inputs = [torch.zeros(shape) if isinstance(shape, tuple) else shape for shape in shapes]
    operator = OPERATORS[name]
    assert operator.describe(*inputs) == numbers
    empty = [x[:0] if isinstance(x, torch.Tensor) and place == 0 else x for place, x in enumerate(inputs)]
    assert operator.describe(*empty) is None
    able = [backend for backend in operator.names if operator.objection(backend, *inputs) is None]
    for fastest in able:
        measure(**{name: [timing(list(numbers), {b: 1.0 if b == fastest else 2.0 for b in operator.names})]})
        assert operator.choose(*inputs).name == fastest
    assert able


def test_the_choice_is_a_constant_of_a_graph():
    measure(linear=[timing([400, 64, 128], {"onednn": 1.0, "torch": 2.0})])
    graphs = []

    def backend(graph, inputs):
        graphs.append({node.name for node in graph.graph.nodes if node.op == "call_function"})
        return graph

    def compiled(**options):
        torch.compiler.reset()
        graphs.clear()
        return torch.compile(lambda x, w: linear(x, w), fullgraph=True, backend=backend, **options)

    x, weight = torch.zeros(400, 64), torch.zeros(128, 64)
    assert compiled()(x, weight).shape == (400, 128)
    assert "conv2d" in graphs[0]
    measure(linear=[timing([400, 64, 128], {"onednn": 2.0, "torch": 1.0})])
    compiled()(x, weight)
    assert "conv2d" not in graphs[0]
    of_any_length = compiled(dynamic=True)  # for no shape in particular: nothing is looked up, nothing compiled twice
    for rows in (400, 500, 600):
        of_any_length(torch.zeros(rows, 64), weight)
    assert len(graphs) == 1
    torch.compiler.reset()


# --- the file ---------------------------------------------------------------------------------------------------------


def test_what_was_kept_is_found_by_the_next_process(toy, tmp_path):
    file = measured.keep(of_this_machine({"toy": [timing([4], {"plain": 1.0, "fast": 2.0})]}))
    assert file == tmp_path / "backends.json"
    measured.use(None)  # as in a new process
    assert chosen(toy, 4) == "plain"
    assert measured.current().at is not None


OTHERS = {"processor": "another", "threads": 77, "torch": "1.0", "kernels": "0123456789abcdef"}


@pytest.mark.parametrize("field", OTHERS)
def test_another_machine_is_not_taken_and_not_lost(toy, field):
    own = of_this_machine({"toy": [timing([4], {"plain": 1.0, "fast": 2.0})]})
    other = own.model_copy(update={field: OTHERS[field]})
    measured.keep(other)
    measured.use(None)
    assert chosen(toy, 4) == "fast" and measured.current() is None
    measured.keep(own)
    assert measured.read(measured.user_file()) == [own, other]
    again = own.model_copy(update={"at": "later"})
    measured.keep(again)
    assert measured.read(measured.user_file()) == [again, other]


def damaged(**fields):
    whole = of_this_machine({"toy": [timing([4], {"plain": 1.0, "fast": 2.0})]}).model_dump()
    return json.dumps({"machines": [{**whole, **fields}]})


DAMAGE = {
    "cut off": lambda: damaged()[:-20],
    "no text": lambda: b"\xff\x00\xfe",
    "a list": lambda: "[]",
    "another content": lambda: '{"runs": []}',
    "threads as text": lambda: damaged(threads="2"),
    "no time": lambda: damaged(operators={"toy": [{"numbers": [4], "forward_ms": {"plain": 0}, "backward_ms": {}}]}),
    "not finite": lambda: damaged(
        operators={"toy": [{"numbers": [4], "forward_ms": {"plain": float("nan")}, "backward_ms": {}}]}
    ),
    "a number of zero": lambda: damaged(operators={"toy": [{"numbers": [0], "forward_ms": {}, "backward_ms": {}}]}),
    "deep": lambda: "[" * 100_000,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_one_warning(toy, tmp_path, caplog, kind):
    content = DAMAGE[kind]()
    (tmp_path / "backends.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with caplog.at_level(logging.WARNING):
        assert [chosen(toy, 4) for _ in range(3)] == 3 * ["fast"]
    (record,) = caplog.records
    assert "backends.json" in record.getMessage() and "doctor.py --race" in record.getMessage()


def test_no_file_is_no_warning(toy, caplog):
    assert chosen(toy, 4) == "fast" and not caplog.records


def test_a_file_that_is_too_large_is_not_read(toy, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("MDG_LIMIT_JSON_BYTES", "10")
    measured.keep(of_this_machine({"toy": [timing([4], {"plain": 1.0, "fast": 2.0})]}))
    measured.use(None)
    assert chosen(toy, 4) == "fast" and "--limit json_bytes=" in caplog.text


def test_where_the_file_lies(monkeypatch, tmp_path):
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert measured.user_file() == tmp_path / "xdg" / "mdg" / "backends.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert measured.user_file() == tmp_path / "home" / ".cache" / "mdg" / "backends.json"
    monkeypatch.setattr(measured, "user_file", lambda: None)
    with pytest.raises(UserError, match="no home folder.*MDG_CACHE_DIR"):
        measured.keep(of_this_machine({}))
