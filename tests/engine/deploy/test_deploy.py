"""Networks as files: what each says beside PyTorch, what stands beside the graph, and what is refused."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from commands import REPOSITORY
from torch import nn

from mdg.commands import export_network as command
from mdg.data.datasets.mfnet import CLASSES
from mdg.data.synthetic import render_scene
from mdg.engine import evaluate
from mdg.engine.deploy import export_network as deploy
from mdg.engine.deploy.agreement import Agreement, classes_of, compare, probabilities_of, require_agreement
from mdg.engine.deploy.export_network import Choices, as_images, export_network, told_lines
from mdg.engine.deploy.formats import TEXT, require_packages
from mdg.engine.deploy.network import Deployed, Shape, capture, require_exportable, require_sizes
from mdg.engine.deploy.quantize import eight_bit_nodes, quantize
from mdg.engine.deploy.runtimes import as_run, open_file, open_openvino
from mdg.engine.deploy.score import FileNetwork
from mdg.engine.predictor import load
from mdg.errors import ConfigError, DataError, UserError
from mdg.models.segmentor import SegmentationOutput

SIZE = (64, 96)


class Ramp(nn.Module):
    """Two classes, whose logits are 0 and the mean of the image less 100."""

    def forward(self, rgb: torch.Tensor, thermal: torch.Tensor) -> SegmentationOutput:
        value = rgb.float().mean(1, keepdim=True) + thermal.float() - 100
        return SegmentationOutput(torch.cat([torch.zeros_like(value), value], dim=1))


def needs_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed (the extra `export`)")


def scene(index: int = 5, size: tuple[int, int] = SIZE):
    drawn = render_scene(0, index, *size)
    return as_images([(drawn.rgb, drawn.thermal)], size)


def test_outputs_by_hand():
    rgb, thermal = torch.tensor([90.0, 60.0]).expand(1, 3, 1, 2), torch.tensor([[[[10.0 + math.log(3), 9.0]]]])
    mask, probabilities, logits = Deployed(Ramp(), ("mask", "probabilities", "logits"))(rgb, thermal)
    (sharper,) = Deployed(Ramp(), ("probabilities",), temperature=0.5)(rgb, thermal)
    torch.testing.assert_close(sharper, (2 * logits).softmax(1))
    assert mask.dtype == torch.uint8 and mask.tolist() == [[[1, 0]]]
    torch.testing.assert_close(probabilities[0, 1, 0], torch.tensor([0.75, 1 / (1 + math.exp(31))]))
    torch.testing.assert_close(logits[0, :, 0, 0], torch.tensor([0.0, math.log(3)]), rtol=0, atol=1e-5)


def test_a_network_of_smaller_logits_gives_masks_of_the_size_of_the_image():
    class Coarse(Ramp):
        def forward(self, rgb, thermal):
            return SegmentationOutput(super().forward(rgb, thermal).logits[..., ::4, ::4])

    images = torch.zeros(2, 3, 8, 12), torch.zeros(2, 1, 8, 12)
    assert [x.shape for x in Deployed(Coarse(), ("mask", "logits"))(*images)] == [(2, 8, 12), (2, 2, 8, 12)]


@pytest.mark.slow  # a quarter of a minute of tracing
def test_a_graph_holds_none_of_our_own_operators(a_checkpoint):
    model = load(a_checkpoint("MDG"), device="cpu").model
    program = capture(Deployed(model, ("mask", "probabilities")).eval(), Shape(SIZE))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert not [name for name in names if "mdg" in name or "fft" in name or "autocast" in name]
    assert len(names) < 4000  # channel Mamba has 16 to 64 steps in each of two directions and four stages
    images = scene()
    outputs = ("mask", "probabilities")
    found = compare(as_run(program.module(), outputs), as_run(Deployed(model, outputs), outputs), [images])
    assert found.equal == found.pixels == 64 * 96 and found.difference < 1e-5


@pytest.mark.parametrize("format", ["torch-export", "torchscript"])
def test_files_of_pytorch(format, a_checkpoint):
    checkpoint = a_checkpoint("early fusion")
    done = export_network(checkpoint, choices=Choices(format=format))
    suffix = {"torch-export": "pt2", "torchscript": "ts"}[format]
    assert done.file.parent == checkpoint.parent.parent / "export" and done.file.suffix == f".{suffix}"
    assert sorted(done.file.parent.iterdir()) == [done.file]
    (found,) = done.agreements.values()
    assert found.pixels == 3 * 64 * 96 and found.share == 1 and found.difference < 1e-5
    extra = {TEXT: ""}
    reader = torch.export.load if format == "torch-export" else torch.jit.load
    reader(done.file, **{"extra_files" if format == "torch-export" else "_extra_files": extra})
    text = extra[TEXT]
    facts = json.loads(text if isinstance(text, str) else text.decode())
    assert json.loads(facts["classes"]) == list(CLASSES) and json.loads(facts["size"]) == [64, 96]
    # What a user does with it.
    mask = open_file(done.file, format, ["mask", "probabilities"])(*scene())["mask"]
    drawn = render_scene(0, 5, *SIZE)
    assert np.array_equal(mask[0], load(checkpoint, device="cpu")(drawn.rgb, drawn.thermal).mask)


@pytest.fixture(scope="module")
def written(a_checkpoint):
    """An ONNX file of a network that was scored before, and its checkpoint: translating takes seconds."""
    needs_onnx()
    checkpoint = a_checkpoint("early fusion")
    evaluated = evaluate(checkpoint, split="val")
    done = export_network(checkpoint, choices=Choices(time=1, score="val"))
    return checkpoint, evaluated, done


def test_an_onnx_file(written):
    import onnx

    checkpoint, evaluated, done = written
    assert done.file == checkpoint.parent.parent / "export" / "network.onnx"
    assert sorted(done.file.parent.iterdir()) == [done.file]
    assert all(found.share == 1 and found.difference < 1e-5 for found in done.agreements.values())
    model = onnx.load(done.file)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    sizes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert sizes == {
        "rgb": [1, 3, 64, 96], "thermal": [1, 1, 64, 96], "mask": [1, 64, 96], "probabilities": [1, 9, 64, 96],
    }  # fmt: skip
    text = done.file.read_bytes()
    assert str(REPOSITORY).encode() not in text and b"site-packages" not in text  # nothing of this machine
    lines = told_lines(done)
    assert "takes 1 x 64x96" in lines[0] and "100.000 % of 18432 pixels" in lines[1]


def test_what_an_onnx_file_says_of_itself(written):
    import onnx

    _, evaluated, done = written
    facts = {entry.key: entry.value for entry in onnx.load(done.file).metadata_props}
    assert json.loads(facts["classes"]) == list(CLASSES) and len(json.loads(facts["palette"])) == len(CLASSES)
    assert (json.loads(facts["size"]), json.loads(facts["batch"]), json.loads(facts["multiple"])) == ([64, 96], 1, 1)
    assert json.loads(facts["thermal_scaling"]) is None
    (told,) = json.loads(facts["scores"])
    assert told["mIoU"] == pytest.approx(100 * evaluated.evaluation.means()["mIoU"])
    assert told["split"] == "Synthetic val" and len(told["protocol_sha256"]) == 64


def test_a_file_is_scored_and_timed(written):
    _, evaluated, done = written
    assert done.scores["PyTorch"] == pytest.approx(100 * evaluated.evaluation.means()["mIoU"])
    assert done.scores["ONNX Runtime"] == pytest.approx(done.scores["PyTorch"], abs=0.01)
    assert set(done.times) == {"PyTorch", *done.agreements} and all(time > 0 for time in done.times.values())


def test_openvino_reads_the_onnx_file(written):
    pytest.importorskip("openvino", reason="openvino is not installed (the extra `openvino`)")
    _, _, done = written
    assert done.agreements["OpenVINO"].share == 1 and done.agreements["OpenVINO"].difference < 1e-4
    found = open_openvino(done.file)(*scene())
    assert found["mask"].dtype == np.uint8 and found["probabilities"].shape == (1, 9, 64, 96)


def test_eight_bits(written, tmp_path):
    import onnx

    _, _, done = written
    names = eight_bit_nodes(onnx.load(done.file))
    assert len(names) == 4 * 7 + 3  # a stage: embedding, q, kv, proj, two linear layers and a kernel; and a reduction
    file = tmp_path / "int8.onnx"
    assert quantize(done.file, file, [scene(index) for index in range(3)]) == len(names)
    model = onnx.load(file)
    assert [node.op_type for node in model.graph.node].count("QuantizeLinear") >= len(names)
    assert {entry.key for entry in model.metadata_props} >= {"classes", "palette", "size"}
    assert file.stat().st_size < 0.6 * done.file.stat().st_size
    outputs = ("mask", "probabilities")
    found = compare(*(open_file(path, "onnx", outputs) for path in (file, done.file)), [scene(7)])
    assert found.share > 0.8 and found.difference > 1e-5  # of a network whose numbers are random


@pytest.mark.slow  # half a minute: another graph
def test_an_onnx_file_of_open_size(a_checkpoint):
    needs_onnx()
    import onnx

    done = export_network(a_checkpoint("early fusion"), choices=Choices(dynamic=True, outputs=["logits"]))
    assert all(found.share == 1 and found.difference < 1e-5 for found in done.agreements.values())
    inputs = onnx.load(done.file).graph.input
    names = [[size.dim_param for size in value.type.tensor_type.shape.dim] for value in inputs]
    assert names == [["batch", "", "height", "width"]] * 2
    run = open_file(done.file, "onnx", ["logits"])
    for size in ((32, 32), (96, 224)):
        assert run(*scene(size=size))["logits"].shape == (1, 9, *size)


@pytest.mark.slow  # likewise, and another one in eight bits
def test_the_tool(a_checkpoint, tmp_path, capsys):
    needs_onnx()
    drawn = render_scene(0, 5, *SIZE)
    cv2.imwrite(str(tmp_path / "rgb.png"), drawn.rgb[..., ::-1])
    cv2.imwrite(str(tmp_path / "heat.png"), drawn.thermal)
    pair = [str(tmp_path / name) for name in ("rgb.png", "heat.png")]
    file = tmp_path / "deep" / "mdg.onnx"
    arguments = ["--checkpoint", str(a_checkpoint()), "--out", str(file), "--check", *pair, "--batch", "2"]
    command.main([*arguments, "--int8", "--pairs", "3", "--score", "val", "--time", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{file}: ") and lines[0].endswith("takes 2 x 64x96")
    assert any(line.startswith("ONNX Runtime: same class at 100.000 % of 12288 pixels") for line in lines)
    assert any(line.startswith("mIoU: PyTorch ") and "ONNX Runtime, int8 " in line for line in lines)
    assert any(line.startswith("PyTorch: ") and line.endswith(" ms") for line in lines)
    assert sorted(file.parent.iterdir()) == [file]


@pytest.mark.slow  # a minute or more of translation each
@pytest.mark.parametrize("network", ["MDG", "CMX", "late fusion", "spatial Mamba", "UperNet", "as published", "timm"])
def test_networks_of_one_size(network, a_checkpoint):
    needs_onnx()
    done = export_network(a_checkpoint(network))
    for runtime, found in done.agreements.items():
        assert found.difference < 1e-3, (runtime, found)  # of networks whose numbers are random


@pytest.mark.slow  # likewise
@pytest.mark.parametrize("network", ["MDG", "CMX", "timm"])
def test_networks_of_open_size(network, a_checkpoint):
    needs_onnx()
    done = export_network(a_checkpoint(network), choices=Choices(dynamic=True))
    for runtime, found in done.agreements.items():
        assert found.difference < 1e-3, (runtime, found)  # of networks whose numbers are random


@pytest.mark.slow  # likewise, with whole encoders and on real frames
def test_a_network_on_real_frames(a_checkpoint, mfnet_mini):
    needs_onnx()
    data = f"data={{type: MFNet, root: {mfnet_mini}}}"
    done = export_network(a_checkpoint("MDG"), opts=[data], choices=Choices(size=(96, 128)))
    assert all(found.pixels == 4 * 96 * 128 and found.share > 0.999 for found in done.agreements.values())


def test_the_example_in_javascript(written, tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    folder = tmp_path / "node"
    shutil.copytree(
        REPOSITORY / "docs" / "examples" / "onnx_node", folder, ignore=shutil.ignore_patterns("node_modules")
    )
    modules = Path(os.environ.get("MDG_NODE_MODULES", REPOSITORY / "docs" / "examples" / "onnx_node" / "node_modules"))
    if not (modules / "onnxruntime-node").is_dir():
        pytest.skip(
            "its packages are not installed (npm install in docs/examples/onnx_node, or MDG_NODE_MODULES names them)"
        )
    (folder / "node_modules").symlink_to(modules)
    checkpoint, _, done = written
    drawn = render_scene(0, 5, *SIZE)
    cv2.imwrite(str(tmp_path / "rgb.png"), drawn.rgb[..., ::-1])
    cv2.imwrite(str(tmp_path / "heat.png"), drawn.thermal)
    files = [tmp_path / name for name in ("rgb.png", "heat.png", "mask.png")]
    ran = subprocess.run(
        [node, folder / "predict.mjs", done.file, *files], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    expected = load(checkpoint, device="cpu")(*files[:2])
    assert np.array_equal(cv2.imread(str(files[2]), cv2.IMREAD_UNCHANGED), expected.mask)
    areas = {name: share for name, share in expected.areas().items() if share}
    told = dict(line.removesuffix(" %").rsplit(" ", 1) for line in ran.stdout.splitlines())
    assert {name: float(share) for name, share in told.items()} == pytest.approx(
        {name: 100 * share for name, share in areas.items()}, abs=0.006
    )


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (Choices(format="tflite"), "--format tflite: expected one of onnx"),
        (Choices(format="torchscript", dynamic=True), "a traced TorchScript file has one size"),
        (Choices(format="torch-export", int8=True), "--int8: ONNX Runtime quantises ONNX files"),
        (Choices(opset=11), "--opset 11: PyTorch writes operator sets from 18 to 23"),
        (Choices(outputs=["mask", "mask"]), "expected some of mask, probabilities, logits, each once"),
        (Choices(outputs=["heat"]), "--output heat"),
        (Choices(size=(0, 64)), "--size 0x64"),
        (Choices(score="all"), "--split all"),
    ],
)
def test_choices_that_do_not_go_together(choices, said):
    with pytest.raises(ConfigError, match=said):
        export_network("nowhere.pt", choices=choices)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("mdg.engine.deploy.formats.is_installed", lambda name: name == "onnx")
    with pytest.raises(UserError, match=r"needs onnxscript, onnxruntime: pip install -e '\.\[export\]'"):
        require_packages("onnx")
    require_packages("torch-export")


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("spatial Mamba", "its fusion scans over positions"),
        ("UperNet", "its decoder pools to a grid"),
        ("as published", "its divergence mask is `topk`"),
    ],
)
def test_networks_that_have_one_size(network, said, a_checkpoint):
    model = load(a_checkpoint(network), device="cpu").model
    with pytest.raises(ConfigError, match=f"--dynamic: this network has one size in a file: {said}"):
        require_exportable(model, Shape(SIZE, dynamic=True))
    require_exportable(model, Shape(SIZE))


def test_a_size_that_an_open_graph_does_not_take():
    with pytest.raises(ConfigError, match="in multiples of 32, and the example is 60x96"):
        require_exportable(Ramp(), Shape((60, 96), dynamic=True))
    with pytest.raises(DataError, match="any batch, height and width.*got images of 64x100"):
        require_sizes(Shape(SIZE, dynamic=True), (64, 100))
    with pytest.raises(DataError, match="takes 1 x 64x96 and got images of 96x64"):
        require_sizes(Shape(SIZE), (96, 64))
    require_sizes(Shape(SIZE, dynamic=True), (32, 640))


def test_a_network_that_looks_at_values_says_so():
    class Looks(Ramp):
        def forward(self, rgb, thermal):
            return super().forward(rgb, thermal) if rgb.mean() > 0 else super().forward(-rgb, thermal)

    with pytest.raises(ConfigError, match="cannot become a graph of 1 x 64x96: torch.export says"):
        capture(Deployed(Looks(), ("mask",)), Shape(SIZE))


def test_nothing_is_kept_where_a_file_does_not_agree(a_checkpoint, monkeypatch):
    def wrong(*arguments):
        run = open_file(*arguments)

        def shifted(rgb, thermal):
            return {name: np.roll(value, 7, axis=-1) for name, value in run(rgb, thermal).items()}

        return shifted

    monkeypatch.setattr(deploy, "open_file", wrong)
    checkpoint = a_checkpoint("early fusion")
    with pytest.raises(UserError, match="torch.export does not agree with PyTorch .*no file was kept"):
        export_network(checkpoint, choices=Choices(format="torch-export"))
    assert not (checkpoint.parent.parent / "export").exists()


def test_a_calibration_without_pairs(a_checkpoint, tmp_path):
    frames = deploy.Frames(load(a_checkpoint(), device="cpu").config, Choices(calibration=(tmp_path, tmp_path)))
    with pytest.raises(DataError, match="--calibration: no file in"):
        list(frames.calibrating(Shape(SIZE)))


def test_frames_that_are_not_here(a_checkpoint):
    config = load(a_checkpoint(), device="cpu", opts=["data={type: MFNet, root: /nowhere}"]).config
    frames = deploy.Frames(config, Choices())
    with pytest.raises(ConfigError, match="--size: the checkpoint takes images as they are, and its frames cannot"):
        frames.size()
    assert len(frames.checked(Shape(SIZE, batch=2))) == 2
    assert frames.notes[0].startswith("checked on generated scenes")


def test_agreement_by_hand():
    logits = np.log(np.array([[0.2, 0.5], [0.8, 0.5]], np.float32)).reshape(1, 2, 1, 2)
    assert np.allclose(probabilities_of({"logits": logits})[0, :, 0, 0], [0.2, 0.8])
    assert classes_of({"logits": logits})[0, 0, 0] == 1
    images = [(np.zeros((1, 3, 1, 2), np.float32), np.zeros((1, 1, 1, 2), np.float32))]
    got, expected = ({"mask": np.array([[[1, id_]]]), "logits": logits + shift} for id_, shift in ((0, 3), (1, 0)))
    found = compare(lambda *_: got, lambda *_: expected, images)
    assert (found.pixels, found.equal) == (2, 1) and found.difference < 1e-6
    with pytest.raises(UserError, match=r"same class at 50\.000 % of 2 pixels"):
        require_agreement(found, "a runtime")
    require_agreement(Agreement(1000, 999, None), "a runtime")
    with pytest.raises(UserError):
        require_agreement(Agreement(1000, 1000, math.nan), "a runtime")


@pytest.mark.parametrize("outputs", [("mask",), ("probabilities",), ("logits",)])
@pytest.mark.parametrize("shape", [Shape(SIZE), Shape(SIZE, batch=3), Shape(SIZE, dynamic=True)])
def test_a_file_scores_as_its_network(outputs, shape):
    rgb, thermal = (torch.from_numpy(np.concatenate([scene(i)[place] for i in (1, 2)])).byte() for place in (0, 1))
    run = as_run(Deployed(Ramp(), outputs), outputs)
    got = FileNetwork(run, shape, 2)(rgb, thermal).logits
    assert torch.equal(got.argmax(1), Ramp()(rgb, thermal).logits.argmax(1))
    assert got.shape == (2, 2, *SIZE)
