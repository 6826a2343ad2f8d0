"""The pages of asl_validate: numbers and pictures come from the right records."""

import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from aslkit.core.series_and_maps import ParameterMaps
from aslkit.report import (
    bland_altman,
    charts,
    example_sections,
    map_pictures,
    phantom_sections,
    robustness_sections,
)
from aslkit.report.page import Page, Section, Table, render_page
from aslkit.report.phantom_report import phantom_headline, phantom_report, summary
from aslkit.report.phantom_table import PhantomTable
from aslkit.report.shared_sections import coverage_panels
from aslkit.report.style import LS_ORACLE, PIXELS_PER_INCH, SMOOTHED_LS, line_styles, to_png
from aslkit.report.win_rates import win_rate_matrix
from aslkit.validate.estimators import TRUTH, Benchmark, Example, Speed
from aslkit.validate.records import AVERAGE, BOUND, LS, LS_ARTERIAL
from aslkit.validate.self_checks import SelfCheck

NAN = float("nan")
NET = "net"


def row(metric, value, estimator=NET, low=NAN, high=NAN, **where):
    fields = {
        "track": "matched",
        "phantoms": "brain",
        "protocol": "pcasl6",
        "kinetic": "single",
        "snr": 3.0,
        "stratum": "brain",
        "quantity": "cbf",
        **where,
    }
    figures = {"unit": "", "value": value, "low": low, "high": high}
    return {**fields, "estimator": estimator, "metric": metric, **figures} | {
        "n_voxels": 1000,
        "n_subjects": 4,
    }


def scored(ratio=0.5, snr=3.0, **where):
    """Errors of LS (4 and 200, half of that in GM) and of the network, as a run records them."""
    rows = []
    for quantity, error in (("cbf", 4.0), ("att", 200.0)):
        place = {"quantity": quantity, "snr": snr, **where}
        for stratum, mae in (("brain", error), ("GM", error / 2)):
            rows += [
                row("MAE", mae, LS, mae - 0.1, mae + 0.1, stratum=stratum, **place),
                row("MAE", ratio * mae, NET, stratum=stratum, **place),
            ]
        rows += [
            row("MAE / LS", ratio, NET, ratio - 0.05, ratio + 0.05, **place),
            row("win rate", 0.66, NET, 0.64, 0.68, **place),
        ]
    return rows


@dataclass(frozen=True)
class ExampleWithLesions(Example):
    lesions: np.ndarray | None = None


def example(lesions=None, **condition):
    shape = (26, 28, 5)
    rng = np.random.default_rng(0)
    mask = np.zeros(shape, bool)
    mask[3:-3, 3:-3] = True

    def maps(noise):
        def image(mean, scale):
            return (mean + scale * noise * rng.standard_normal(shape)).astype(np.float32)

        sd = np.full(shape, noise, np.float32)
        return ParameterMaps(image(50, 5), image(1.5, 0.2), 5 * sd, sd, np.zeros(shape, np.uint8))

    where = {"track": "matched", "phantoms": "brain", "protocol": "pcasl6", "snr": 3.0}
    truth = replace(maps(0), cbf=mask * np.float32(50))
    found = {TRUTH: truth, LS: maps(1.0), NET: maps(0.3)}
    return ExampleWithLesions("brain-1", {**where, **condition}, found, mask, lesions)


def benchmark(rows, examples=()):
    self_checks = [SelfCheck("all is well", True, "yes")]
    return Benchmark(
        rows, self_checks, list(examples), [Speed(LS, 1.0, 1000), Speed(NET, 2.0, 1000)]
    )


@pytest.fixture
def drawn(monkeypatch):
    """The panels that the sections draw, in order."""
    panels = []
    for module in (phantom_sections, robustness_sections):
        monkeypatch.setattr(
            module, "draw_panels", lambda p, styles, n_columns: panels.extend(p) or b"png"
        )
    return panels


def test_a_table_omits_repeated_words_and_aligns_numbers():
    rows = [["a", "x", "LS", "1.0"], ["a", "x", "net", "22.0"], ["a", "y", "LS", "3.0"]]
    table = Table(["track", "protocol", "method", "MAE"], rows, n_text=3, caption="Errors.")
    assert table.as_text().split("\n") == [
        "Errors.",
        "",
        "track  protocol  method   MAE",
        "a      x         LS       1.0",
        "                 net     22.0",
        "       y         LS       3.0",
    ]


def test_a_word_that_repeats_under_another_group_is_printed_again():
    table = Table(["scan", "method", "x"], [["1", "LS", "0"], ["2", "LS", "0"]], n_text=2)
    assert table.grouped_rows == [["1", "LS", "0"], ["2", "LS", "0"]]
    assert Table(["method", "x"], [["LS", "0"], ["LS", "1"]]).grouped_rows[1] == ["LS", "1"]


def test_the_headline_has_a_line_per_method_with_error_and_ratio_to_ls():
    table = phantom_headline(benchmark(scored(0.5) + scored(0.75, snr=30.0)))
    assert list(table.columns) == ["protocol", "method"] + [
        f"{q} SNR {s}" for q in ("CBF", "ATT") for s in (3, 30)
    ]
    cells = ["2.00 (0.50)", "3.00 (0.75)", "100 (0.50)", "150 (0.75)"]
    assert list(table.rows[1]) == ["pcasl6", NET, *cells]


def test_the_headline_shows_three_snrs_of_many_and_names_tracks_only_if_there_are_two():
    rows = [r for snr in (1.0, 3.0, 5.0, 10.0, 30.0) for r in scored(snr=snr)]
    table = phantom_headline(benchmark(rows + scored(track="mismatched")))
    assert list(table.columns[:5]) == ["track", "protocol", "method", "CBF SNR 1", "CBF SNR 5"]
    assert table.columns[5] == "CBF SNR 30"
    assert [r[0] for r in table.rows] == ["matched", "matched", "mismatched", "mismatched"]


def test_a_single_delay_has_no_att_in_the_headline_and_a_section_of_its_own():
    one = [r for r in scored(protocol="pcasl1") if r["quantity"] == "cbf"]
    one += [row("bias", -1.25, protocol="pcasl1")]
    found = benchmark(scored() + one)
    assert phantom_headline(found).rows[-1][-1] == "–"
    (section,) = robustness_sections.single_delay_sections(PhantomTable(found.records))
    assert list(section.table.rows[-1]) == ["pcasl1", NET, "2.00", "-1.25"]
    assert [s.protocol for s in PhantomTable(found.records).shown_settings] == ["pcasl6"]


def test_pictures_show_the_first_protocols_of_each_track_near_the_snr_of_eight_averages():
    f = PhantomTable(
        [
            r
            for track in ("matched", "mismatched")
            for protocol in ("joint6", "pcasl6", "pcasl5")
            for snr in (1.0, 4.0, 30.0)
            for r in scored(track=track, protocol=protocol, snr=snr)
        ]
    )
    assert f.snr == 4
    assert [s.title for s in f.shown_settings] == [
        "joint6",
        "pcasl6",
        "joint6 (mismatched)",
        "pcasl6 (mismatched)",
    ]


def test_other_kinds_of_phantoms_have_a_table_of_their_own():
    found = benchmark(scored() + scored(phantoms="plan") + scored(protocol="pcasl5"))
    assert [r[0] for r in phantom_headline(found).rows] == ["pcasl6"] * 2 + ["pcasl5"] * 2
    (other,) = (s for s in phantom_report(found, {}).sections if s.heading == "Other phantoms")
    assert [list(r[:3]) for r in other.table.rows] == [
        ["pcasl6", LS, "4.00 (1.00)"],
        ["pcasl6", NET, "2.00 (0.50)"],
    ]


def test_of_several_example_snrs_the_most_typical_is_pictured():
    f = PhantomTable(scored())
    ((shown, _),) = example_sections._shown_examples(f, [example(snr=1.0), example(snr=8.0)])
    assert shown.condition["snr"] == 8


def test_maps_are_ordered_as_tables_are():
    given_order = example()
    backwards = replace(given_order, maps=dict(reversed(given_order.maps.items())))
    ((shown, left_out),) = example_sections._shown_examples(PhantomTable(scored()), [backwards])
    assert list(shown.maps) == [TRUTH, LS, NET] and not left_out


def test_a_picture_shows_the_first_models_and_names_the_others():
    own, names = example(), [NET, *"abcdef"]
    maps = own.maps | {name: own.maps[NET] for name in names}
    f = PhantomTable([r | {"estimator": n} for n in (LS, *names) for r in scored()])
    ((shown, left_out),) = example_sections._shown_examples(f, [replace(own, maps=maps)])
    assert list(shown.maps) == [TRUTH, LS, NET, "a", "b", "c"]
    assert left_out == " Not shown for lack of space: d, e and f. The tables include them."
    assert f.estimators == [LS, *names]


def test_an_axis_without_a_round_number_is_widened_to_two():
    panel = charts.Panel(
        "t", "x", "y", {LS: np.array([[1, 0.021, NAN, NAN], [2, 0.023, NAN, NAN]])}, [1], "y"
    )
    ax = Figure().subplots()
    charts._draw(ax, panel, line_styles([LS]))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0.02", "0.05"]


def test_bland_altman_plots_leave_out_voxels_without_an_estimate():
    ax = Figure().subplots()
    bland_altman._density(ax, np.arange(3.0), np.array([1.0, NAN, 3.0]), (0, 3, -5, 5))
    assert ax.texts[0].get_text() == "+2 ± 1.96"


def test_baselines_come_before_models_in_every_table():
    rows = [row("MAE", 1.0, e) for e in (NET, SMOOTHED_LS, "other", LS, BOUND)]
    assert PhantomTable(rows).estimators == [SMOOTHED_LS, LS, NET, "other"]
    assert PhantomTable(rows).models == [NET, "other"]


def test_error_curves_hold_grey_matter_errors_their_intervals_and_the_bound(drawn):
    rows = scored() + scored(0.75, snr=30.0) + [row("MAE", 3.0, BOUND, stratum="GM")]
    (section,) = phantom_sections.error_sections(PhantomTable(rows))
    cbf, att = drawn
    assert (cbf.title, att.ylabel) == ("CBF, pcasl6", "error [ms]")
    np.testing.assert_allclose(cbf.lines[LS], [[3, 2, 1.9, 2.1], [30, 2, 1.9, 2.1]])
    np.testing.assert_allclose(att.lines[NET][:, 1], [50, 75])
    assert cbf.lines[BOUND][0, 1] == 3 and "Cramér-Rao" in section.text


def test_the_text_of_a_track_without_a_bound_does_not_mention_it(drawn):
    (section,) = phantom_sections.error_sections(PhantomTable(scored()))
    assert "Cramér-Rao" not in section.text and BOUND not in drawn[0].lines


def test_the_summary_counts_what_ls_does_better_unless_the_interval_reaches_1():
    rows = scored(0.5) + scored(1.02, snr=10.0) + scored(1.3, snr=30.0)
    (words,) = summary(PhantomTable(rows))
    assert "at SNR 3 the error is 0.50 (CBF) and 0.50 (ATT) times that of LS" in words
    assert "LS has the smaller error in 2 of 6 cases" in words
    assert words.count("at SNR 30") == 2 and "at SNR 10" not in words


def test_ratios_and_win_rates_are_shown_with_their_intervals():
    (section,) = phantom_sections.ls_comparison_sections(PhantomTable(scored()))
    assert list(section.table.rows[0][2:4]) == ["0.50 [0.45-0.55]", "66 % [64-68]"]


def test_the_win_matrix_puts_winners_in_rows(monkeypatch):
    matrices = []
    monkeypatch.setattr(
        phantom_sections, "win_rate_matrix", lambda m: matrices.extend(m) or b"png"
    )
    duels = [
        row(f"win rate over {LS}", 0.7, NET, 0.6, 0.8),
        row(f"win rate over {NET}", 0.3, LS, 0.2, 0.4),
    ]
    (section,) = phantom_sections.win_rate_sections(PhantomTable(scored() + duels))
    (matrix,) = matrices  # ATT has none
    assert (matrix.title, list(matrix.names)) == ("CBF, pcasl6", [LS, NET])
    assert matrix.texts == [["", "30 %\n[20-40]"], ["70 %\n[60-80]", ""]]
    assert matrix.shares[1, 0] == 0.7 and win_rate_matrix(matrices).startswith(b"\x89PNG")


def test_error_bars_are_judged_by_coverage_and_scores(drawn):
    rows = [row("coverage 50 %", 0.4), row("coverage 95 %", 0.9), row("CRPS", 1.5)]
    (section,) = phantom_sections.reliability_sections(PhantomTable(scored() + rows))
    assert list(section.table.columns) == ["protocol", "method", "CBF coverage 95 %", "CBF CRPS"]
    assert list(section.table.rows[1]) == ["pcasl6", NET, "90 %", "1.5"]
    assert drawn[0].lines[NET][0, :2].tolist() == [50, 40]


def test_reliability_diagrams_share_their_axes():
    low, high = coverage_panels({"a": {NET: [0.12, 0.5, 0.6, 0.7]}, "b": {NET: [0.5] * 4}})
    assert low.y_limits == high.y_limits == (10, 101)


def test_flattened_contrast_is_shown_by_slope_and_tissue_contrast():
    rows = [row("slope", 0.8, stratum="GM"), row("GM/WM contrast recovered", 0.93)]
    (section,) = phantom_sections.dilution_sections(PhantomTable(scored() + rows))
    assert list(section.table.columns[2:]) == ["CBF slope", "GM/WM CBF"]
    assert list(section.table.rows[1][2:]) == ["0.80", "0.93"]


def test_scale_curves_are_drawn_over_the_factor_and_rounding_at_a_floor(drawn):
    rows = [
        row(f"scale x{k:g} {figure}", value, snr=10.0)
        for k, slope, worst in ((10.0, 0.8, 0.3), (0.1, 1.1, 1e-9))
        for figure, value in (("slope", slope), ("deviation 95th percentile", worst))
    ] + [row("scale 0.1 to 10 ratio", 72.7, snr=10.0)]
    (section,) = robustness_sections.scale_sections(PhantomTable(scored() + rows))
    slope, deviation = drawn
    assert slope.title == "Slope, pcasl6, SNR 10"
    assert slope.lines[NET][:, :2].tolist() == [[0.1, 1.1], [10, 0.8]]
    np.testing.assert_allclose(deviation.lines[NET][:, 1], [1e-4, 30])
    assert list(section.table.rows[0]) == ["pcasl6", NET, "72.70"]


def test_field_of_view_curves_are_drawn_over_the_share_of_brain(drawn):
    rows = [row(f"FOV fill {share}% deviation", share / 1000) for share in (40, 10)]
    robustness_sections.field_of_view_sections(PhantomTable(scored() + rows))
    np.testing.assert_allclose(drawn[0].lines[NET][:, :2], [[10, 1], [40, 4]])


def test_an_axis_of_exact_results_does_not_magnify_rounding(drawn):
    rows = [row("FOV fill 20% deviation", 1e-9)]
    robustness_sections.field_of_view_sections(PhantomTable(scored() + rows))
    assert drawn[0].y_limits == pytest.approx((-0.05, 1.05))


def test_a_curve_is_drawn_through_its_points_with_its_band():
    points = np.array([[1, 2, 1.5, 2.5], [3, NAN, NAN, NAN], [10, 1, 0.5, 1.5]])
    panel = charts.Panel("t", "x", "y", {NET: points, LS: points * NAN}, [1, 10], "xy")
    ax = Figure().subplots()
    charts._draw(ax, panel, line_styles([LS, NET]))
    (line,) = ax.get_lines()
    assert line.get_label() == NET and line.get_xydata().tolist() == [[1, 2], [10, 1]]
    (band,) = ax.collections
    assert band.get_paths()[0].get_extents().bounds == pytest.approx((1, 0.5, 9, 2))
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "10"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0.5", "1", "2"]


def test_every_estimator_has_its_own_style_independent_of_the_baselines():
    names = [BOUND, LS, SMOOTHED_LS, LS_ARTERIAL, LS_ORACLE, "a", "b", "c", "d"]
    looks = line_styles(names)
    assert len({(s["color"], s.get("linestyle")) for s in looks.values()}) == len(names)
    assert line_styles([AVERAGE, LS, "a", "b"])["b"] == looks["b"]


def test_models_and_baselines_differ_in_lightness_or_marker_for_the_colour_blind():
    looks = list(line_styles([LS, SMOOTHED_LS, LS_ARTERIAL, "a", "b", "c", "d"]).values())
    assert len({s["marker"] for s in looks}) == len(looks)
    assert all(0.1 < np.mean(to_rgb(s["color"])) < 0.8 for s in looks)


def test_error_maps_show_the_estimate_minus_the_truth():
    maps = example().maps
    view = next(p for p in map_pictures.MAP_VIEWS if p.is_error and p.name == "cbf")
    shown = map_pictures._image(maps[NET], view, maps[TRUTH])
    np.testing.assert_array_equal(shown, maps[NET].cbf - maps[TRUTH].cbf)


def test_the_scale_of_a_row_follows_the_estimator_with_the_smallest_range():
    view = map_pictures.MapView("cbf", "CBF", "inferno", 10.0)
    calm, wild = np.full((4, 4), 60.0), np.full((4, 4), 1000.0)
    assert map_pictures._scale_end([calm, wild], view) == 90
    assert map_pictures._scale_end([0 * calm, calm], view) == 60


@given(
    st.tuples(*[st.integers(0, 39)] * 2), st.tuples(*[st.integers(1, 9)] * 2), st.integers(0, 4)
)
def test_a_close_up_is_a_square_inside_the_image_that_holds_the_region(corner, size, z):
    inside = np.zeros((40, 40, 5), bool)
    inside[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1], z] = True
    inside[0, 0, (z + 1) % 5] = inside[0, 0, z]
    x, y, found = map_pictures._box_around(inside)
    assert found == z and inside[x, y, z].sum() == inside[:, :, z].sum()
    assert inside[x, y, z].shape == (x.stop - x.start,) * 2


def test_close_ups_show_the_lesions_of_an_example(monkeypatch):
    lesions = np.zeros((26, 28, 5), np.uint8)
    lesions[8:12, 8:14, 2] = 2
    regions = []
    monkeypatch.setattr(
        example_sections, "close_ups", lambda maps, mask, found: regions.extend(found) or b"png"
    )
    f = PhantomTable(scored())
    assert example_sections.lesion_sections(f, [example(), example(snr=30.0)]) == []
    assert len(example_sections.lesion_sections(f, [example(lesions)])) == 1
    assert [(r.name, r.inside.sum()) for r in regions] == [("penumbra", 24)]


def test_bland_altman_plots_print_mean_and_limits_without_exponents():
    ax = Figure().subplots()
    difference = np.array([1234.0, 1236.0])
    bland_altman._density(ax, np.array([1.0, 2.0]), difference, (0, 3, -2000, 2000))
    assert ax.texts[0].get_text() == "+1240 ± 1.96"
    assert [line.get_ydata()[0] for line in ax.get_lines()[:3]] == pytest.approx(
        [1235, 1233.04, 1236.96]
    )


class Anchors(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.links, self.sources = [], [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []


def test_the_page_is_one_file_whose_contents_lead_to_every_section():
    lesions = np.zeros((26, 28, 5), np.uint8)
    lesions[8:12, 8:14, 2] = 1
    report = phantom_report(benchmark(scored(), [example(lesions)]), {"Command": "asl_validate"})
    page = Anchors()
    text = render_page(report)
    page.feed(text)
    assert page.links == [f"#{i}" for i in page.ids]
    assert len(page.ids) == len(set(page.ids)) == len(report.sections) + 3
    assert len(page.sources) == sum(s.image is not None for s in report.sections) >= 4
    assert all(s.startswith("data:image/png;base64,") for s in page.sources)
    assert not re.search(r"https?://|<script|@import|url\(", text)


def test_sections_without_data_are_left_out():
    report = phantom_report(benchmark(scored(), [example()]), {})
    headings = " ".join(s.heading for s in report.sections)
    assert not re.search("Lesions|scale|field of view|single delay|closer", headings)
    assert "Maps" in headings and "Bland-Altman" in headings
    assert "mismatched" not in report.glossary and SMOOTHED_LS not in report.glossary


def test_a_report_can_be_made_of_least_squares_alone():
    rows = [r for r in scored() if r["estimator"] == LS]
    alone = Benchmark(rows, [], [], [Speed(LS, 1.0, 1000)])
    assert "4.00" in render_page(phantom_report(alone, {}))


def test_a_report_can_be_made_of_a_single_delay_alone():
    rows = [r for r in scored() if r["quantity"] == "cbf" and r["estimator"] == LS]
    report = phantom_report(Benchmark(rows, [], [example()], [Speed(LS, 1.0, 1000)]), {})
    assert [s.heading for s in report.sections] == [
        "Error against SNR, matched track",
        "CBF from a single delay",
        "Speed and memory",
    ]


def test_a_picture_is_as_wide_on_the_page_as_its_figure():
    picture = to_png(Figure(figsize=(2, 1)))
    report = Page("t", [], Table(["a"], []), {}, [Section("s", "text", picture)])
    assert 'width="192"' in render_page(report) and PIXELS_PER_INCH == 144


def test_text_cannot_break_out_of_the_page():
    report = Page("<script>", [], Table(["a"], [["<b>"]]), {}, [])
    assert "<script>" not in render_page(report) and "&lt;b&gt;" in render_page(report)


def test_memory_is_listed_where_it_was_measured():
    @dataclass(frozen=True)
    class Measured(Speed):
        peak_mib: float = NAN

    run = replace(benchmark(scored()), speeds=[Measured(LS, 1.0, 1000, 512.4)])
    section = phantom_report(run, {}).sections[-1]
    assert list(section.table.rows[0]) == [LS, "1.0", "1,000", "1,000", "512"]
