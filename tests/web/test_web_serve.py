"""Where the page is served, what it needs, and that nothing of it stays."""

from __future__ import annotations

import importlib.util
import os
import socket

import pytest

from mdg.commands import demo_web as command
from mdg.errors import ConfigError, MachineError
from mdg.web import serve as serving
from mdg.web.serve import LOOPBACK, PORTS, free_port, is_loopback, keep_to_itself, serve


@pytest.fixture
def taken():
    with socket.socket() as stream:
        stream.bind((LOOPBACK, 0))
        stream.listen()
        yield stream.getsockname()[1]


def test_the_next_free_port_is_taken(taken):
    port = free_port(LOOPBACK, taken)
    assert taken < port < taken + PORTS
    assert free_port(LOOPBACK, 0) > 1023


def test_ports_that_are_all_taken_are_a_sentence(taken, monkeypatch):
    monkeypatch.setattr(serving, "PORTS", 1)
    with pytest.raises(MachineError, match=rf"--port {taken}: all of {taken} to {taken} are taken at 127.0.0.1"):
        free_port(LOOPBACK, taken)


def test_an_address_of_nobody_is_a_sentence():
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(ConfigError, match=f"^--host {host}.*(expected one of|name an address of) this machine$"):
            free_port(host, 7860)


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.5", False), ("example.org", False)],
)  # fmt: skip
def test_who_reaches_an_address(host, alone):
    assert is_loopback(host) == alone


def test_without_gradio_it_is_one_sentence(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "gradio" else find(name, *rest)
    )
    with pytest.raises(SystemExit) as stop:
        command.main([])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        'demo_web: error: the page needs the package gradio, which is not installed: pip install "mdg[web]"\n'
    )


def test_gradio_is_told_to_be_silent(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "environ", {"NO_PROXY": "intranet", "GRADIO_SHARE": "True", "GRADIO_ALLOWED_PATHS": "/"})
    keep_to_itself(tmp_path)
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False" and os.environ["GRADIO_SHARE"] == "False"
    assert os.environ["GRADIO_ALLOWED_PATHS"] == "" and os.environ["GRADIO_TEMP_DIR"].startswith(str(tmp_path))
    assert os.environ["NO_PROXY"] == "intranet,localhost,127.0.0.1,::1" and "127.0.0.1" in os.environ["no_proxy"]


def test_a_server_speaks_to_nobody_else_and_ends(tiny, tmp_path, monkeypatch):
    httpx = pytest.importorskip("httpx", reason="it comes with gradio, an extra")
    pytest.importorskip("gradio", reason="gradio is an extra")
    from mdg.web.about import describe
    from mdg.web.page import build
    from mdg.web.samples import make_samples

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    asked: set[str] = set()
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def connecting(stream, address):
        if stream.family != socket.AF_UNIX:
            asked.add(str(address[0]))
        return connect(stream, address)

    def resolving(host, *rest, **named):
        asked.add(str(host))
        return resolve(host, *rest, **named)

    monkeypatch.setattr(socket.socket, "connect", connecting)
    monkeypatch.setattr(socket, "getaddrinfo", resolving)
    page = build(tiny, make_samples(tiny.config), describe(tiny), tmp_path, 5)
    port = free_port(LOOPBACK, 0)
    with serving.launched(page, LOOPBACK, port) as address:
        assert address == f"http://{LOOPBACK}:{port}/"
        for path, code in (("", 200), ("config", 200), ("monitoring", 404), ("gradio_api/file=/etc/passwd", 403)):
            with httpx.Client(trust_env=False) as client:
                found = client.get(address + path)
            assert (found.status_code == code) or (code >= 400 and found.status_code >= 400), (path, found.status_code)
    assert asked <= {LOOPBACK, "localhost", "None"} and LOOPBACK in asked
    assert free_port(LOOPBACK, port) == port, "it is free again"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--port", "99999"], "from 0 to 65535"), (["--port", "x"], "from 0 to 65535"), (["--frames", "0"], "from 1 up")],
)
def test_nonsense_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_options_of_a_pair_are_checked_before_the_network_is_read(tmp_path):
    pytest.importorskip("gradio", reason="gradio is an extra")
    with pytest.raises(ConfigError, match="thermal_scaling"):
        serve(tmp_path / "no.pt", thermal_scaling="{mode: nonsense}", port=0)
