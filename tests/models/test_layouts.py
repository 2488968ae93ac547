"""Other people's names for the same encoder: every layout there and back, and against the libraries themselves."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor, nn

import mdg.models  # noqa: F401  (registers the encoders)
from mdg.commands import convert_weights
from mdg.errors import WeightsError
from mdg.models.layouts import LAYOUTS, OPEN_MMLAB, PUBLIC, find_encoders
from mdg.models.weights import load_encoder
from mdg.registry import BACKBONES


def b0() -> nn.Module:
    return BACKBONES.create("b0", in_channels=3)


@pytest.fixture(scope="module")
def public() -> dict[str, Tensor]:
    """Random tensors under the names of the published files."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(value.shape, generator=generator) for name, value in b0().state_dict().items()}


def written_as(public: dict[str, Tensor], layout) -> dict[str, Tensor]:
    atoms, unknown = PUBLIC.atoms(public, "")
    assert not unknown
    return layout.tensors(atoms)


@pytest.mark.parametrize("name", LAYOUTS)
def test_there_and_back(public, name):
    written = written_as(public, LAYOUTS[name])
    (found,) = find_encoders([*written, "decode_head.classifier.weight"])
    assert found.prefix == LAYOUTS[name].prefix
    atoms, unknown = found.layout.atoms({**written, "decode_head.classifier.weight": torch.zeros(1)}, found.prefix)
    back = PUBLIC.tensors(atoms)
    assert unknown == (["decode_head.classifier.weight"] if name == "public" else [])  # a prefix tells a head apart
    assert back.keys() == public.keys()
    assert all(torch.equal(value, public[key]) for key, value in back.items())


def test_queries_keys_and_values_by_hand(public):
    written = written_as(public, OPEN_MMLAB)
    q, kv = public["block2.1.attn.q.weight"], public["block2.1.attn.kv.weight"]
    assert torch.equal(written["backbone.layers.1.1.1.attn.attn.in_proj_weight"], torch.cat([q, kv]))
    separate = written_as(public, LAYOUTS["huggingface"])
    path = "segformer.encoder.block.1.1.attention.self"
    assert torch.equal(separate[f"{path}.key.weight"], kv[: len(kv) // 2])
    assert torch.equal(separate[f"{path}.value.weight"], kv[len(kv) // 2 :])
    fc1 = written["backbone.layers.0.1.0.ffn.layers.0.weight"]
    assert fc1.shape == (128, 32, 1, 1) and torch.equal(fc1[:, :, 0, 0], public["block1.0.mlp.fc1.weight"])


@pytest.mark.parametrize(("name", "kind"), [*zip(LAYOUTS, ["pth", "safetensors"] * 3, strict=False)])
def test_an_encoder_loads_from_any_of_them(public, name, kind, tmp_path):
    file, written = tmp_path / f"weights.{kind}", written_as(public, LAYOUTS[name])
    written["head.weight" if name == "public" else "decode_head.linear.weight"] = torch.zeros(3)
    if kind == "pth":
        torch.save({"state_dict": written}, file)
    else:
        from safetensors.torch import save_file

        save_file({key: value.contiguous() for key, value in written.items()}, file)
    encoder = b0()
    report = load_encoder(encoder, file, "rgb")
    assert (len(report.matched), report.missing, report.unexpected) == (len(public), [], [])
    assert all(torch.equal(value, public[key]) for key, value in encoder.state_dict().items())


def test_a_tensor_that_is_not_covered_is_an_error(public, tmp_path):
    written = written_as(public, LAYOUTS["huggingface"])
    del written["segformer.encoder.block.0.0.attention.self.key.weight"]
    torch.save(written, tmp_path / "w.bin")
    with pytest.raises(WeightsError, match=r"1 missing.*without a value: block1.0.attn.kv.weight"):
        load_encoder(b0(), tmp_path / "w.bin", "rgb")


def test_what_an_encoder_does_not_know_is_told(public, tmp_path):
    written = {**written_as(public, LAYOUTS["smp"]), "encoder.block1.0.adapter.weight": torch.zeros(1)}
    torch.save(written, tmp_path / "w.pth")
    assert load_encoder(b0(), tmp_path / "w.pth", "rgb").unexpected == ["encoder.block1.0.adapter.weight"]


def test_several_encoders_are_refused(public, tmp_path):
    written = {f"{stream}.{name}": value for stream in ("rgb", "depth") for name, value in public.items()}
    torch.save(written, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"several encoders in it \(names begin with 'rgb.', 'depth.'\)"):
        load_encoder(b0(), tmp_path / "w.pth", "rgb")


@pytest.mark.parametrize(
    ("to", "target"), [("public", "a.pth"), ("huggingface", "a.safetensors"), ("openmmlab", "a.bin"), ("smp", "a.pth")]
)
def test_the_command_converts_a_file(public, tmp_path, capsys, to, target):
    source, middle, last = tmp_path / "in.pth", tmp_path / target, tmp_path / "out.safetensors"
    torch.save({**written_as(public, LAYOUTS["openmmlab"]), "decode_head.x": torch.zeros(1)}, source)
    convert_weights.main([str(source), str(middle), "--to", to])
    printed = capsys.readouterr().out
    assert "in the layout of OpenMMLab" in printed and "left out: 1 tensors" in printed
    assert hashlib.sha256(middle.read_bytes()).hexdigest() in printed
    convert_weights.main([str(middle), str(last)])
    encoder = b0()
    assert not load_encoder(encoder, last, "rgb").unexpected
    assert all(torch.equal(value, public[key]) for key, value in encoder.state_dict().items())


def test_a_file_is_never_converted_onto_itself(public, tmp_path, capsys):
    torch.save(public, tmp_path / "a.pth")
    with pytest.raises(SystemExit):
        convert_weights.main([str(tmp_path / "a.pth"), str(tmp_path / "a.pth")])
    assert "this is the file that is read" in capsys.readouterr().err


@pytest.mark.parametrize("keep", [20, 1000, -3])
def test_a_safetensors_file_that_is_cut_off(public, tmp_path, keep):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    file = tmp_path / "w.safetensors"
    safetensors.save_file(public, file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"w.safetensors: not a readable .safetensors file.*copy or download"):
        load_encoder(b0(), file, "rgb")


# --- against the libraries ------------------------------------------------------------------------------------------


def shaken(net: nn.Module) -> nn.Module:
    """With weights under which every tensor matters, and one epsilon: these libraries normalise with another one behind
    the patch embedding and the spatial reduction than the authors of SegFormer do."""
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return net.eval()


@torch.no_grad()
def maps_of(file, image: Tensor, epsilon: float | None = None) -> list[Tensor]:
    encoder = b0().eval()
    load_encoder(encoder, file, "rgb")
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm) and epsilon is not None:
            module.eps = epsilon
    x, maps = image.permute(0, 2, 3, 1), []
    for stage in (1, 2, 3, 4):
        x = encoder.forward_stage(stage, x)
        maps.append(x.permute(0, 3, 1, 2))
    return maps


def assert_equal(maps: list[Tensor], expected) -> None:
    for own, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)


@pytest.mark.slow  # imports two large libraries
@torch.no_grad()
def test_features_equal_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = {"depths": [2, 2, 2, 2], "hidden_sizes": [32, 64, 160, 256], "num_attention_heads": [1, 2, 5, 8]}
    net = shaken(transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**sizes)))
    epsilons = {module.eps for module in net.segformer.modules() if isinstance(module, nn.LayerNorm)}
    for module in net.segformer.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    assert epsilons <= {1e-5, 1e-6}
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    expected = net.segformer(image, output_hidden_states=True).hidden_states
    net.save_pretrained(tmp_path)
    torch.save(net.state_dict(), tmp_path / "pytorch_model.bin")
    for file in ("model.safetensors", "pytorch_model.bin"):
        assert_equal(maps_of(tmp_path / file, image, epsilon=1e-6), expected)


@pytest.mark.slow
@torch.no_grad()
def test_features_equal_those_of_segmentation_models(tmp_path):
    smp = pytest.importorskip("segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed")
    net = shaken(smp.Segformer("mit_b0", encoder_weights=None, classes=3))
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    torch.save(net.state_dict(), tmp_path / "smp.pth")
    assert_equal(maps_of(tmp_path / "smp.pth", image), net.encoder(image)[-4:])
