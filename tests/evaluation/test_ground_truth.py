"""Labels find their categories by name, and by nothing else."""

import pytest

from llmdet.errors import DataError
from llmdet.evaluation.ground_truth import labels_to_categories, parse_coco


def truth(*names):
    categories = [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(names)]
    return parse_coco({"images": [], "annotations": [], "categories": categories})


@pytest.mark.parametrize(
    ("classes", "names", "ids"),
    [
        (("dog", "cat"), ("cat", "dog"), [20, 10]),
        (("dog",), ("cat", "dog"), [20]),
        (("aerosol can", "cap"), ("cap_(headwear)", "aerosol_can"), [20, 10]),
        (("bow_(hair)", "bow_(weapon)"), ("bow_(weapon)", "bow_(hair)"), [20, 10]),
        (("bow", "bow"), ("bow_(weapon)", "bow_(hair)"), [10, 20]),
        (("bow", "bow"), ("bow", "bow"), [10, 20]),
    ],
)
def test_names_decide_as_written_or_as_cleaned_for_a_prompt(classes, names, ids):
    assert labels_to_categories(classes, truth(*names)).tolist() == ids


def test_equal_numbers_of_classes_and_categories_prove_nothing():
    message = (
        r"2 do not fit: 'dog' \(no category is like it\), "
        r"'tabby cat' \(did you mean 'tabby cats'\?\)"
    )
    with pytest.raises(DataError, match=message):
        labels_to_categories(("dog", "tabby cat", "bird"), truth("bird", "tabby cats", "horse"))


def test_two_classes_cannot_be_one_category():
    with pytest.raises(DataError, match="several classes are the category 'aerosol_can'"):
        labels_to_categories(("aerosol_can", "aerosol can"), truth("aerosol_can", "cat"))


def test_a_name_that_two_other_categories_have_is_an_error():
    with pytest.raises(DataError, match="1 do not fit: 'bow'"):
        labels_to_categories(("cat", "dog", "bow"), truth("bow_(a)", "bow_(b)", "cat", "dog"))
