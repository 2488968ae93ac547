from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdg.utils.charts import confusion_picture, draw_confusion

CLASSES = ("road", "car", "person")
COUNTS = np.array([[2997, 2, 1], [1, 2, 1], [0, 0, 0]])


def cells(axes) -> dict[tuple[int, int], str]:
    return {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}


def test_cells_are_per_cent_of_the_label_and_nothing_is_left_empty():
    axes = draw_confusion(COUNTS, CLASSES, "title").axes[0]
    # 2 of 3000 are 0.07 %; 1 of 3000 is 0.03 % and would read 0.0
    assert cells(axes) == {(0, 0): "99.9", (0, 1): "0.1", (1, 0): "25.0", (1, 1): "50.0", (1, 2): "25.0"}


def test_a_class_that_is_always_right_is_100():
    axes = draw_confusion(np.diag([7, 10**12, 1]), CLASSES, "").axes[0]
    assert cells(axes) == {(k, k): "100" for k in range(3)}


def test_absent_classes_are_marked_and_hatched():
    axes = draw_confusion(COUNTS, CLASSES, "title").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["road", "car", "person (absent)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CLASSES)
    (box,) = axes.patches
    assert box.get_hatch() and box.get_y() == 1.5
    assert axes.get_title() == "title"


@pytest.mark.parametrize("classes", [2, 40])
def test_pictures_grow_with_the_classes(classes, tmp_path):
    counts = np.eye(classes, dtype=np.int64)
    confusion_picture(tmp_path / "new" / "c.png", counts, [f"class {k}" for k in range(classes)], "t")
    picture = cv2.imread(str(tmp_path / "new" / "c.png"))
    assert min(picture.shape[:2]) > 50 * max(classes, 7) and picture.std() > 2


CHINESE = ("背景", "行人 und größe", "plain")


def dark(picture: np.ndarray) -> int:
    return int((picture.max(axis=2) < 100).sum())


@pytest.mark.filterwarnings("error")
def test_names_in_scripts_that_matplotlib_does_not_know_are_drawn(tmp_path):
    """Beside the rows and above the columns, and nothing is written twice or warned of."""
    axes = draw_confusion(COUNTS, CHINESE, "title").axes[0]
    assert [label.get_alpha() for label in axes.get_yticklabels()] == [0, 0, None]
    pasted = [child for child in axes.get_children() if type(child).__name__ == "AnnotationBbox"]
    assert len(pasted) == 4 and all(child.offsetbox.get_data()[..., 3].max() > 0.9 for child in pasted)
    with_names, without = tmp_path / "a.png", tmp_path / "b.png"
    confusion_picture(with_names, COUNTS, CHINESE, "title")
    confusion_picture(without, COUNTS, ("  ", "       ", "plain"), "title")
    assert dark(cv2.imread(str(with_names))) > dark(cv2.imread(str(without))) + 500


@pytest.mark.filterwarnings("error")
def test_a_title_in_another_script_stands_above_the_chart(tmp_path):
    confusion_picture(tmp_path / "a.png", COUNTS, CLASSES, "夜间 test: mIoU 12.34 (all classes); best mIoU on val")
    confusion_picture(tmp_path / "b.png", COUNTS, CLASSES, "")
    titled, bare = cv2.imread(str(tmp_path / "a.png")), cv2.imread(str(tmp_path / "b.png"))
    extra = titled.shape[0] - bare.shape[0]
    assert extra > 15 and np.array_equal(titled[extra:, : bare.shape[1]], bare) and dark(titled[:extra]) > 300


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "name", ["$a_{b$ cost $", "x\udcd6", "a\0\tb\n", "[/left]", "", "very long " * 50, "\U0001f600"]
)
def test_any_name_can_be_drawn(tmp_path, name):
    confusion_picture(tmp_path / "c.png", COUNTS, (name, "b", name), name)
    height, width = cv2.imread(str(tmp_path / "c.png")).shape[:2]
    assert height < 1500 and width < 2500
