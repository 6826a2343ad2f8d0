"""BIDS data set -> its repeated scans, and batches of two halves of their repeats.

A batch holds neighbouring slices of one scan. The input of the network is least squares of one
half of the repeats. Its CBF should predict the mean of the other half, which has other noise.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from aslkit.bids.layout import find_acquisitions, scan_name
from aslkit.bids.reader import read_run
from aslkit.bids.sidecar import entities
from aslkit.config import AnyProtocolConfig
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import AslSeries, FloatImage, MaskImage, bounding_box
from aslkit.fit.least_squares import fitted_signal
from aslkit.predict.inference import fit_base
from aslkit.prepare.noise import finite_mean, noise_from_repeats
from aslkit.prepare.pipeline import PreparationSettings, prepare_runs
from aslkit.prepare.series import calibrated_repeats
from aslkit.train.batches import Batch

logger = logging.getLogger(__name__)

Window = tuple[slice, ...]  # of x, y, z
Places = Sequence[NDArray[np.intp]]


@dataclass(frozen=True)
class RealScan:
    """All repeats of a scan.

    Attributes
    ----------
    subject : str
    series : AslSeries
        The mean of all repeats, with the noise level from the repeats.
    repeats : tuple of array (x, y, z, repeats)
        ΔM/M0, one array per timing.
    """

    subject: str
    series: AslSeries
    repeats: tuple[FloatImage, ...]

    @property
    def sha256(self) -> str:
        """Checksum of the repeats and their acquisition, independent of the name of the scan."""
        found = hashlib.sha256(repr(self.series.acquisition).encode())
        for images in self.repeats:
            found.update(np.ascontiguousarray(images).tobytes())
        return found.hexdigest()

    def subset(self, chosen: Places, window: Window) -> AslSeries:
        """Return the series of some repeats of every timing, in a part of the image."""
        groups = [r[window][..., i] for r, i in zip(self.repeats, chosen, strict=True)]
        mask, size = self.series.mask[window], self.series.voxel_size_mm
        whole = self.series.acquisition
        timings = tuple(
            replace(t, n_averages=t.n_averages * i.size // r.shape[3])
            for t, r, i in zip(whole.timings, self.repeats, chosen, strict=True)
        )
        offsets = whole.slice_offsets(self.series.mask.shape[2])[window[2]].tolist()
        means = np.stack([finite_mean(g) for g in groups], axis=3)
        return AslSeries(
            delta_m=np.where(mask[..., None], means, np.nan),  # NaN: not fitted
            acquisition=replace(whole, timings=timings, slice_offsets_s=tuple(offsets)),
            mask=mask,
            affine=self.series.affine,
            noise_sd=noise_from_repeats(groups, [t.n_averages for t in timings], mask, size),
        )


def read_real_scans(
    bids_dir: Path,
    preparation: PreparationSettings = PreparationSettings(),  # noqa: B008
) -> tuple[RealScan, ...]:
    """Read the scans of a data set with repeats of several delays; warn of the others.

    Raises
    ------
    InputError
        If there is none.
    """
    scans = []
    for paths in find_acquisitions(bids_dir):
        try:
            scans.append(_read(paths, preparation))
        except InputError as error:
            logger.warning("%s is left out: %s", scan_name(paths), error)
    if not scans:
        raise InputError(
            bids_dir,
            "",
            found="no scan that can judge itself",
            expected="several delays, each measured twice or more",
            fix="see the warnings, or give another --finetune-bids",
        )
    return tuple(scans)


def describe_scans(scans: Sequence[RealScan]) -> dict[str, object]:
    """Return the anonymous description of the scans for the model card."""
    together = hashlib.sha256("".join(sorted(scan.sha256 for scan in scans)).encode())
    counts = [images.shape[3] for scan in scans for images in scan.repeats]
    protocols: list[dict[str, object]] = []
    for scan in scans:
        timings = scan.series.acquisition.timings
        labelings = list(dict.fromkeys(t.labeling for t in timings))
        protocol: dict[str, object] = {
            "labelings": labelings,
            "plds_s": [t.pld_s for t in timings],
        }
        protocols += [protocol] if protocol not in protocols else []
    return {
        "scans": len(scans),
        "subjects": len({scan.subject for scan in scans}),
        "repeats": [min(counts), max(counts)],
        "protocols": protocols,
        "sha256": together.hexdigest(),
    }


def draw_real_batch(
    scans: Sequence[RealScan], config: AnyProtocolConfig, rng: np.random.Generator
) -> Batch:
    """Draw neighbouring slices of a scan: least squares of one half, signal of the other.

    Returns
    -------
    dict
        `channels` (b, c, x, y), `base` and `errors` (b, 2, x, y) as in `batch_from_scans`. Of the
        other half: `signal` (b, n, x, y), weighted and without the arterial signal of the base
        fit; its noise `sd` (b, 1, x, y) and its `weights` (n,). `inside` (b, 1, x, y): voxels
        with both halves. `place` (2,): the numbers of the scan and of its first slice.
    """
    number = int(rng.integers(len(scans)))
    scan = scans[number]
    window, corner = _draw_window(scan.series.mask, config, rng)
    orders = [rng.permutation(r.shape[3]) for r in scan.repeats]
    fit = fit_base(scan.subset([o[: o.size // 2] for o in orders], window))
    other = scan.subset([o[o.size // 2 :] for o in orders], window)
    maps, weights = fit.maps, other.acquisition.weights.astype(np.float32)
    arterial = fitted_signal(replace(maps, cbf=0 * maps.cbf), other.acquisition)
    inside = fit.inside & other.has_signal
    images: dict[str, FloatImage] = {
        "base": np.stack([maps.cbf, maps.att], 3),
        "errors": np.stack([maps.cbf_std, maps.att_std], 3),
        "signal": (other.delta_m - arterial) * np.sqrt(weights),
        "sd": _noise_of(other, scan.series)[window][..., None],
        "inside": inside[..., None].astype(np.float32),
    }
    channels = np.stack([fit.encode_slice(z) for z in range(inside.shape[2])])
    patches = {"channels": channels} | {k: v.transpose(2, 3, 0, 1) for k, v in images.items()}
    batch = {
        key: _put_into_patch(values, corner, config.patch_size) for key, values in patches.items()
    }
    place = torch.tensor([number, window[2].start])
    return batch | {"weights": torch.from_numpy(weights), "place": place}


def _draw_window(
    mask: MaskImage, config: AnyProtocolConfig, rng: np.random.Generator
) -> tuple[Window, tuple[int, int]]:
    """Draw a part of the image, and return also the pixel of the patch where it begins."""
    sides = (config.patch_size, config.patch_size, config.patches_per_protocol)
    firsts = []
    for brain, side in zip(bounding_box(mask), sides, strict=True):
        ends = brain.start, brain.stop - side
        firsts.append(int(rng.integers(min(ends), max(ends) + 1)))
    window = tuple(
        slice(max(first, 0), min(first + side, size))
        for first, side, size in zip(firsts, sides, mask.shape, strict=True)
    )
    return window, (max(-firsts[0], 0), max(-firsts[1], 0))


def _noise_of(part: AslSeries, whole: AslSeries) -> FloatImage:
    """Return the noise sd of a volume of mean weight of some repeats, from all repeats."""
    part_averages, averages = (
        np.mean([t.n_averages for t in series.acquisition.timings]) for series in (part, whole)
    )
    assert whole.noise_sd is not None  # known, because every timing has repeats
    return whole.noise_sd * np.float32(np.sqrt(averages / part_averages))


def _put_into_patch(images: FloatImage, corner: tuple[int, int], side: int) -> torch.Tensor:
    """Put images (b, c, x, y) into patches (b, c, side, side), 0 around them."""
    b, c, nx, ny = images.shape
    x, y = corner
    patches = np.zeros((b, c, side, side), dtype=np.float32)
    patches[:, :, x : x + nx, y : y + ny] = np.nan_to_num(images)
    return torch.from_numpy(patches)


def _read(paths: tuple[Path, ...], preparation: PreparationSettings) -> RealScan:
    """Read a scan, and try the fit of half of its repeats.

    Raises
    ------
    InputError
        If a delay has no repeat, or there is one delay only.
    """
    prepared = prepare_runs([read_run(path) for path in paths], preparation)
    series = prepared.series
    repeats = tuple(calibrated_repeats(prepared.runs, series.mask))
    fewest = min(r.shape[3] for r in repeats)
    if fewest < 2 or len(repeats) < 2:
        raise InputError(
            paths[0],
            "",
            found="one delay" if len(repeats) < 2 else "a delay without a repeat",
            expected="several delays, each measured twice or more",
            fix="leave this scan out",
        )
    scan = RealScan(entities(paths[0])[0]["sub"], series, repeats)
    everywhere = tuple(slice(0, size) for size in series.mask.shape)
    fit_base(scan.subset([np.arange(r.shape[3] // 2) for r in repeats], everywhere))
    return scan
