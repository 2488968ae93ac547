"""What a run tells about its machine."""

from __future__ import annotations

import os

import pytest

from mdg.utils.environment import processor

CORES = os.cpu_count()


@pytest.mark.parametrize(
    "told, expected",
    [
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx avx2 vaes\n\nmodel name\t: the second core\n", "AMD EPYC (AVX2)"),
        ("model name\t: Xeon: 6\nflags\t\t: avx2 avx512f avx512bw\n", "Xeon: 6 (AVX-512)"),
        ("model name\t: Old\nflags\t\t: fpu sse2\n", "Old"),
    ],
)
def test_the_processor_by_name_and_vectors(tmp_path, told, expected):
    file = tmp_path / "cpuinfo"
    file.write_text(told)
    assert processor(file) == f"{expected} x {CORES}"


def test_a_processor_that_tells_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.processor", lambda: "aarch64")
    (tmp_path / "cpuinfo").write_text("Features\t: fp asimd\n")
    assert processor(tmp_path / "cpuinfo") == f"aarch64 (NEON) x {CORES}"
    assert processor(tmp_path / "none") == f"aarch64 x {CORES}"
