"""Random subjects: planes in the head (mm) -> tissue, perfusion, arrival times and vessels.

The anatomy is a random warp of `template`; perfusion, arrival times, vessels and lesions are
random. Subjects can be evaluated on any planes: on the slices of a volume and on oblique training
slices. The functions accept arrays of numpy and of torch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aslkit.core.backend import Array, FloatArray, array_like, namespace
from aslkit.simulate.lesions import MAX_LESIONS, MIN_TISSUE, Lesions, draw_lesions
from aslkit.simulate.random_fields import (
    Planes,
    RandomFields,
    draw_random_fields,
    ridge,
    smoothstep,
)
from aslkit.simulate.template import atlas

ATT_RANGE_S = (0.3, 3.8)
MIN_ABAT_S = 0.1
MAX_ABV = 0.05
WARP_MM = 4.0
MIDLINE_MM = 3.0  # half width of the border between the hemispheres
ARTERY_REACH_MM = 20.0  # decay length of branches and of early arrival around large arteries
FIELD_NAMES = (
    "warp x",
    "warp y",
    "warp z",
    "cbf",
    "fine cbf",
    "att",
    "fine att",
    "twig a",
    "twig b",
)
HEIGHTS_MM = (-45.0, 60.0)  # range of z of the training slices
SPACINGS_MM = (2.5, 8.0)  # range of the distance of parallel training slices
UP = np.array([0.0, 0.0, 1.0])
TERRITORY_DELAYS_S = (0.0, -0.05, 0.1)  # mean added ATT of ACA, MCA and PCA


@dataclass(frozen=True)
class Tissue:
    """Truth on planes or on a grid; all arrays have the same shape.

    Attributes
    ----------
    gm, wm, csf : array
        Volume fractions.
    cbf_gm, cbf_wm : array
        CBF of pure tissue [ml/100 g/min].
    att_gm, att_wm : array
        ATT of pure tissue [s].
    abv : array
        Arterial blood volume, a fraction.
    abat : array
        Arrival time of the blood in arteries [s].
    lesions : uint8 array
        Classes as in `LESION_CLASSES`; 0: no lesion.
    mask : bool array
        Brain.
    """

    gm: FloatArray
    wm: FloatArray
    csf: FloatArray
    cbf_gm: FloatArray
    cbf_wm: FloatArray
    att_gm: FloatArray
    att_wm: FloatArray
    abv: FloatArray
    abat: FloatArray
    lesions: NDArray[np.uint8]
    mask: NDArray[np.bool_]

    @property
    def cbf(self) -> FloatArray:
        """CBF of the voxel [ml/100 g/min]: the sum over its tissues."""
        return self.gm * self.cbf_gm + self.wm * self.cbf_wm

    @property
    def att(self) -> FloatArray:
        """ATT of the voxel [s]: the flow-weighted mean over its tissues."""
        xp = namespace(self.gm)
        gm, wm = (
            xp.clip(flow, 1e-6, None) for flow in (self.gm * self.cbf_gm, self.wm * self.cbf_wm)
        )
        return (gm * self.att_gm + wm * self.att_wm) / (gm + wm)


@dataclass(frozen=True)
class Subjects:
    """The random parameters of `b` subjects; `at` evaluates them on planes.

    Parameters are arrays (b, …): CBF in ml/100 g/min, times in s, lengths in mm, aBV a fraction.
    `cbf_variation` and `att_variation` are (coarse, fine) standard deviations of the logarithm of
    CBF and of ATT.
    """

    size: FloatArray
    sharpness: FloatArray
    cbf_gm: FloatArray
    wm_ratio: FloatArray
    att_gm: FloatArray
    att_wm_delay: FloatArray
    watershed_delay: FloatArray
    distal_delay: FloatArray
    territory_bias: FloatArray
    territory_delays: FloatArray
    cbf_variation: FloatArray
    att_variation: FloatArray
    artery_abv: FloatArray
    artery_radius: FloatArray
    twig_abv: FloatArray
    sulcal_abv: FloatArray
    tissue_abv: FloatArray
    bolus_lead: FloatArray
    artery_lead: FloatArray
    lesions: Lesions
    random_fields: RandomFields

    def at(self, planes: Planes) -> Tissue:
        """Evaluate the truth on planes [mm, from the centre of the brain], (planes, nx, ny).

        Plane p shows subject p, or the only subject.
        """
        xp = namespace(planes.x)
        f = self.random_fields.at(planes)
        s = {name: f[:, i] for i, name in enumerate(FIELD_NAMES)}
        warp = xp.moveaxis(f[:, :3], 1, -1)
        points = planes.points * array_like(self.size[:, None, None], planes.x) + WARP_MM * warp
        maps = atlas().at(points)
        gm, wm = self._fractions(maps, planes)
        sides = xp.clip(points[..., 0] / (2 * MIDLINE_MM) + 0.5, 0, 1)
        territories, watershed = self._territories(maps, sides, s["att"])
        factor, delay, labels = self.lesions.at(planes, f[:, -MAX_LESIONS:], territories)
        cbf_gm = self._cbf(s) * factor
        att = self._att(s, territories, watershed, maps["artery_mm"]) + delay
        att_gm = xp.clip(att, *ATT_RANGE_S)
        att_wm = xp.clip(att + self._value("att_wm_delay", planes.x), *ATT_RANGE_S)
        csf = xp.clip(maps["brain"] - gm - wm, 0, None)
        lead = self._value("bolus_lead", planes.x) + self._value("artery_lead", planes.x) * xp.exp(
            -maps["artery_mm"] / ARTERY_REACH_MM
        )
        is_labelled = gm + wm > MIN_TISSUE
        labels = xp.where(is_labelled, labels, 0 * labels)
        return Tissue(
            gm=gm,
            wm=wm,
            csf=csf,
            cbf_gm=cbf_gm,
            cbf_wm=cbf_gm * self._value("wm_ratio", planes.x),
            att_gm=att_gm,
            att_wm=att_wm,
            abv=self._abv(s, gm, csf, maps),
            abat=xp.clip(att_gm - lead, MIN_ABAT_S, None),
            lesions=labels.astype(np.uint8) if xp is np else labels.byte(),
            mask=maps["brain"] > 0.5,
        )

    def _value(self, name: str, like: Array, part: int | None = None) -> Array:
        """Return a parameter as (b, 1, 1), to broadcast over (planes, nx, ny)."""
        values = getattr(self, name)
        return array_like((values if part is None else values[:, part])[:, None, None], like)

    def _fractions(self, maps: dict[str, Array], planes: Planes) -> tuple[Array, Array]:
        """Return GM and WM with steeper borders than in the template; their sum is at most 1."""
        xp = namespace(planes.x)
        weight = self._value("sharpness", planes.x)
        gm, wm = (p + weight * (smoothstep(smoothstep(p)) - p) for p in (maps["gm"], maps["wm"]))
        total = xp.clip(gm + wm, 1e-6, None)
        fill = xp.minimum(total, maps["brain"]) / total
        return gm * fill, wm * fill

    def _territories(
        self, maps: dict[str, Array], right: Array, shift: Array
    ) -> tuple[Array, Array]:
        """Return membership (0-1) of `TERRITORIES` (planes, 6, nx, ny) and of watershed zones."""
        xp = namespace(right)
        bias = array_like(np.exp(self.territory_bias)[..., None, None], right)
        names = "aca", "mca", "pca"
        weights = bias * xp.stack([maps[n] for n in names], 1)
        weights = weights * xp.exp(xp.stack([0 * shift, shift, 0 * shift], 1))
        weights = weights / xp.clip(weights.sum(1), 1e-6, None)[:, None]
        watershed = xp.clip(2 * (1 - (weights**2).sum(1)), 0, 1) ** 2
        both = [weights * (1 - right)[:, None], weights * right[:, None]]
        return xp.concatenate(both, 1), watershed

    def _cbf(self, s: dict[str, Array]) -> Array:
        like = s["cbf"]
        slow, fine = (self._value("cbf_variation", like, i) for i in (0, 1))
        return self._value("cbf_gm", like) * namespace(like).exp(
            slow * like + fine * s["fine cbf"]
        )

    def _att(
        self, s: dict[str, Array], territories: Array, watershed: Array, artery_mm: Array
    ) -> Array:
        """Return ATT of GM without lesions [s]; it is late in watersheds and far from arteries."""
        like = s["att"]
        slow, fine = (self._value("att_variation", like, i) for i in (0, 1))
        delays = array_like(self.territory_delays[..., None, None], like)
        return (
            self._value("att_gm", like)
            + (territories * delays).sum(1)
            + self._value("watershed_delay", like) * watershed
            + self._value("distal_delay", like) * (artery_mm / ARTERY_REACH_MM - 1)
            + slow * like
            + fine * s["fine att"]
        )

    def _abv(self, s: dict[str, Array], gm: Array, csf: Array, maps: dict[str, Array]) -> Array:
        """Return the aBV of large arteries, their branches, vessels in sulci and vessels in GM."""
        xp = namespace(gm)
        distance = maps["artery_mm"]
        large = xp.exp(-((distance / self._value("artery_radius", gm)) ** 2))
        twigs = ridge(s["twig a"]) * ridge(s["twig b"])
        twigs = twigs * xp.exp(-distance / ARTERY_REACH_MM)
        uneven = xp.exp(0.5 * s["fine cbf"])
        abv = (
            self._value("artery_abv", gm) * large
            + self._value("twig_abv", gm) * twigs
            + self._value("sulcal_abv", gm) * 4 * gm * csf * uneven
            + self._value("tissue_abv", gm) * gm * uneven
        )
        return xp.clip(abv, 0, MAX_ABV) * maps["brain"]


def draw_subjects(rng: np.random.Generator, b: int) -> Subjects:
    """Draw the parameters of `b` random subjects."""
    lesions = draw_lesions(rng, b)

    def uniform(low: float, high: float, *axes: int) -> FloatArray:
        return rng.uniform(low, high, (b, *axes))

    lengths = [np.full(b, 45.0)] * 3 + [
        uniform(20, 40),
        uniform(5, 10),
        uniform(25, 45),
        uniform(7, 14),
        *[np.full(b, 14.0)] * 2,
    ]
    asymmetry = uniform(0, 0.2, 1, 1) * rng.standard_normal((b, 2, len(TERRITORY_DELAYS_S)))
    lengths_mm = np.concatenate([np.stack(lengths, -1), lesions.boundary_lengths_mm], -1)
    return Subjects(
        size=uniform(0.9, 1.12, 1) * uniform(0.95, 1.05, 3),
        sharpness=uniform(0, 1),
        cbf_gm=uniform(35, 95),
        wm_ratio=uniform(0.2, 0.5),
        att_gm=uniform(0.6, 1.7),
        att_wm_delay=uniform(0, 0.5),
        watershed_delay=uniform(0, 0.6),
        distal_delay=uniform(0, 0.2),
        territory_bias=0.5 * rng.standard_normal((b, len(TERRITORY_DELAYS_S))),
        territory_delays=(asymmetry + TERRITORY_DELAYS_S).reshape(b, -1),
        cbf_variation=uniform(0.05, 0.2, 2),
        att_variation=np.stack([uniform(0.05, 0.25), uniform(0.02, 0.12)], -1),
        artery_abv=uniform(0, 0.06),
        artery_radius=uniform(2, 5),
        twig_abv=uniform(0, 0.05),
        sulcal_abv=uniform(0, 0.015),
        tissue_abv=np.minimum(rng.exponential(0.002, b), 0.01),
        bolus_lead=uniform(0.05, 0.4),
        artery_lead=uniform(0, 0.4),
        lesions=lesions,
        random_fields=draw_random_fields(rng, lengths_mm),
    )


def draw_planes(rng: np.random.Generator, b: int, n: int, depth: int = 1) -> Planes:
    """Draw b stacks of `depth` parallel oblique planes in the brain.

    Planes have n x n pixels; pixel size, position, angles and spacing are random.
    """
    pixel, shift = rng.uniform(2.0, 4.5, b), rng.uniform(-12, 12, (2, b))
    tilt, turn = rng.uniform(-0.3, 0.3, b), rng.normal(0, 0.2, b)
    height = rng.uniform(*HEIGHTS_MM, b)
    line = (np.arange(n) - (n - 1) / 2) * pixel[:, None]
    along_x = np.stack([np.cos(turn), np.sin(turn), 0 * turn], -1)
    flat = np.stack([-np.sin(turn), np.cos(turn), 0 * turn], -1) * np.cos(tilt)[:, None]
    along_y = flat + np.sin(tilt)[:, None] * UP
    x = (line + shift[0, :, None])[..., None] * along_x[:, None]
    y = (line + shift[1, :, None])[..., None] * along_y[:, None] + height[:, None, None] * UP
    if depth == 1:
        return Planes(x, y)
    spacing = rng.uniform(*SPACINGS_MM, (b, 1)) * (np.arange(depth) - (depth - 1) / 2)
    steps = spacing[..., None] * np.cross(along_x, along_y)[:, None]
    return Planes(np.repeat(x, depth, axis=0), (y[:, None] + steps[:, :, None]).reshape(-1, n, 3))
