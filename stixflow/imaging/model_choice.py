"""Which sources to fit: several models to the same visibilities, and the one that the data ask for.

The data centre's previews fit an ellipse below 16 keV and two circles above. Of 24 maps of real flares in 16-28 keV the
two circles had a parameter at a bound in 17, and one circle was the better model in 16: what is a double source there
is often one that is not resolved. So the information criterion chooses; the recipe of the previews is there by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.errors import UsageError
from stixflow.imaging.forward import Gaussian, Loop
from stixflow.imaging.forward_fit import Fits, ForwardFit, Kind, forward_fit
from stixflow.imaging.grids import FloatArray

Criterion = Literal["bic", "evidence"]
Rule = Literal["bic", "evidence", "preview"]

_PREVIEW_LIMIT_KEV = 16.0
"""Upper energy from which a preview shows two circles."""


@dataclass(frozen=True, slots=True)
class ChosenFit:
    """Parameters of a forward fit whose sources are chosen for every image.

    Parameters
    ----------
    rule
        "bic" for the candidate of the least Bayesian information criterion, "evidence" for that of the greatest
        evidence, "preview" for an ellipse below 16 keV and two circles above, as the data centre's previews.
    candidates
        Kinds of the sources of every candidate; "preview" does not ask for them.
    reach, largest, seed
        As of `ForwardFit`.

    Raises
    ------
    UsageError
        If there is no such rule, no candidate, or a candidate is not one.
    """

    rule: Rule = "bic"
    candidates: tuple[tuple[Kind, ...], ...] = (("circle",), ("ellipse",), ("circle", "circle"))
    reach: float = 100.0
    largest: float = 100.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rule not in ("bic", "evidence", "preview") or not self.candidates:
            raise UsageError(
                f"a chosen fit by the rule {self.rule!r} among {len(self.candidates)} candidates",
                expected="'bic', 'evidence' or 'preview', and at least one candidate",
                advice="correct the parameters",
            )
        self.models()

    def models(self) -> tuple[ForwardFit, ...]:
        """Return the fits to choose from."""
        kinds: tuple[tuple[Kind, ...], ...] = (("ellipse",), ("circle", "circle"))
        kinds = kinds if self.rule == "preview" else self.candidates
        return tuple(ForwardFit(one, reach=self.reach, largest=self.largest, seed=self.seed) for one in kinds)


class ModelChoice(NamedTuple):
    """Fits of several models to the same images, and which one to take."""

    candidates: tuple[ForwardFit, ...]
    fits: tuple[Fits, ...]
    """Of each candidate."""
    best: NDArray[np.intp]
    """(image,) index of the candidate to take."""
    bic: FloatArray
    """(image, candidate) for the errors as they are."""
    log_evidence: FloatArray
    """(image, candidate)"""

    def sources(self, image: int = 0) -> list[Gaussian | Loop]:
        """Sources of the best model of one image."""
        return self.fits[int(self.best[image])].sources(image)


def choose_model(
    data: xr.Dataset,
    candidates: Sequence[ForwardFit] = (
        ForwardFit(("circle",)),
        ForwardFit(("ellipse",)),
        ForwardFit(("loop",)),
        ForwardFit(("circle", "circle")),
    ),
    *,
    criterion: Criterion = "bic",
) -> ModelChoice:
    """Fit several models to each image of a set of visibilities and choose the one that the data ask for.

    Parameters
    ----------
    data
        From `visibilities` or `from_arrays`; positions are from its phase centre.
    criterion
        "bic" for the least Bayesian information criterion, where no candidate fits within the errors with errors
        enlarged until the best does; "evidence" for the greatest evidence (which needs a regular minimum: a candidate
        without is passed over).

    Raises
    ------
    UsageError
        If there is no candidate or no such criterion.
    """
    if not len(candidates) or criterion not in ("bic", "evidence"):
        raise UsageError(
            f"{len(candidates)} candidates, criterion {criterion!r}",
            expected="at least one ForwardFit(...); 'bic' or 'evidence'",
            advice="correct the call",
        )
    vis, sigma, u, v = (data[name].to_numpy() for name in ("visibility", "sigma", "u", "v"))
    fits = tuple(forward_fit(vis, sigma, u, v, candidate) for candidate in candidates)
    bic = np.stack([one.bic for one in fits], axis=1)
    log_evidence = np.stack([one.log_evidence for one in fits], axis=1)
    score = _scaled_bic(fits) if criterion == "bic" else -np.nan_to_num(log_evidence, nan=-np.inf)
    return ModelChoice(tuple(candidates), fits, score.argmin(axis=1), bic, log_evidence)


def _scaled_bic(fits: Sequence[Fits]) -> FloatArray:
    """BIC (image, candidate) with the errors enlarged until the best candidate fits with a reduced χ² of 1.

    No model fits real visibilities to within their errors; without this every further source would seem worth its
    parameters.
    """
    chi2 = np.stack([one.chi2 for one in fits], axis=1)
    reduced = chi2 / np.array([one.degrees_of_freedom for one in fits])
    penalty = np.stack([one.bic - one.chi2 for one in fits], axis=1)
    return np.asarray(chi2 / np.maximum(reduced.min(axis=1, keepdims=True), 1.0) + penalty)


def fit_chosen(data: xr.Dataset, parameters: ChosenFit) -> Iterator[tuple[NDArray[np.intp], Fits]]:
    """Yield the fits of every model that was chosen, with the images of a set that it was chosen for.

    Raises
    ------
    UsageError
        If the energies are not known that the rule asks for.
    """
    models = parameters.models()
    if parameters.rule == "preview":
        yield from _by_energy(data, models)
        return
    choice = choose_model(data, models, criterion=parameters.rule)
    for number, fits in enumerate(choice.fits):
        images = np.flatnonzero(choice.best == number)
        if images.size:
            yield images, fits.only(images)


def _by_energy(data: xr.Dataset, models: Sequence[ForwardFit]) -> Iterator[tuple[NDArray[np.intp], Fits]]:
    if "energy_high" not in data:
        raise UsageError(
            "the data do not say their energies",
            expected="`energy_high` of every image, which the recipe of the previews goes by",
            advice='choose the rule "bic", or fit the sources that you want',
        )
    is_high = data["energy_high"].to_numpy() >= _PREVIEW_LIMIT_KEV
    for model, chosen in zip(models, (~is_high, is_high), strict=True):
        images = np.flatnonzero(chosen)
        if images.size:
            part = data.isel(image=images)
            vis, sigma, u, v = (part[name].to_numpy() for name in ("visibility", "sigma", "u", "v"))
            yield images, forward_fit(vis, sigma, u, v, model)
