"""Volume types from an aslcontext file or from the order given by the user."""

import pytest

from aslkit.bids.aslcontext import VOLUME_TYPES, find_context, read_context, read_volume_types
from aslkit.bids.overrides import NO_OVERRIDES, Overrides
from aslkit.core.errors import InputError


@pytest.fixture
def table(tmp_path):
    """Return a function that writes an aslcontext file; the image itself need not exist."""

    def write(*lines):
        path = tmp_path / "sub-01_aslcontext.tsv"
        path.write_text("\n".join(lines))
        return path

    return write


def read(path, n, order=None):
    stated = NO_OVERRIDES if order is None else Overrides(order=order)
    return read_volume_types(path.with_name("sub-01_asl.nii.gz"), n, stated)


def test_the_column_is_found_by_its_name(table):
    path = table("note \t volume_type\tmore", "", *(f"a\t{t} \tb" for t in VOLUME_TYPES), "  ")
    assert read_context(path) == VOLUME_TYPES


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "first line: found an empty file, expected the column name volume_type"),
        (("type\tx", "label"), "first line: found type x, expected the column name volume_type"),
        (
            ("x\tvolume_type", "a\tlabel", "a"),
            "volume_type of volume 2: found '', expected one of",
        ),
        (
            ("volume_type", "Label"),
            "volume_type of volume 1: found 'Label', expected one of contr",
        ),
    ],
)
def test_an_invalid_table_is_refused(table, lines, message):
    with pytest.raises(InputError, match=message):
        read_context(table(*lines))


def test_the_volume_types_and_their_file_are_returned(table):
    path = table("volume_type", "control", "label")
    assert read(path, 2) == (("control", "label"), (path,))
    path = table("volume_type", "m0scan", "deltam")
    assert read(path, 2) == (("m0scan", "deltam"), (path,))


def test_a_given_order_applies_to_the_perfusion_volumes(table):
    path = table("volume_type", "m0scan", "label", "control", "noRF", "label", "control")
    for order, pair in (("ct", ("control", "label")), ("tc", ("label", "control"))):
        assert read(path, 6, order) == (("m0scan", *pair, "noRF", *pair), (path,))
    assert read(path, 6, "diff")[0] == ("m0scan", "deltam", "deltam", "noRF", "deltam", "deltam")


@pytest.mark.parametrize(("order", "types"), [("tc", ("label", "control")), ("diff", ("deltam",))])
def test_without_a_file_the_given_order_applies_to_all_volumes(tmp_path, order, types):
    assert read(tmp_path / "x", 4, order) == (types * (4 // len(types)), ())


def test_an_odd_number_of_volumes_is_refused(table):
    path = table("volume_type", "m0scan", "label", "control", "label")
    with pytest.raises(
        InputError, match="^--order: found ct for 3 perfusion volumes, expected an"
    ):
        read(path, 4, "ct")


@pytest.mark.parametrize(
    ("lines", "n", "message"),
    [
        (("label", "control"), 3, "volume_type: found 2 volumes, expected 3, the number of vol"),
        (("label", "cbf"), 2, "found cbf volumes, which the scanner has quantified already"),
        (("label", "control", "deltam"), 3, "found deltam volumes besides control and label vol"),
        (("deltam", "control"), 2, "found deltam volumes besides control volumes, expected one"),
        (("m0scan", "label"), 2, "found only label, m0scan, expected"),
        (("noRF", "n/a"), 2, "found only n/a, noRF, expected"),
    ],
)
def test_a_series_without_a_difference_is_refused(table, lines, n, message):
    path = table("volume_type", *lines)
    with pytest.raises(InputError, match=message) as caught:
        read(path, n)
    assert str(caught.value).startswith(f"{path}: volume_type: ")


def test_the_error_names_the_expected_file_if_it_is_missing(tmp_path):
    for name in ("sub-01_asl.nii.gz", "asl.nii", "sub-01.nii"):
        with pytest.raises(InputError) as caught:
            read_volume_types(tmp_path / name, 2, NO_OVERRIDES)
        expected = "asl_aslcontext.tsv" if name == "asl.nii" else "sub-01_aslcontext.tsv"
        assert str(caught.value).startswith(f"{tmp_path / expected}: found no such file, ")


def test_the_file_beside_the_image_has_priority_over_an_inherited_one(tmp_path):
    (tmp_path / "dataset_description.json").touch()
    perf = tmp_path / "sub-01" / "perf"
    perf.mkdir(parents=True)
    image = perf / "sub-01_asl.nii.gz"
    assert find_context(image) is None
    for path in (tmp_path / "aslcontext.tsv", perf / "sub-01_aslcontext.tsv"):
        path.touch()
        assert find_context(image) == path
