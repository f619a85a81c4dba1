"""From a name to all that decides open_clip's vectors: architecture, weights, preprocessing."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from triptych.encoders.open_clip.hub import hub_file
from triptych.encoders.open_clip.torchvision_guard import guarded_import
from triptych.errors import InvalidInput, NotFound

logger = logging.getLogger(__name__)
open_clip: Any = guarded_import("open_clip")

RANDOM = "random"
_HUB_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode", "fill_color")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenClipRecipe:
    """What `open_clip:<architecture>:<tag, local file or "random">` stands for."""

    arch: str
    config: dict[str, Any]  # open_clip's own, of the architecture
    weights: Path | None  # None: random, for tests and timing
    preprocessing: dict[str, Any]  # open_clip's names; the size is the architecture's
    quick_gelu: bool
    is_local: bool

    @property
    def text_config(self) -> dict[str, Any]:
        return dict(self.config["text_cfg"])

    @property
    def local_file(self) -> Path | None:
        """The caller's own weights, None for downloaded and for random ones."""
        return self.weights if self.is_local else None

    def digest(self) -> str:
        """Return a hash of everything but the weights."""
        fields = asdict(self) | {"weights": None, "is_local": None}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def recipe_of(argument: str) -> OpenClipRecipe:
    """Return the recipe that `<architecture>:<tag, local file or "random">` names.

    Raises NotFound, InvalidInput, and NotAvailable where a tag's weights cannot be downloaded.
    A local file is read without the network; an `open_clip_config.json` beside it is heeded.
    """
    arch, _, source = argument.partition(":")
    config = _config(arch)
    tag = _tag(arch, source)
    is_local = source != RANDOM and not tag
    if not is_local:
        weights = _downloaded(tag) if tag else None
        chosen, quick_gelu = tag or _unanimous(arch, ""), bool(tag.get("quick_gelu"))
    else:
        weights = _local_file(arch, source)
        chosen, quick_gelu = _beside(weights) or (_unanimous(arch, weights.name), False)
        if not (quick_gelu or config.get("quick_gelu")):
            _warn_of_gelu(arch)
    return OpenClipRecipe(
        arch=arch,
        config=config,
        weights=weights,
        preprocessing={key: chosen[key] for key in _PREPROCESSING if key in chosen},
        quick_gelu=quick_gelu or bool(config.get("quick_gelu")),
        is_local=is_local,
    )


def _config(arch: str) -> dict[str, Any]:
    known = open_clip.list_models()
    if arch not in known:
        near = difflib.get_close_matches(arch, known, n=3, cutoff=0.3)
        raise NotFound(
            f"open_clip has no architecture {arch!r}.", hint=f"Near it: {', '.join(near)}."
        )
    return dict(open_clip.get_model_config(arch))


def _tag(arch: str, source: str) -> dict[str, Any]:
    """Return open_clip's entry for the pretrained tag `source`, empty for anything else."""
    return dict(open_clip.get_pretrained_cfg(arch, source)) if source else {}


def _downloaded(tag: dict[str, Any]) -> Path:
    """Return the weights of a tag; all tags of open_clip 3 are on the Hub."""
    repo, _, name = str(tag.get("hf_hub", "")).rpartition("/")
    if not name:
        return hub_file(repo, _HUB_NAMES)
    safe = Path(name).with_suffix(".safetensors").name
    return hub_file(repo, list(dict.fromkeys((safe, name))))


def _local_file(arch: str, source: str) -> Path:
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(arch)) or "none"
    hint = f"Tags of {arch}: {tags}. For tests: open_clip:{arch}:{RANDOM}"
    if not source:
        raise InvalidInput(
            f"The model name open_clip:{arch} has no weights, expected a tag or a file.", hint=hint
        )
    path = Path(source).expanduser()
    if not path.is_file():
        raise NotFound(f"{source!r} is neither a tag of {arch} nor a file.", hint=hint)
    # not resolved: what lies beside a link is not what lies beside its target
    return path.absolute()


def _beside(weights: Path) -> tuple[dict[str, Any], bool] | None:
    """Return preprocessing and QuickGELU from the file that open_clip writes beside weights."""
    path = weights.with_name("open_clip_config.json")
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text("utf-8"))
        return dict(config["preprocess_cfg"]), bool(config["model_cfg"].get("quick_gelu"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidInput(f"{path} is not a configuration of open_clip.") from None


def _unanimous(arch: str, file_name: str) -> dict[str, Any]:
    """Return the preprocessing that all weights of `arch` share.

    open_clip itself prepares pictures as OpenAI did for any weights that come from a file, which
    is wrong for SigLIP, CLIPA, PE and MobileCLIP and moves every vector (its issue 1068).
    """
    recipes: dict[str, dict[str, Any]] = {}
    for tag in open_clip.list_pretrained_tags_by_model(arch):
        entry = open_clip.get_pretrained_cfg(arch, tag)
        if tag in file_name.lower().replace("-", "_"):
            return dict(entry)
        key = json.dumps([entry.get(name) for name in _PREPROCESSING])
        recipes.setdefault(key, dict(entry))
    if len(recipes) > 1 and file_name:
        raise InvalidInput(
            f"Weights of {arch} are in use with {len(recipes)} ways to prepare pictures, "
            f"and {file_name!r} does not say which is its own.",
            hint="Put its open_clip_config.json beside it, or its tag into its name.",
        )
    return next(iter(recipes.values()), asdict(open_clip.transform.PreprocessCfg()))


def _warn_of_gelu(arch: str) -> None:
    if f"{arch}-quickgelu" in open_clip.list_models():
        logger.warning(
            "Weights of OpenAI, DFN and MetaCLIP need the architecture %s-quickgelu.", arch
        )
