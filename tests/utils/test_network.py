"""The interface that leads to another machine."""

from __future__ import annotations

import os
import socket

import pytest

from mdg.utils import network


@pytest.fixture(autouse=True)
def _unnamed(monkeypatch):
    for variable in network.NAMED_BY:
        monkeypatch.delenv(variable, raising=False)


def test_loopback_names_none():
    assert network.interface_towards("127.0.0.1") is None
    assert network.interface_towards("no such host.") is None


class Towards:
    """A datagram socket whose way to any host leaves from one address."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def connect(self, place):
        assert place == ("10.0.0.9", network.DISCARD_PORT)

    def getsockname(self):
        return "10.0.0.2", 40000


def test_the_interface_with_that_address_is_named(monkeypatch):
    addresses = {"lo": "127.0.0.1", "eth0": "192.168.0.2", "ib0": "10.0.0.2"}
    monkeypatch.setattr(socket, "socket", Towards)
    monkeypatch.setattr(socket, "if_nameindex", lambda: list(enumerate(addresses)))
    monkeypatch.setattr(network, "_address_of", addresses.get)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "mine")
    assert network.name_interface("10.0.0.9") == "ib0"
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0" and os.environ["NCCL_SOCKET_IFNAME"] == "mine"


def test_the_system_is_asked_for_addresses():
    names = [name for _, name in socket.if_nameindex()]
    assert "lo" not in names or network._address_of("lo") == "127.0.0.1"
    assert network._address_of("none-such") is None
