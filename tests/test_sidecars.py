"""Sidecars of an image: their files, inheritance, and typed fields."""

import json
from pathlib import Path

import numpy as np
import pytest

from aslkit.bids.sidecar import (
    Sidecar,
    dataset_root,
    entities,
    is_magnitude,
    path_in_dataset,
    read_sidecar,
)
from aslkit.core.errors import InputError

NEAR, ABOVE = Path("sub-01_asl.json"), Path("asl.json")


def sidecar(**fields):
    return Sidecar(NEAR, fields, dict.fromkeys(fields, NEAR))


@pytest.mark.parametrize("value", [{}, {"Field": None}])
def test_an_absent_field_is_none(value):
    fields = sidecar(**value)
    for read in (fields.text, fields.is_true, fields.number, fields.numbers):
        assert read("Field") is None
    assert fields.per_volume("Field", 3) is None


@pytest.mark.parametrize("value", [0, 1.5, -(10**15 - 1), 10**15 - 1, 1e300])
def test_a_finite_number_is_read(value):
    fields = sidecar(Field=value, List=[value, 2])
    assert fields.number("Field") == value and isinstance(fields.number("Field"), float)
    np.testing.assert_array_equal(fields.numbers("Field"), [value])
    np.testing.assert_array_equal(fields.numbers("List"), [value, 2])
    assert fields.numbers("List").dtype == np.float64


@pytest.mark.parametrize("value", [True, 10**15, -(10**15), float("inf"), float("nan"), "1.8", {}])
def test_a_value_that_is_not_a_number_is_refused(value):
    fields = sidecar(Field=value, List=[1.8, value])
    with pytest.raises(
        InputError, match="sub-01_asl.json: Field: found .*, expected a number. Fi"
    ):
        fields.number("Field")
    for name in ("Field", "List"):
        with pytest.raises(InputError, match="expected a number or a list of numbers"):
            fields.numbers(name)


def test_a_list_is_refused_as_a_number_and_an_empty_list_as_numbers():
    with pytest.raises(InputError, match=r"found \[1.8\], expected a number\. "):
        sidecar(Field=[1.8]).number("Field")
    with pytest.raises(InputError, match=r"found \[\], expected a number or a list"):
        sidecar(Field=[]).numbers("Field")


def test_a_scalar_applies_to_every_volume_and_a_list_has_one_entry_per_volume():
    np.testing.assert_array_equal(sidecar(Field=2).per_volume("Field", 3), [2, 2, 2])
    np.testing.assert_array_equal(sidecar(Field=[1, 2, 3]).per_volume("Field", 3), [1, 2, 3])
    with pytest.raises(InputError, match="Field: found 2 entries, expected 1 or 3, one per"):
        sidecar(Field=[1, 2]).per_volume("Field", 3)


def test_text_and_booleans_of_another_type_are_refused():
    fields = sidecar(Text="PCASL", No=False, Yes=True, One=1)
    assert fields.text("Text") == "PCASL"
    assert fields.is_true("No") is False and fields.is_true("Yes") is True
    with pytest.raises(InputError, match='One: found 1, expected true or false. Fix: write "One"'):
        fields.is_true("One")
    with pytest.raises(InputError, match='Yes: found true, expected text. Fix: write "Yes": "…"'):
        fields.text("Yes")


def test_an_error_names_the_file_that_contains_the_field():
    fields = Sidecar(NEAR, {"A": 1, "B": "x" * 78}, {"A": ABOVE, "B": NEAR})
    assert fields.files == (ABOVE, NEAR)
    ask = {"expected": "2", "fix": "write 2"}
    assert str(fields.refuse("A", **ask)) == "asl.json: A: found 1, expected 2. Fix: write 2."
    assert str(fields.refuse("C", **ask)).startswith("sub-01_asl.json: C: found nothing, ")
    assert str(fields.refuse("A", found="3", **ask)).startswith("asl.json: A: found 3, ")
    assert f'found "{"x" * 78}", ' in str(fields.refuse("B", **ask))  # 80 characters
    longer = Sidecar(NEAR, {"B": "x" * 79}, {"B": NEAR})
    assert f'found "{"x" * 76}..., ' in str(longer.refuse("B", **ask))
    assert "A: found no such file, " in str(Sidecar(NEAR, {}, {}).refuse("A", **ask))


def test_a_file_name_is_split_into_entities_and_suffix():
    found = entities(Path("perf/sub-01_acq-a-b_part-mag_asl.nii.gz"))
    assert found == ({"sub": "01", "acq": "a-b", "part": "mag"}, "asl")
    assert is_magnitude(Path("sub-01_part-mag_asl.nii")) and is_magnitude(Path("sub-01_asl.nii"))
    assert not is_magnitude(Path("sub-01_part-phase_asl.nii"))


def test_the_data_set_root_contains_the_description_or_the_subject_folder(tmp_path):
    image = tmp_path / "study" / "sub-01" / "ses-1" / "perf" / "sub-01_asl.nii.gz"
    image.parent.mkdir(parents=True)
    assert dataset_root(image) == tmp_path / "study"
    assert path_in_dataset(image) == "sub-01/ses-1/perf/sub-01_asl.nii.gz"
    assert dataset_root(tmp_path / "asl.nii") == tmp_path
    (tmp_path / "dataset_description.json").touch()
    assert dataset_root(image) == tmp_path
    (
        tmp_path / "study" / "sub-01" / "dataset_description.json"
    ).touch()  # the nearest has priority
    assert dataset_root(image) == tmp_path / "study" / "sub-01"


def test_the_nearer_and_the_more_specific_sidecar_has_priority(tmp_path):
    study = tmp_path / "study"
    perf = study / "sub-01" / "perf"
    perf.mkdir(parents=True)
    image = perf / "sub-01_acq-x_run-1_asl.nii.gz"
    files = {
        tmp_path / "asl.json": {"outside": 1},
        study / "asl.json": {"a": 1, "b": 1, "c": 1, "d": 1},
        study / "acq-x_asl.json": {"b": 2, "c": 2, "d": 2},
        perf / "sub-01_asl.json": {"c": 3, "d": 3},
        perf / "sub-01_acq-x_asl.json": {"d": 4},
        perf / "sub-01_acq-y_asl.json": {"d": 5},  # another acquisition
        perf / "sub-01_acq-x_m0scan.json": {"d": 6},  # another image
    }
    (study / "dataset_description.json").write_text("{}")
    for path, content in files.items():
        path.write_text(json.dumps(content))
    found = read_sidecar(image)
    assert found.values == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert found.files == tuple(files)[1:5]
    assert found.path == perf / "sub-01_acq-x_asl.json"


def test_without_a_sidecar_the_path_is_the_one_beside_the_image(tmp_path):
    found = read_sidecar(tmp_path / "sub-01_asl.nii.gz")
    assert found == Sidecar(tmp_path / "sub-01_asl.json", {}, {})
