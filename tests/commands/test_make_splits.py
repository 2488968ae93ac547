"""Lists of frames whose labels count."""

from __future__ import annotations

import pytest

from mdg.commands import make_splits
from mdg.config import load_config
from mdg.data.build import open_dataset


def test_the_lists_are_the_frames_of_a_fraction(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("data: {type: Synthetic, train_images: 16}\n")
    make_splits.main(
        [str(tmp_path / "run.yaml"), "--fractions", "1/4", "1/2", "--seeds", "0", "3", "--out", str(tmp_path / "s")]
    )
    assert len(list((tmp_path / "s").iterdir())) == 8 and "1_4_seed3_labelled.txt: 4 frames" in capsys.readouterr().out
    for role, word, count in (("train", "labelled", 4), ("unlabelled", "unlabelled", 12)):
        listed = (tmp_path / "s" / f"1_4_seed3_{word}.txt").read_text().split()
        by_fraction = load_config(tmp_path / "run.yaml", ["data.labelled={fraction: 1/4, seed: 3}"]).data
        file = tmp_path / "s" / "1_4_seed3_labelled.txt"
        by_list = load_config(tmp_path / "run.yaml", [f"data.labelled={{list: {file}}}"]).data
        assert len(listed) == count
        assert listed == open_dataset(by_fraction, role).names == open_dataset(by_list, role).names


def test_a_fraction_that_is_none_is_one_sentence(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("data: {type: Synthetic}\n")
    with pytest.raises(SystemExit) as stop:
        make_splits.main([str(tmp_path / "run.yaml"), "--fractions", "3/2", "--out", str(tmp_path / "s")])
    assert stop.value.code == 2 and "data.labelled.fraction" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
