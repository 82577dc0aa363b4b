"""Which trained versions belong together: the newest spaces, and what was trained in them."""

from __future__ import annotations

import math
from pathlib import Path

from training.context import TrainingContext
from training.models.calibration import CalibrationMismatch, Calibrator
from training.models.ranker import NotARanker, Ranker, load_calibrator, load_ranker
from training.pipelines import ads as ads_pipeline
from training.pipelines import content as content_pipeline
from training.pipelines import lexical as lexical_pipeline
from training.pipelines import light as light_pipeline
from training.pipelines import pinnersage as pinnersage_pipeline
from training.pipelines import pinsage as pinsage_pipeline
from training.pipelines import pixie as pixie_pipeline
from training.pipelines import retrievers
from training.pipelines import searchsage as searchsage_pipeline
from training.pipelines import transact as transact_pipeline
from training.pipelines.content import content_part
from training.pipelines.lexical import lexical_part
from training.pipelines.pinnability import Kind
from training.pipelines.pinsage import pinsage_part
from training.pipelines.pixie import pixie_part
from training.pipelines.retrievers import LEARNED, PINNERFORMER, retriever_part
from training.pipelines.search_space import PIN_SPACE_TAG
from training.pipelines.searchsage import searchsage_part
from training.pipelines.transact_card import USER_SPACE_TAG
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import ADS, Part, Space
from validation.tables import ADS as ADS_TABLE

CONTENT, PINSAGE, PIXIE, PINNERSAGE, RANKER = "content", "pinsage", "pixie", "pinnersage", "ranker"
"""Roles of the parts beside the learned retrievers, whose roles are their models' names (`LEARNED`)."""

LIGHT = "light"
"""Role of the trees that order candidates before heavy ranking."""

LEXICAL = lexical_pipeline.MODEL
"""Role of the index that search finds words with."""

SEARCHSAGE = searchsage_pipeline.MODEL
"""Role of the encoder that search finds meaning with, and of the space of pins that it maps queries into."""

MAKERS = (CONTENT, PINSAGE, SEARCHSAGE, *LEARNED)
"""Roles whose parts make a space of their own."""

LEVEL = 0.01
"""Log losses no further apart than this share of the lowest are level: seeds differ as much on a day's rows."""

RANKERS = (*(kind.model for kind in Kind), transact_pipeline.MODEL)
"""Registered models that can be the ranker."""


class ReleaseError(RuntimeError):
    """A release cannot be composed or found; the message says what to run first."""


def registry_of(ctx: TrainingContext) -> Registry:
    """The registry of a training context."""
    return Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)


def newest_parts(ctx: TrainingContext) -> tuple[dict[str, Part], dict[str, str]]:
    """(parts by role, what is left out and why): the newest content space and what was trained on it.

    Of the newest ranker of each kind that was trained in that space, the one with the lowest `log_loss` is
    taken: that of its calibrated chance of any positive action, which every kind foretells, at serving's
    position, on the newest test days; a version tested on earlier ones is passed over. One that reads users'
    vectors of a PinnerFormer which is not of the release cannot be. Raises ReleaseError where there is no
    content space, or where later parts exist but only for an older space (the training run stopped halfway).
    """
    registry = registry_of(ctx)
    version = registry.trained(content_pipeline.MODEL)
    if version is None:
        raise ReleaseError("no content space is registered; run `corkboard train` first")
    content = content_part(registry, version)
    if content.metrics.get("content_coverage") == 0:
        why = f"{content.model}@{content.version} found no words, topics, domain or embedding in any pin"
        roles = (CONTENT, LEXICAL, PINSAGE, SEARCHSAGE, PIXIE, *LEARNED, PINNERSAGE, RANKER, LIGHT, ADS)
        return {}, dict.fromkeys(roles, why)
    space = space_of(content)
    pinsage = _pinsage(registry, space)
    known: dict[str, str] = {}
    if pinsage is not None and (short := pinsage_pipeline.shortfall(pinsage)):
        known[PINSAGE], pinsage = short, None
    learned = {name: _learned(registry, name, space) for name in LEARNED}
    for name, part in learned.items():
        if part is not None and (short := retrievers.shortfall(part)):
            known[name], learned[name] = short, None
    ads = _in_space(registry, ads_pipeline.MODEL, space)
    if ads is not None and (short := ads_pipeline.shortfall(ads)):
        known[ADS], ads = short, None
    searchsage = _searchsage(registry, space_of(pinsage or content))
    if searchsage is not None and (short := searchsage_pipeline.shortfall(searchsage)):
        known[SEARCHSAGE], searchsage = short, None
    found: dict[str, Part | None] = {
        CONTENT: content,
        LEXICAL: _lexical(registry),
        PINSAGE: pinsage,
        SEARCHSAGE: searchsage,
        PIXIE: _pixie(registry, space),
        **learned,
        PINNERSAGE: _pinnersage(registry, space_of(pinsage or content)),
        RANKER: _ranker(registry, space, learned[PINNERFORMER]),
        ADS: ads,
    }
    over = light_pipeline.weights_named(registry, {r: part for r, part in found.items() if part is not None})
    known[LIGHT] = f"no light ranker is trained over the scores of {over or 'rules alone'}"
    found[LIGHT] = _light(registry, over)
    if ads is None and not Lake(ctx.lake).has(ADS_TABLE.name):
        del found[ADS]  # nothing is sponsored, so that nothing is left out
    absent = [role for role, part in found.items() if part is None]
    skipped = {role: known.get(role) or _why_absent(registry, role, space) for role in absent}
    return {role: part for role, part in found.items() if part is not None}, skipped


def similar_pins(registry: Registry) -> tuple[Part, Part]:
    """(the newest content space, the space that similar pins are served from: PinSage's where it is released).

    Raises ReleaseError where there is no content space.
    """
    version = registry.trained(content_pipeline.MODEL)
    if version is None:
        raise ReleaseError("no content space is registered; run `corkboard train` first")
    content = content_part(registry, version)
    pinsage = _pinsage(registry, space_of(content))
    served = pinsage is not None and pinsage_pipeline.shortfall(pinsage) is None
    return content, pinsage if pinsage is not None and served else content


def newest_sources(ctx: TrainingContext) -> dict[str, Part]:
    """The parts of `newest_parts` that are candidate sources, by role."""
    parts, _ = newest_parts(ctx)
    return {role: parts[role] for role in light_pipeline.ROLES if role in parts}


def _light(registry: Registry, over: str) -> Part | None:
    """The newest light ranker that reads scores of exactly these sources' weights."""
    version = _newest(registry, light_pipeline.MODEL, light_pipeline.SOURCES_TAG, over)
    return None if version is None else light_pipeline.light_part(registry, version)


def _lexical(registry: Registry) -> Part | None:
    """The newest: it stands on no space."""
    version = registry.latest(lexical_pipeline.MODEL)
    return None if version is None else lexical_part(registry, version)


def _pinsage(registry: Registry, content_space: str) -> Part | None:
    version = _newest(registry, pinsage_pipeline.MODEL, "content_space", content_space)
    return None if version is None else pinsage_part(registry, version)


def _searchsage(registry: Registry, space: str) -> Part | None:
    version = _newest(registry, searchsage_pipeline.MODEL, PIN_SPACE_TAG, space)
    return None if version is None else searchsage_part(registry, version)


def _pixie(registry: Registry, content_space: str) -> Part | None:
    version = _newest(registry, pixie_pipeline.MODEL, "content_space", content_space)
    return None if version is None else pixie_part(registry, version)


def _learned(registry: Registry, model: str, content_space: str) -> Part | None:
    version = _newest(registry, model, "content_space", content_space)
    return None if version is None else retriever_part(registry, model, version)


def _pinnersage(registry: Registry, space: str) -> Part | None:
    """PinnerSage searches the collection of the space it lives in."""
    version = _newest(registry, pinnersage_pipeline.MODEL, "space", space)
    if version is None:
        return None
    part = _part_in(registry, pinnersage_pipeline.MODEL, version, space)
    return part.model_copy(update={"collection": Space.parse(space).collection})


def _in_space(registry: Registry, model: str, space: str) -> Part | None:
    version = _newest(registry, model, "space", space)
    return None if version is None else _part_in(registry, model, version, space)


def _ranker(registry: Registry, space: str, former: Part | None) -> Part | None:
    """Of the newest ranker of each kind that can serve beside `former`, the one with the lowest log loss on the
    newest test days: losses of other days say nothing beside it. Of several within LEVEL of the lowest, the one
    with most heads: utility weighs actions, and a ranker of one head knows one."""
    newest = {model: _newest(registry, model, "space", space) for model in RANKERS}
    users = {None, None if former is None else former.space}
    trained = [
        _part_in(registry, model, version, space)
        for model, version in newest.items()
        if version is not None and _tag(registry, model, version, USER_SPACE_TAG) in users
    ]
    tested = [registry.params(part.model, part.version).get("test", "") for part in trained]
    shared = [part for part, days in zip(trained, tested, strict=True) if days == max(tested)]
    losses = [part.metrics.get("log_loss", math.inf) for part in shared]
    level = [
        (part, loss) for part, loss in zip(shared, losses, strict=True) if loss <= (1 + LEVEL) * min(losses)
    ]
    return max(level, key=lambda found: (_heads(found[0]), -found[1]))[0] if level else None


def _heads(part: Part) -> int:
    """Actions that the part's card has an AUC of."""
    return sum(name.startswith("heads/") and name.endswith("/auc") for name in part.metrics)


def space_of(part: Part) -> str:
    """The part's space. Raises ReleaseError where it names none."""
    if part.space is None:
        raise ReleaseError(f"{part.model}@{part.version} names no space")
    return part.space


def calibrated_ranker(files: Path, part: Part) -> tuple[Ranker, Calibrator]:
    """A version's ranker and the calibrator fitted for it. Raises ReleaseError where there is none, or where
    it was fitted for another version or other heads."""
    ranker = load_ranker(files)
    try:
        return ranker, load_calibrator(files, f"{part.model}@{part.version}", ranker.heads)
    except (NotARanker, CalibrationMismatch) as error:
        raise ReleaseError(f"{error}; run `corkboard train --model {part.model} --force`") from error


def _why_absent(registry: Registry, role: str, space: str) -> str:
    """Why a role has no part. Raises ReleaseError where the run that made the space stopped before it."""
    # All but the last two are made before PinnerSage, so that a run that went on without them left them out; a
    # release does without the last two.
    if role in (LEXICAL, PINSAGE, SEARCHSAGE, PIXIE, *LEARNED, ADS):
        return "the last training run left it out"
    models = {PINNERSAGE: (pinnersage_pipeline.MODEL,), RANKER: RANKERS}[role]
    behind = [f"{model}@{v}" for model in models if (v := registry.latest(model)) is not None]
    if behind:
        raise ReleaseError(
            f"the newest space is {space}, and {' and '.join(behind)} belongs to an older one; "
            "run `corkboard train` to finish the training run"
        )
    return "no version is registered"


def _newest(registry: Registry, model: str, tag: str, value: str) -> int | None:
    """The model's newest version whose `tag` says `value`, or None."""
    versions = reversed(registry.versions(model))
    return next((v for v in versions if _tag(registry, model, v, tag) == value), None)


def _part_in(registry: Registry, model: str, version: int, space: str) -> Part:
    """A part that lives in a space it does not make."""
    return Part(
        model=model,
        version=version,
        space=space,
        feature_service=_tag(registry, model, version, "feature_service"),
        metrics=registry.metrics(model, version),
    )


def _tag(registry: Registry, model: str, version: int, tag: str) -> str | None:
    return registry.version(model, version).tags.get(tag)
