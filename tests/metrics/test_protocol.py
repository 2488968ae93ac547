from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from mdg.errors import DataError
from mdg.metrics import Protocol
from mdg.metrics.protocol import selection_rule, training_rule

PROTOCOL = Protocol(
    dataset="MFNet",
    role="test",
    split="test",
    images=393,
    files_sha256="0123456789abcdef",
    classes=("unlabeled", "car", "person"),
    rule="A",
    averaged_classes=("car", "person"),
    ignored_classes=("unlabeled",),
    absent_class="an absent class counts 0",
    preparation="as stored",
    input_size="native",
    mode="whole image",
    test_time_augmentation="none",
    selection="best mIoU on val",
    epoch=35,
    weights="raw",
    precision="fp32",
    trained_on="train (784 frames, fedcba98)",
)


def test_the_epoch_is_the_only_field_that_may_differ():
    for field in fields(Protocol):
        value = getattr(PROTOCOL, field.name)
        other = replace(PROTOCOL, **{field.name: 7 if isinstance(value, int) else (*value, "x")})
        expected = [] if field.name == "epoch" else [field.name]
        assert PROTOCOL.comparable_with(other) == expected
        assert (PROTOCOL.key() == other.key()) == (field.name == "epoch")


def test_it_survives_json_and_keys_a_table():
    content = json.loads(json.dumps(PROTOCOL.as_dict()))
    assert content["honest"] is True
    again = Protocol.from_dict(content, "results.json")
    assert again == PROTOCOL and len({again.key(), PROTOCOL.key()}) == 1


def test_an_older_file_is_named_with_what_it_lacks():
    content = PROTOCOL.as_dict()
    del content["trained_on"], content["mode"]
    with pytest.raises(DataError, match="old.json.*mode, trained_on.*another version"):
        Protocol.from_dict(content, "old.json")


def test_results_from_before_changes_were_noted_have_none():
    content = PROTOCOL.as_dict()
    assert content.pop("changes") == "none"
    assert Protocol.from_dict(content, "old.json") == PROTOCOL


def test_changed_settings_are_said_and_set_scores_apart():
    changed = replace(PROTOCOL, changes="step 120: optimizer.weight_decay 0.01 to 0.2")
    assert changed.text() == f"{PROTOCOL.text()}; changed on resume: step 120: optimizer.weight_decay 0.01 to 0.2"
    assert changed.comparable_with(PROTOCOL) == ["changes"] and changed.honest


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("dataset", 3, "str"),
        ("split", None, "str"),
        ("images", "4", "int"),
        ("images", True, "int"),
        ("epoch", 1.5, "int"),
        ("classes", "road", "tuple"),
        ("classes", ["road", 1], "tuple"),
        ("changes", ["x"], "str"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(field, value, expected):
    with pytest.raises(DataError, match=rf"r.json: protocol.{field}: got .*, expected {expected}"):
        Protocol.from_dict({**PROTOCOL.as_dict(), field: value}, "r.json")


def test_the_text_says_everything_and_only_the_summary_the_epoch():
    text = PROTOCOL.text()
    for field in fields(Protocol):
        if field.name not in ("classes", "averaged_classes", "role", "files_sha256", "epoch"):
            value = getattr(PROTOCOL, field.name)
            assert (value[0] if isinstance(value, tuple) else str(value)) in text, field.name
    assert "01234567" in text and "mean over 2 classes" in text
    assert "35" not in text and PROTOCOL.summary() == f"{text}; epoch 35"
    assert "test_day as val" in replace(PROTOCOL, split="test_day", role="val").text()


def test_what_makes_a_score_dishonest_is_named():
    chosen = replace(PROTOCOL, selection="best mIoU SELECTED ON test")
    trained = replace(PROTOCOL, trained_on="train (9 frames, ab), TRAINED ON 5 of the 20 scored frames")
    both = replace(chosen, trained_on=trained.trained_on)
    assert PROTOCOL.honest and not PROTOCOL.warnings()
    assert not chosen.honest and chosen.warnings() == ["best mIoU SELECTED ON test"]
    assert not trained.honest and trained.warnings() == [f"trained on {trained.trained_on}"]
    assert len(both.warnings()) == 2 and both.as_dict()["honest"] is False


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("last", "mIoU", "test"), "last epoch"),
        (("val", "mIoU", "test"), "best mIoU on val"),
        (("val", "mF1", "val"), "best mF1 SELECTED ON val"),
        (("test", "mIoU", "test"), "best mIoU SELECTED ON test"),
        (("test", "mIoU", "val"), "best mIoU SELECTED ON test"),
        (("train", "mIoU", "test"), "best mIoU SELECTED ON train"),
        # Where the frames are known they decide, not the names of the roles.
        (("val", "mIoU", "test", None, (0, 20)), "best mIoU on val"),
        (("val", "mIoU", "val", None, (0, 20)), "best mIoU on val"),
        (("val", "mIoU", "val", None, (12, 12)), "best mIoU SELECTED ON val (12 of 12 scored frames)"),
        (("val", "mIoU", "test", "x as val", (1, 20)), "best mIoU SELECTED ON x as val (1 of 20 scored frames)"),
        # Selecting on test is shouted whatever is scored.
        (("test", "mIoU", "val", None, (0, 20)), "best mIoU SELECTED ON test (0 of 20 scored frames)"),
    ],
)
def test_how_a_checkpoint_was_chosen(arguments, text):
    assert selection_rule(*arguments) == text


def test_what_trained_a_checkpoint():
    assert training_rule("train", 100, "0123456789", (0, 20)) == "train (100 frames, 01234567)"
    loud = training_rule("train", 100, "0123456789", (5, 20))
    assert loud == "train (100 frames, 01234567), TRAINED ON 5 of the 20 scored frames"
