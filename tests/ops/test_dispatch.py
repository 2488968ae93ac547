"""Choice of a backend: order, reasons, overrides, messages."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest
import torch

from mdg.errors import UserError
from mdg.ops import available_backends, dispatch, register_backend, set_backend
from mdg.ops.dispatch import Backend, Operator, add_operator, constant_while_tracing
from mdg.ops.neighborhood_attention import natten as natten_backend


def _fast_refuses(x: torch.Tensor) -> str | None:
    return None if x.shape[0] == 4 else "only length 4"


@pytest.fixture
def toy(monkeypatch):
    """Builds an operator with two backends: 'fast' (adds 1, length 4 only) and 'plain' (adds 2)."""
    monkeypatch.setattr(dispatch, "OPERATORS", dict(dispatch.OPERATORS))
    monkeypatch.delenv("MDG_TOY", raising=False)

    def build() -> Operator:
        fast = Backend("fast", lambda x: x + 1, _fast_refuses, priority=10)
        return add_operator("toy", Backend("plain", lambda x: x + 2), fast)

    return build


def test_best_backend_that_can_run_is_chosen(toy):
    operator = toy()
    assert operator.names == available_backends("toy") == ("fast", "plain")
    assert operator.choose(torch.zeros(4)).name == "fast"
    assert operator.choose(torch.zeros(3)).name == "plain"
    assert operator(torch.zeros(3)).tolist() == [2, 2, 2]
    assert operator.report(torch.zeros(3)) == {"fast": "only length 4", "plain": None}


def test_call_beats_config_beats_environment_beats_automatic(toy, monkeypatch):
    monkeypatch.setenv("MDG_TOY", "plain")
    operator, x = toy(), torch.zeros(4)
    assert operator.choose(x).name == "plain"
    set_backend("toy", "fast")
    assert operator.choose(x).name == "fast"
    assert operator.choose(x, backend="plain").name == "plain"
    set_backend("toy", None)
    assert operator.choose(x).name == "plain"
    set_backend("toy", "auto")
    assert operator.choose(x).name == "fast"


def test_every_operator_has_an_environment_variable():
    names = {name: operator.environment for name, operator in dispatch.OPERATORS.items()}
    assert names["channel_scan"] == "MDG_CHANNEL_SCAN"
    assert names["neighborhood_attention"] == "MDG_NEIGHBORHOOD_ATTENTION"


def test_constants_are_marked_as_the_compiler_marks_them():
    """The mark is an attribute of PyTorch's own; if it gets another name, this is where that is noticed."""
    ours, theirs = constant_while_tracing(lambda: 1), torch.compiler.assume_constant_result(lambda: 1)
    assert vars(ours) == vars(theirs) != {}


def test_former_names_serve_and_are_said(monkeypatch, caplog):
    monkeypatch.setitem(dispatch.FORMER, "old_toy", "channel_scan")
    assert dispatch.get_operator("selective_scan") is dispatch.OPERATORS["channel_scan"]
    assert "operator 'selective_scan' is now called 'channel_scan'" in caplog.text
    monkeypatch.setenv("MDG_OLD_TOY", "torch")
    operator = dispatch.Operator("channel_scan")
    assert operator._wanted(None) == ("torch", "the environment variable MDG_CHANNEL_SCAN")
    assert "MDG_OLD_TOY is now called MDG_CHANNEL_SCAN" in caplog.text


def test_unknown_names_list_the_known_and_the_nearest(toy, monkeypatch):
    operator = toy()
    with pytest.raises(UserError, match=r"'fats' from set_backend.*auto, fast, plain.*Did you mean 'fast'"):
        set_backend("toy", "fats")
    with pytest.raises(UserError, match="argument backend="):
        operator(torch.zeros(4), backend="fats")
    with pytest.raises(UserError, match=r"channel_scn.*Did you mean 'channel_scan'"):
        set_backend("channel_scn", "torch")
    monkeypatch.setenv("MDG_TOY", "fats")
    with pytest.raises(UserError, match="environment variable MDG_TOY"):
        toy()(torch.zeros(4))


def test_forced_backend_that_cannot_run_says_why(toy):
    operator = toy()
    set_backend("toy", "fast")
    with pytest.raises(UserError, match="'fast', asked for by set_backend, cannot run: only length 4"):
        operator(torch.zeros(3))


def test_no_backend_left_gives_every_reason(toy, monkeypatch):
    operator = toy()
    monkeypatch.setattr(operator, "_backends", operator._backends[:1])
    with pytest.raises(UserError, match="no backend.*not fast: only length 4"):
        operator(torch.zeros(3))


def test_choice_and_reasons_are_logged_once(toy, caplog):
    operator = toy()
    with caplog.at_level(logging.INFO, logger="mdg.ops"):
        for _ in range(3):
            operator(torch.zeros(3))
            operator(torch.zeros(4))
    assert [record.getMessage() for record in caplog.records] == [
        "toy runs on backend 'plain' (not fast: only length 4)",
        "toy runs on backend 'fast' (first choice)",
    ]


def test_a_backend_from_outside_takes_part(toy):
    operator = toy()
    register_backend("toy", "mine", lambda x: x + 3, why_not=lambda x: None, priority=20)
    assert operator(torch.zeros(4)).tolist() == [3, 3, 3, 3]
    with pytest.raises(UserError, match="second backend 'mine'"):
        register_backend("toy", "mine", lambda x: x)
    with pytest.raises(UserError, match="second backend 'auto'"):
        register_backend("toy", "auto", lambda x: x)


def test_compiled_dispatch_is_one_graph_and_follows_set_backend(toy, caplog):
    operator = toy()
    compiled = torch.compile(lambda x: operator(x), fullgraph=True, backend="eager")
    with caplog.at_level(logging.INFO, logger="mdg.ops"):
        assert compiled(torch.zeros(4)).tolist() == [1, 1, 1, 1]
    assert not [record for record in caplog.records if record.name == "mdg.ops"]
    set_backend("toy", "plain")
    assert compiled(torch.zeros(4)).tolist() == [2, 2, 2, 2]


@pytest.fixture
def fresh_import_check():
    natten_backend._try_import.cache_clear()
    yield
    natten_backend._try_import.cache_clear()


def _natten_objection() -> str:
    x = torch.zeros(1, 4, 4, 1, 8)
    return natten_backend.why_not(x, x, x, 3, 1.0)


def test_missing_library_is_a_reason(monkeypatch, fresh_import_check):
    monkeypatch.setitem(sys.modules, "natten", None)
    assert "cannot be imported (ModuleNotFoundError" in _natten_objection()


def test_broken_library_is_a_reason(monkeypatch, fresh_import_check):
    def undefined_symbol(name: str) -> None:
        raise OSError("undefined symbol")

    monkeypatch.setattr(natten_backend, "importlib", SimpleNamespace(import_module=undefined_symbol))
    assert "cannot be imported (OSError: undefined symbol)" in _natten_objection()
