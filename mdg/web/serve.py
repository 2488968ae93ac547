"""Serving the page: nothing goes out, files have a folder of their own, and both end with the program."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mdg.engine.predictor import load
from mdg.errors import ConfigError, MachineError
from mdg.utils.limits import limit
from mdg.utils.logging import setup_logging
from mdg.web.about import describe
from mdg.web.samples import make_samples

logger = logging.getLogger("mdg.web")
LOOPBACK = "127.0.0.1"
PORTS = 20  # that are tried, from the first one up
SESSIONS = 50  # whose results are kept in memory
GRACE_S = 1  # seconds that open connections have at the end
SILENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "GRADIO_SHARE": "False",
    "GRADIO_DEBUG": "0",
    "GRADIO_ALLOWED_PATHS": "",
    "GRADIO_WATCH_DIRS": "",
}


def serve(
    checkpoint: str | Path | None = None,
    config: str | Path | None = None,
    *,
    device: str = "auto",
    opts: Sequence[str] = (),
    thermal_scaling: Any = None,
    align: Any = None,
    grey_rgb: str | None = None,
    host: str = LOOPBACK,
    port: int = 7860,
    frames: int = 300,
) -> None:
    """Serves the page until it is interrupted.

    Args:
        checkpoint, config, device, opts, thermal_scaling, align, grey_rgb: As for :func:`mdg.load`.
        host: Address to listen at. Anybody who reaches another one than the loopback may use the page.
        port: The first port that is tried; where it is taken, the next free one is. 0 takes any.
        frames: Frames of a video that are taken at most.

    Raises:
        ConfigError: Gradio is not installed, or an address that is none of this machine.
        MachineError: No port is free.
        UserError: As :func:`mdg.load`.
    """
    require_gradio()
    setup_logging(True)
    port = free_port(host, port)
    predictor = load(
        checkpoint, config, device=device, opts=opts, thermal_scaling=thermal_scaling, align=align, grey_rgb=grey_rgb
    )
    samples, about = make_samples(predictor.config), describe(predictor)
    with tempfile.TemporaryDirectory(prefix="mdg-web-", ignore_cleanup_errors=True) as folder, _ending():
        keep_to_itself(Path(folder))
        from mdg.web.page import build  # Gradio reads its environment when it is imported

        page = build(predictor, samples, about, Path(folder), frames)
        with launched(page, host, port) as address:
            if not is_loopback(host):
                logger.warning(
                    "--host %s: anybody who reaches this address may use the page and this machine's time; it asks for "
                    "no password. Leave --host out to keep it to yourself",
                    host,
                )
            print(f"{address} shows {predictor.checkpoint} (Ctrl-C ends it)", flush=True)
            wait()


def require_gradio() -> None:
    """Raises ConfigError where the page's package is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError('the page needs the package gradio, which is not installed: pip install "mdg[web]"')


def keep_to_itself(folder: Path) -> None:
    """Sets what Gradio reads when it is imported: its files go to ``folder``, and nothing is sent to anybody."""
    os.environ.update(SILENT, GRADIO_TEMP_DIR=str(folder / "uploads"))
    # Gradio asks its own server whether it is there, which a proxy would answer with no.
    for name in ("NO_PROXY", "no_proxy"):
        known = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*known, "localhost", LOOPBACK, "::1"]))


def free_port(host: str, first: int) -> int:
    """The first port from ``first`` on that is free at an address; of 0 any.

    Raises:
        ConfigError: The address is none of this machine, or the port may not be used.
        MachineError: No free one among those that are tried.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, first, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"--host {host}: no address ({error.strerror}); expected one of this machine") from None
    last = min(first + PORTS - 1, 65535)
    for port in range(first, last + 1):
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((place[0], port, *place[2:]))
                return int(trial.getsockname()[1])
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                advice = "choose one above 1023" if error.errno == errno.EACCES else "name an address of this machine"
                raise ConfigError(f"--host {host} --port {port}: {error.strerror}; {advice}") from None
    raise MachineError(f"--port {first}: all of {first} to {last} are taken at {host}; name another with --port")


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def launched(page: Any, host: str, port: int) -> Iterator[str]:
    """Serves a page while the block runs; gives its address."""
    import gradio as gr

    from mdg.web.page import CSS

    name = f"[{host}]" if ":" in host else host
    fonts = [gr.themes.Font(font) for font in ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")]
    mono = [gr.themes.Font(font) for font in ("ui-monospace", "Menlo", "Consolas", "monospace")]
    try:
        _, address, _ = page.launch(
            server_name=name,
            server_port=port,
            share=False,
            quiet=True,
            inline=False,
            inbrowser=False,
            prevent_thread_lock=True,
            show_error=False,
            max_file_size=limit("upload_bytes"),
            state_session_capacity=SESSIONS,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            root_path="",
            theme=gr.themes.Base(font=fonts, font_mono=mono).set(
                body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300"
            ),
            css=CSS.read_text(encoding="utf-8"),
        )
        yield address
    finally:
        if page.is_running:
            page.server.config.timeout_graceful_shutdown = GRACE_S
            page.close(verbose=False)


def wait() -> None:
    """Until a signal."""
    forever = threading.Event()
    while not forever.wait(1):
        pass


@contextmanager
def _ending() -> Iterator[None]:
    """Being told to end is as good as Ctrl-C: what was made is cleared away. 128 + N is the exit code then."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
