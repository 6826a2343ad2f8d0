"""Maps of example scans and their truth -> sections with pictures for the page on phantoms."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from aslkit.core.constants import MIN_CBF
from aslkit.report.bland_altman import bland_altman_plots
from aslkit.report.map_pictures import Region, close_ups, map_comparison
from aslkit.report.page import Section
from aslkit.report.phantom_table import PhantomTable, Setting
from aslkit.report.shared_sections import select_pictured
from aslkit.simulate.lesions import LESION_CLASSES
from aslkit.validate.design import most_typical_snr
from aslkit.validate.estimators import TRUTH, Example
from aslkit.validate.records import QUANTITIES, values_in

ORIENTATION = "Axial slices in neurological orientation: anterior is up, right is on the right."


def map_sections(results: PhantomTable, examples: Iterable[Example]) -> list[Section]:
    """Return maps and errors of all methods, one picture per shown setting."""
    return [
        Section(
            f"Maps: {e.title}",
            "All columns of a row share one colour scale. Errors: red is too high, blue is too "
            "low. sd: standard deviation that the method reports; it should be large where the "
            f"error is large. {ORIENTATION}{left_out}",
            map_comparison(e.maps, e.mask, e.title, e.maps[TRUTH]),
        )
        for e, left_out in _shown_examples(results, examples)
    ]


def lesion_sections(results: PhantomTable, examples: Iterable[Example]) -> list[Section]:
    """Return close-ups of lesions, one picture per shown setting with lesions."""
    sections = []
    for example, left_out in _shown_examples(results, examples):
        lesions = example.lesions
        if lesions is not None and lesions.any():
            found = (i for i in LESION_CLASSES if (lesions == i).any())
            regions = [Region(LESION_CLASSES[i], np.asarray(lesions == i)) for i in found]
            text = (
                "Each kind of lesion in the slice where it is largest, outlined in white. All "
                f"columns of a row share one colour scale. {ORIENTATION}{left_out}"
            )
            picture = close_ups(example.maps, example.mask, regions)
            sections.append(Section(f"Lesions: {example.title}", text, picture))
    return sections


def bland_altman_sections(results: PhantomTable, examples: Iterable[Example]) -> list[Section]:
    """Return Bland-Altman plots against the truth, for the first shown setting."""
    return [_bland_altman_section(*shown) for shown in _shown_examples(results, examples)[:1]]


def _bland_altman_section(example: Example, left_out: str) -> Section:
    inside = example.mask & (example.maps[TRUTH].cbf > MIN_CBF)
    values = {
        name: {q: values_in(getattr(m, q), inside, q) for q in QUANTITIES}
        for name, m in example.maps.items()
    }
    return Section(
        f"Bland-Altman: difference from {TRUTH}",
        f"{example.title}. Colour: number of voxels, darker is more (logarithmic). Solid line: "
        "mean difference. Dashed lines: limits of agreement, 1.96 standard deviations above and "
        "below the mean. Numbers: mean ± 1.96 standard deviations. A cloud that falls to the "
        f"right means that high values are underestimated and low values overestimated.{left_out}",
        bland_altman_plots(values.pop(TRUTH), values, TRUTH),
    )


def _shown_examples(
    results: PhantomTable, examples: Iterable[Example]
) -> list[tuple[Example, str]]:
    """Return an example per shown setting, with a note on the models that it leaves out.

    The example is the one with the most typical SNR. Its maps have the order of the tables, the
    truth first.
    """
    own: dict[Setting, dict[float, Example]] = {s: {} for s in results.shown_settings}
    for e in examples:
        setting = Setting(*(str(e.condition[k]) for k in ("phantoms", "track", "protocol")))
        own.get(setting, {}).setdefault(float(e.condition["snr"]), e)
    shown = []
    for example in (found[most_typical_snr(found)] for found in own.values() if found):
        names, left_out = select_pictured([n for n in results.estimators if n in example.maps])
        maps = {name: example.maps[name] for name in (TRUTH, *names)}
        shown.append((replace(example, maps=maps), left_out))
    return shown
