"""AslSeries and ParameterMaps -> quality figures of one run.

docs/quality.md states normal values. A figure that cannot be computed is None.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import gammaincinv

from aslkit.bids.tissue_maps import PURE_TISSUE, TissueMaps
from aslkit.core.series_and_maps import AslSeries, Flag, FloatImage, MaskImage, ParameterMaps
from aslkit.fit.settings import FitSettings
from aslkit.prepare.noise import FWHM_PER_SIGMA
from aslkit.quality.goodness_of_fit import reduced_chi2

FloatArray = NDArray[np.floating]
Figures = dict[str, float | None]

# QEI: Dolui 2024, doi:10.1002/jmri.29308, with the unrounded constants of ASLPrep
QEI_FWHM_MM = 5.0
GM_TO_WM = 2.5  # ratio in the pseudo-CBF
SIMILARITY = (3.0126, 2.4419)  # factor and power of the similarity
DISPERSION = (0.054, 0.9272)
NEGATIVE = (2.8478, 0.5196)
HIGH_CBF = (100, 150, 200)  # ml/100 g/min


@dataclass(frozen=True)
class Figure:
    """Unit and meaning of a figure, for the sidecar of the table."""

    units: str
    description: str


@dataclass(frozen=True)
class Qei:
    """Quality evaluation index, 0 (worst) to 1, and its parts.

    Attributes
    ----------
    index : float
        Geometric mean of the three parts' scores.
    similarity : float
        Correlation with the pseudo-CBF 2.5 GM + WM; 0 if negative.
    dispersion : float
        Variance within tissues divided by the mean CBF of GM [ml/100 g/min].
    negative : float
        Share of GM voxels with negative CBF, 0-1.
    """

    index: float
    similarity: float
    dispersion: float
    negative: float


def quality_figures(
    series: AslSeries, maps: ParameterMaps, settings: FitSettings, tissue: TissueMaps | None = None
) -> Figures:
    """Compute all figures of `FIGURES`, in the same order.

    The QEI and the figures of GM and WM need tissue maps; those of the brain do not.
    """
    brain = series.mask & (maps.flags != Flag.NOT_FINITE)
    has_att = brain & (maps.flags != Flag.ATT_UNDETERMINED) & settings.is_att_free
    found = _cbf_figures("brain", maps.cbf[brain]) | _att_figures("brain", maps.att[has_att])
    found["percentage_negative_brain_cbf"] = _percentage(maps.cbf[brain] < 0)
    for limit in HIGH_CBF:
        found[f"percentage_cbf_above_{limit}"] = _percentage(maps.cbf[brain] > limit)
    found["percentage_flagged"] = _percentage(maps.flags[series.mask] != Flag.OK)
    found |= _fit_figures(series, maps, settings, brain)
    if tissue is not None:
        found |= _tissue_figures(maps, tissue, brain, has_att, series.voxel_size_mm)
    return {name: _finite(found.get(name)) for name in FIGURES}


def quality_evaluation_index(
    cbf: FloatImage, tissue: TissueMaps, brain: MaskImage, voxel_size_mm: tuple[float, ...]
) -> Qei:
    """Compute the quality evaluation index of a CBF map, as in ASLPrep.

    Parameters
    ----------
    cbf : array (x, y, z)
        Cerebral blood flow [ml/100 g/min].
    tissue : TissueMaps
        Tissue maps of the subject, on the same grid.
    brain : bool array (x, y, z)
        Voxels with an estimate; other voxels are set to 0.
    voxel_size_mm : tuple of float
        Edge lengths of a voxel [mm].
    """
    sigma = QEI_FWHM_MM / FWHM_PER_SIGMA / np.asarray(voxel_size_mm)
    inside = np.where(brain, cbf, 0).astype(np.float64)
    smooth = ndimage.gaussian_filter(inside, sigma, mode="nearest")
    pseudo = GM_TO_WM * tissue.gm + tissue.wm
    tissues = [smooth[brain & (p > PURE_TISSUE)] for p in (tissue.gm, tissue.wm, tissue.csf)]
    grey = tissues[0]
    similarity = max(_correlation(smooth[smooth != 0], pseudo[smooth != 0]), 0.0)
    dispersion = _pooled_variance(tissues) / max(abs(float(grey.mean())), 1e-9)
    negative = float(np.mean(grey < 0))
    scores = (
        1 - _decay(SIMILARITY, similarity),
        _decay(DISPERSION, dispersion),
        _decay(NEGATIVE, negative),
    )
    return Qei(math.prod(scores) ** (1 / 3), similarity, dispersion, negative)


def temporal_snr(series: AslSeries) -> FloatImage | None:
    """Compute the mean over timings of ΔM / sd of one control-label difference, (x, y, z).

    None without repeats.
    """
    if series.noise_sd is None:
        return None
    averages = np.mean([t.n_averages for t in series.acquisition.timings])
    sd = series.noise_sd * np.float32(np.sqrt(averages))
    nothing = np.full(sd.shape, np.nan, dtype=np.float32)
    return np.divide(series.delta_m.mean(axis=3), sd, out=nothing, where=sd > 0)


def _tissue_figures(
    maps: ParameterMaps,
    tissue: TissueMaps,
    brain: MaskImage,
    has_att: MaskImage,
    voxel_size_mm: tuple[float, ...],
) -> Figures:
    grey, white = tissue.gm > PURE_TISSUE, tissue.wm > PURE_TISSUE
    found = _cbf_figures("gm", maps.cbf[brain & grey])
    found |= _att_figures("gm", maps.att[has_att & grey])
    qei = quality_evaluation_index(maps.cbf, tissue, brain, voxel_size_mm)
    wm_cbf = _mean(maps.cbf[brain & white])
    return found | {
        "qei_cbf": qei.index,
        "qei_structural_similarity": qei.similarity,
        "qei_dispersion": qei.dispersion,
        "qei_negative_gm": qei.negative,
        "mean_wm_cbf": wm_cbf,
        "percentage_negative_cbf": _percentage(maps.cbf[brain & grey] < 0),
        "ratio_gm_wm_cbf": _ratio(found["mean_gm_cbf"], wm_cbf),
    }


def _cbf_figures(region: str, cbf: FloatArray) -> Figures:
    return {
        f"mean_{region}_cbf": _mean(cbf),
        f"median_{region}_cbf": _median(cbf),
        f"spatial_cov_{region}_cbf": _ratio(float(np.std(cbf)) if cbf.size else None, _mean(cbf)),
    }


def _att_figures(region: str, att: FloatArray) -> Figures:
    return {f"mean_{region}_att": _mean(att), f"median_{region}_att": _median(att)}


def _fit_figures(
    series: AslSeries, maps: ParameterMaps, settings: FitSettings, brain: MaskImage
) -> Figures:
    n_free = settings.degrees_of_freedom(series.acquisition)
    found: Figures = {"degrees_of_freedom": n_free}
    if series.noise_sd is not None and n_free > 0:
        chi2 = reduced_chi2(series, maps, series.noise_sd, n_free)[brain]
        found["median_reduced_chi2"] = _median(chi2[np.isfinite(chi2)])
        found["expected_reduced_chi2"] = float(gammaincinv(n_free / 2, 0.5)) / (n_free / 2)
    snr = temporal_snr(series)
    if snr is not None:
        found["temporal_snr"] = _median(snr[brain & np.isfinite(snr)])
    return found


def _decay(constants: tuple[float, float], value: float) -> float:
    factor, power = constants
    return math.exp(-factor * value**power)


def _pooled_variance(tissues: list[FloatArray]) -> float:
    """Return the variance within tissues; tissues of fewer than two voxels are skipped."""
    used = [t for t in tissues if t.size > 1]
    freedom = sum(t.size - 1 for t in used)
    return sum((t.size - 1) * float(t.var()) for t in used) / freedom if freedom else 0.0


def _correlation(a: FloatArray, b: FloatArray) -> float:
    """Return Pearson's correlation; 0 if a variable is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else 0.0


def _mean(values: FloatArray) -> float | None:
    return float(np.mean(values, dtype=np.float64)) if values.size else None


def _median(values: FloatArray) -> float | None:
    return float(np.median(values)) if values.size else None


def _percentage(is_counted: NDArray[np.bool_]) -> float | None:
    return 100 * float(np.mean(is_counted)) if is_counted.size else None


def _ratio(value: float | None, reference: float | None) -> float | None:
    """Return value / reference; None if the reference is not positive."""
    return None if value is None or reference is None or reference <= 0 else value / reference


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


CBF_UNIT = "mL/100 g/min"
FIGURES = {
    "qei_cbf": Figure("1", "Quality evaluation index of the CBF map, 0 to 1"),
    "qei_structural_similarity": Figure("1", "Part of the QEI: correlation with 2.5 GM + WM"),
    "qei_dispersion": Figure(CBF_UNIT, "Part of the QEI: variance within tissues / mean GM CBF"),
    "qei_negative_gm": Figure("1", "Part of the QEI: share of GM with negative CBF"),
    "mean_gm_cbf": Figure(CBF_UNIT, "Mean CBF of grey matter"),
    "median_gm_cbf": Figure(CBF_UNIT, "Median CBF of grey matter"),
    "mean_wm_cbf": Figure(CBF_UNIT, "Mean CBF of white matter"),
    "ratio_gm_wm_cbf": Figure("1", "Mean CBF of grey matter / mean CBF of white matter"),
    "spatial_cov_gm_cbf": Figure("1", "Standard deviation / mean of CBF in grey matter"),
    "percentage_negative_cbf": Figure("percent", "Grey matter voxels with negative CBF"),
    "mean_gm_att": Figure("s", "Mean ATT of grey matter, where it is determined"),
    "median_gm_att": Figure("s", "Median ATT of grey matter, where it is determined"),
    "mean_brain_cbf": Figure(CBF_UNIT, "Mean CBF in the brain mask"),
    "median_brain_cbf": Figure(CBF_UNIT, "Median CBF in the brain mask"),
    "spatial_cov_brain_cbf": Figure(
        "1", "Standard deviation / mean of CBF in the brain mask, a proxy for grey matter"
    ),
    "percentage_negative_brain_cbf": Figure(
        "percent", "Voxels of the brain mask with negative CBF, a proxy for grey matter"
    ),
    "mean_brain_att": Figure("s", "Mean ATT in the brain mask, where it is determined"),
    "median_brain_att": Figure("s", "Median ATT in the brain mask, where it is determined"),
    **{
        f"percentage_cbf_above_{limit}": Figure(
            "percent", f"Voxels of the brain mask with CBF above {limit} {CBF_UNIT}"
        )
        for limit in HIGH_CBF
    },
    "percentage_flagged": Figure("percent", "Voxels of the brain mask with a flag"),
    "median_reduced_chi2": Figure("1", "Median reduced chi2 of the fit in the brain mask"),
    "expected_reduced_chi2": Figure("1", "Expected median if model and noise level are correct"),
    "degrees_of_freedom": Figure("1", "Number of timings minus number of fitted parameters"),
    "temporal_snr": Figure(
        "1", "Mean difference / standard deviation of one pair, median over the brain mask"
    ),
}
