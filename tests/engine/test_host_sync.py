"""Steps on a GPU never wait for the host, shown on any machine with tensors that have no numbers."""

from __future__ import annotations

import pytest
import torch
from fake_cuda import CUDA, HostSync, fake_cuda, no_host_sync
from torch._subclasses.fake_tensor import DataDependentOutputException

from mdg.benchmark.workload import Images, Workload, load_settings
from mdg.engine.state import LossMeter
from mdg.registry import OPTIMIZERS

pytestmark = pytest.mark.no_cover  # every operation is traced

CONFIG = "configs/mfnet/mdg_b2.yaml"
pytestmark = pytest.mark.filterwarnings("ignore:CUDA is not available")


def small(mode: str) -> Workload:
    opts = ["model.rgb_backbone=b0", "model.thermal_backbone=b0"]
    settings = load_settings(CONFIG, opts, height=64, width=96, batch=2, mode=mode)
    work = Workload(settings, torch.device("cpu"))
    work.model.to("meta")
    return work


def test_a_forward_pass_never_waits_for_the_host():
    work = small("infer")
    with fake_cuda():
        work.model.to_empty(device=CUDA)
        work.device, work.images = CUDA, Images(*(x.to(CUDA) for x in work.images))
        work.forward()  # tables of map sizes are made once
        with no_host_sync() as watch:
            work.forward()
    assert watch.operators > 500


@pytest.mark.slow  # ten seconds of tracing; the forward pass holds most of what is ours
def test_a_training_step_never_waits_for_the_host(monkeypatch):
    """On PyTorch's device without numbers, because autograd wants a real GPU behind a fake one. It has no fused
    optimizer, so the one of grouped tensors stands in."""
    create = OPTIMIZERS.create

    def create_unfused(*args, **options):
        optimizer = create(*args, **options)
        for group in optimizer.param_groups:
            group.update(fused=False, foreach=True)
        return optimizer

    monkeypatch.setattr(OPTIMIZERS, "create", create_unfused)
    work = small("train")
    work.device = torch.device("meta")
    work.images = Images(*(x.to("meta") for x in work.images))
    step = work.step()
    step()
    with no_host_sync("meta") as watch:
        step()
    assert watch.operators > 1500


def test_losses_are_added_up_on_the_device():
    with fake_cuda():
        meter, loss = LossMeter(), torch.ones((), device=CUDA)
        with no_host_sync():
            meter.add({"loss": loss, "main": 2 * loss})


def test_a_wait_is_seen():
    with fake_cuda():
        x = torch.ones(3, device=CUDA)
        with no_host_sync():
            with pytest.raises(HostSync, match="_to_copy.* touches cpu and cuda"):
                x.cpu()
            with pytest.raises(HostSync):
                torch.zeros(3).to(CUDA)
            with pytest.raises(DataDependentOutputException):
                x.sum().item()
            with pytest.raises(DataDependentOutputException):
                bool(x.isfinite().all())


def test_a_wait_is_seen_on_the_device_without_numbers():
    x = torch.ones(3, device="meta")
    with no_host_sync("meta"):
        with pytest.raises(HostSync):
            torch.zeros(3).to("meta")
        with pytest.raises(RuntimeError, match="meta"):
            x.sum().item()
