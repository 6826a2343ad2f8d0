"""Maps of example scans with their truth -> the sections of a phantom report that picture them."""

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

ORIENTATION = "Axial slices, anterior up; the right of the brain is on the right (neurological)."


def map_sections(results: PhantomTable, examples: Iterable[Example]) -> list[Section]:
    """Maps and errors side by side, one picture per shown setting."""
    return [
        Section(
            f"Maps: {e.title}",
            "All columns of a row share one colour scale. sd is the standard deviation that each "
            "method reports for itself. Red is too high, blue too low. A good error bar (sd) is "
            f"large where the error is. {ORIENTATION}{left_out}",
            map_comparison(e.maps, e.mask, e.title, e.maps[TRUTH]),
        )
        for e, left_out in _shown_examples(results, examples)
    ]


def lesion_sections(results: PhantomTable, examples: Iterable[Example]) -> list[Section]:
    """Lesions from close, one picture per shown setting whose example has any."""
    sections = []
    for example, left_out in _shown_examples(results, examples):
        lesions = example.lesions
        if lesions is not None and lesions.any():
            found = (i for i in LESION_CLASSES if (lesions == i).any())
            regions = [Region(LESION_CLASSES[i], np.asarray(lesions == i)) for i in found]
            text = (
                "The slice that holds most of each kind of lesion, which is outlined. All "
                f"columns of a row share one colour scale. {ORIENTATION}{left_out}"
            )
            picture = close_ups(example.maps, example.mask, regions)
            sections.append(Section(f"Lesions: {example.title}", text, picture))
    return sections


def bland_altman_sections(results: PhantomTable, examples: Iterable[Example]) -> list[Section]:
    """Bland-Altman against the truth, in the first shown setting."""
    return [_bland_altman_section(*shown) for shown in _shown_examples(results, examples)[:1]]


def _bland_altman_section(example: Example, left_out: str) -> Section:
    inside = example.mask & (example.maps[TRUTH].cbf > MIN_CBF)
    values = {
        name: {q: values_in(getattr(m, q), inside, q) for q in QUANTITIES}
        for name, m in example.maps.items()
    }
    return Section(
        f"Bland-Altman: difference from {TRUTH}",
        f"{example.title}. Darker: more voxels (logarithmic). The solid line is the mean "
        "difference, the dashed ones are 1.96 standard deviations away and enclose 95 % of "
        "Gaussian differences; the numbers are both. A tilted cloud means that high values are "
        f"pulled down and low ones up.{left_out}",
        bland_altman_plots(values.pop(TRUTH), values, TRUTH),
    )


def _shown_examples(
    results: PhantomTable, examples: Iterable[Example]
) -> list[tuple[Example, str]]:
    """Of every shown setting, the example of the most typical SNR, and who is left out of it.

    Maps are ordered as in tables, the truth first.
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
