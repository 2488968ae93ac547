"""Recorded forward passes: the bookkeeping on any machine, with recordings that only keep their memory as graphs do;
the graphs themselves on a GPU."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from known_models import images, tiny
from torch import Tensor, nn

from mdg.config import load_config
from mdg.config.schema import EvalConfig
from mdg.engine import cuda_graphs
from mdg.engine.cuda_graphs import GraphedForward, copied
from mdg.engine.inference import Inference
from mdg.errors import UserError
from mdg.models import build_model
from mdg.models.segmentor import SegmentationOutput
from mdg.ops.neighborhood_attention import tiled
from mdg.ops.tables import cached_tables, keeping


class FixedMemory:
    """As a graph does, reads and writes the same memory in every call."""

    made = 0

    def __init__(self, forward: Callable, given: tuple[Tensor, ...]):
        FixedMemory.made += 1
        self.forward, self.images = forward, [image.clone() for image in given]
        self.output = forward(*self.images)

    def __call__(self, *given: Tensor) -> SegmentationOutput:
        for kept, image in zip(self.images, given, strict=True):
            kept.copy_(image)
        self.output.logits.copy_(self.forward(*self.images).logits)
        return copied(self.output)


@pytest.fixture
def graphed() -> GraphedForward:
    FixedMemory.made = 0
    return GraphedForward(tiny(), limit=2, record=FixedMemory)


@torch.inference_mode()
def test_the_second_pass_of_a_size_is_recorded(graphed):
    model, made = tiny(), []
    for seed in range(4):
        pair = images(2, 33, 47, seed)
        assert torch.equal(graphed(*pair).logits, model(*pair).logits)
        made.append(FixedMemory.made)
    assert made == [0, 1, 1, 1]


@torch.inference_mode()
def test_results_stay_when_the_next_images_come(graphed):
    pairs = [images(1, 20, 30, seed) for seed in range(3)]
    results = [graphed(*pair).logits for pair in pairs]
    model = tiny()
    assert all(torch.equal(got, model(*pair).logits) for got, pair in zip(results, pairs, strict=True))


@torch.inference_mode()
def test_the_size_unused_for_longest_is_forgotten(graphed):
    a, b, c = (images(1, 20, width) for width in (30, 40, 50))
    for pair in (a, a, b, b, a, c, c):  # c takes the place of b
        graphed(*pair)
    assert FixedMemory.made == 3 and len(graphed.recordings) == 2
    graphed(*a)
    assert FixedMemory.made == 3
    graphed(*b)
    graphed(*b)
    assert FixedMemory.made == 4


@torch.inference_mode()
def test_batch_and_dtype_are_part_of_the_size(graphed):
    for pair in (images(1, 20, 30), images(2, 20, 30), [x.float() for x in images(1, 20, 30)]):
        graphed(*pair)
    assert FixedMemory.made == 0


def test_copies_keep_the_form():
    x, y = torch.ones(2), torch.zeros(3)
    output = SegmentationOutput(x, (y,), ())
    copy = copied((output, None))
    assert isinstance(copy[0], SegmentationOutput) and copy[1] is None and copy[0].divergence == ()
    assert torch.equal(copy[0].logits, x) and torch.equal(copy[0].auxiliary[0], y)
    assert copy[0].logits.data_ptr() != x.data_ptr() and copy[0].auxiliary[0].data_ptr() != y.data_ptr()


@pytest.mark.parametrize(("device", "asked", "expected"), [("cpu", True, False), ("cuda", True, True),
                                                           ("cuda", False, False)])  # fmt: skip
def test_inference_records_on_a_gpu_where_asked(device, asked, expected):
    inference = Inference(tiny(), EvalConfig(cuda_graphs=asked), torch.autocast("cpu", enabled=False),
                          torch.device(device))  # fmt: skip
    assert isinstance(inference._forward, GraphedForward) == expected


def test_a_pass_that_cannot_be_recorded_says_what_to_do(monkeypatch):
    """The calls of torch.cuda are stand-ins: the one that records fails."""

    class Nothing:
        def __init__(self, *args, **options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return False

        def wait_stream(self, stream):
            pass

    def fail(graph):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    fake = SimpleNamespace(device=Nothing, Stream=Nothing, current_stream=Nothing, stream=Nothing, CUDAGraph=Nothing,
                           graph=fail)  # fmt: skip
    model, pair = tiny(), images(1, 20, 30)
    monkeypatch.setattr(cuda_graphs.torch, "cuda", fake)
    with pytest.raises(UserError, match=r"when stream is capturing\); set eval.cuda_graphs to false"):
        cuda_graphs.Recording(model, pair)


# --- what a recording reads ----------------------------------------------------------------------------------------


class Reader:
    """A forward pass with neighbourhood attention of five kernels; notes which tables each size read."""

    def __init__(self, monkeypatch):
        tiled._cached_tables.cache_clear()
        self.read: dict[int, set[weakref.ref]] = {}
        tables_like = tiled._tables_like

        def noted(x, kernel):
            tables = tables_like(x, kernel)
            self.read.setdefault(x.shape[2], set()).update(map(weakref.ref, tables))
            return tables

        monkeypatch.setattr(tiled, "_tables_like", noted)

    def __call__(self, image: Tensor) -> Tensor:
        x = image.view(1, *image.shape[-2:], 1, 1).float()
        return sum(tiled.tiled_neighborhood_attention(x, x, x, kernel, 1.0) for kernel in (3, 5, 7, 9, 11))

    def alive(self, width: int) -> list[bool]:
        gc.collect()
        return [table() is not None for table in self.read.get(width, ())]


class Recorded:
    """As a graph does, runs the pass once and never again: from then on only memory is read."""

    def __init__(self, forward: Callable, given: tuple[Tensor, ...]):
        forward(*given)

    def __call__(self, *given: Tensor) -> int:
        return given[0].shape[-1]


@torch.inference_mode()
def test_a_recording_owns_the_tables_that_it_reads(monkeypatch):
    """Every size reads five tables and the cache keeps sixteen: those of A are forgotten by the cache, and read."""
    reader = Reader(monkeypatch)
    graphed = GraphedForward(reader, limit=4, record=Recorded)
    A, B, C, D, E = 16, 17, 18, 19, 20
    for width in (A, A, B, B, C, C, D, D):
        graphed(torch.zeros(1, 1, 12, width))
    recorded = {width: set(refs) for width, refs in reader.read.items()}
    for width in (A, E, A):  # E takes the place of B
        graphed(torch.zeros(1, 1, 12, width))
    assert [key[0][0][-1] for key in graphed.recordings] == [C, D, E, A]
    for width in (A, C, D):
        reader.read[width] = recorded[width]
        alive = reader.alive(width)
        assert len(alive) == 5 * 5 and all(alive), width
    tiled._cached_tables.cache_clear()  # of B nothing but the cache may hold something
    assert not any(reader.alive(B))
    assert all(reader.alive(A))
    graphed.recordings.clear()
    assert not any(reader.alive(A))


def test_tables_are_ordinary_and_shared_while_they_are_kept():
    made = []

    @cached_tables
    def ones(n: int) -> Tensor:
        made.append(n)
        return torch.ones(n)

    with torch.inference_mode(), keeping() as kept:
        first = [ones(n) for n in range(40)]  # more than the cache holds
        again = [ones(n) for n in range(40)]
    assert all(a is b for a, b in zip(first, again, strict=True)) and made == list(range(40))
    assert not first[0].is_inference() and len(kept) == 40
    with keeping() as outer, keeping() as inner:
        ones(3)
    assert len(inner) == len(outer) == 1
    assert ones(39) is first[39]  # the cache, outside


# --- on a GPU ------------------------------------------------------------------------------------------------------


def on_gpu(model: nn.Module, cuda_graphs: bool, dtype: torch.dtype | None = None) -> Inference:
    autocast = torch.autocast("cuda", dtype=dtype, enabled=dtype is not None)
    return Inference(model, EvalConfig(cuda_graphs=cuda_graphs), autocast, torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_replayed_mdg_equals_a_plain_pass(dtype):
    torch.manual_seed(0)
    config = load_config("configs/mfnet/mdg_b2.yaml", ["model.rgb_backbone=b0", "model.thermal_backbone=b0"])
    model = build_model(config.model, 9, load_pretrained=False).cuda().eval()
    plain, replayed = on_gpu(model, False, dtype), on_gpu(model, True, dtype)
    for seed in range(4):
        pair = images(2, 96, 128, seed)
        expected, got = (inference.scores(*pair, (96, 128)) for inference in (plain, replayed))
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        for parameter in model.parameters():  # as an optimizer does, in place
            parameter.mul_(1.01)
    expected, got = (inference.scores(*images(2, 96, 128, 9), (96, 128)) for inference in (plain, replayed))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
