"""``scripts/make_shards.py`` as it is typed: what it prints, and how it ends."""

from __future__ import annotations

import pytest
import yaml
from commands import REPOSITORY

from mdg.commands.make_shards import main
from mdg.data import build_dataset

DEMO = str(REPOSITORY / "configs" / "demo.yaml")
SMALL = [f"data.{key}" for key in ("height=32", "width=40", "train_images=5", "val_images=2", "test_images=2")]


def test_it_writes_the_data_set_of_a_configuration_and_says_what(tmp_path, capsys):
    out = tmp_path / "shards"
    main([DEMO, "--out", str(out), "--frames-per-shard", "3", "--opts", *SMALL])
    text = capsys.readouterr().out
    assert "train-000001.tar: 2 frames" in text and "train: 5 frames of train in 2 shards" in text
    how = yaml.safe_load(text.split("--opts '")[1].split("'")[0].removeprefix("data="))
    assert build_dataset(how, "train").names == build_dataset({"type": "Synthetic", "train_images": 5}, "train").names
    main([DEMO, "--out", str(out), "--frames-per-shard", "3", "--opts", *SMALL])
    assert capsys.readouterr().out.count("is there already") == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--out"),
        (["--out", "x", "--shard-mib", "0"], "got '0', expected a whole number from 1 up"),
        (["--out", "x", "--shard-mib", "2", "--frames-per-shard", "2"], "not allowed with argument"),
        (["--out", __file__], "a part of the path is a file; name a folder"),
        (["--out", "x", "--opts", "data={type: Shards, root: nowhere}"], "make_shards: error: data.type: got Shards"),
    ],
)
def test_mistakes_are_one_message(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([DEMO, *arguments])
    assert stop.value.code == 2 and said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
