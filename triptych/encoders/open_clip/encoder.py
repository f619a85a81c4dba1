"""Any model of open_clip: its own preprocessing, unit vectors, patch and text token states.

Letters: B batch, T tokens or patches, D model width, N items, M embedding width, H W
rows and columns of patches.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from triptych.encoders.base import unit_rows
from triptych.encoders.dual import DualStates
from triptych.encoders.open_clip.recipe import OpenClipRecipe, recipe_of
from triptych.encoders.open_clip.tokenizer import tokenizer_of
from triptych.encoders.open_clip.torchvision_guard import guarded_import
from triptych.encoders.towers.states import TokenStates, unpadded
from triptych.errors import InvalidInput, NotAvailable
from triptych.types import Matrix

open_clip: Any = guarded_import("open_clip")

_TEXTS = 64  # texts in one run of the tower
_MANY_LANGUAGES = ("siglip2", "i18n", "xlm", "mt5", "nllb")


class OpenClipModel(DualStates):
    """An EmbeddingModel with token states."""

    def __init__(self, name: str, *, recipe: OpenClipRecipe) -> None:
        self._tokenizer = tokenizer_of(recipe.text_config, beside=recipe.local_file)
        self._model = _built(recipe)
        config = open_clip.transform.PreprocessCfg(
            **open_clip.get_model_preprocess_cfg(self._model)
        )
        self._prepare = open_clip.transform.image_transform_v2(config, is_train=False)
        self._crops = config.resize_mode == "shortest"
        self.picture_size = int(np.max(config.size))
        self.name = name
        self.dim = int(recipe.config["embed_dim"])
        is_multilingual = any(part in recipe.arch.lower() for part in _MANY_LANGUAGES)
        self.languages = ("mul",) if is_multilingual else ("en",)
        parts = (recipe.digest(), self._tokenizer.fingerprint, _weights_digest(recipe, self._model))
        self.fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @classmethod
    def from_name(cls, argument: str, *, threads: int = 1) -> Self:
        """Return the model `open_clip:<architecture>:<tag, local file or "random">`.

        Raises NotFound, InvalidInput, NotAvailable.
        """
        return cls(f"open_clip:{argument}", recipe=recipe_of(argument))

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Matrix:
        """Return emb_NM, unit rows."""
        emb_NM = np.zeros((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), _TEXTS):
            chunk = slice(start, start + _TEXTS)
            ids_BT = torch.from_numpy(self._tokenizer(texts[chunk]).ids_BT)
            emb_NM[chunk] = self._model.encode_text(ids_BT).numpy()
        return unit_rows(emb_NM)

    @torch.inference_mode()
    def embed_pictures(self, pictures: Sequence[Image]) -> Matrix:
        """Return emb_NM, unit rows."""
        if not pictures:
            return np.zeros((0, self.dim), dtype=np.float32)
        return unit_rows(self._model.encode_image(self._pixels(pictures)).numpy())

    @property
    def token_width(self) -> int:
        """M: the projections of the towers serve their tokens as well."""
        for side in ("text", "image"):
            self._projection(side)
        return self.dim

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> TokenStates:
        """Return the states of the tower, for cross-modal attention; T is the model's context.

        Raises NotAvailable for a text tower that does not give them.
        """
        ids_BT, mask_BT = self._tokenizer(texts)
        states_BTD = self._last_states("text", text=torch.from_numpy(ids_BT), text_indices=1)
        return TokenStates(states_BTD, torch.from_numpy(mask_BT))

    @torch.inference_mode()
    def encode_pictures(self, pictures: Sequence[Image]) -> TokenStates:
        """Return the same of the patches, row by row.

        Raises NotAvailable for a picture tower that does not give them.
        """
        map_BDHW = self._last_states("image", image=self._pixels(pictures), image_indices=1)
        return unpadded(map_BDHW.flatten(2).transpose(1, 2).contiguous())

    @torch.inference_mode()
    def text_states(self, texts: Sequence[str]) -> list[Matrix]:
        """Return the projected states of each text's tokens, padding left out."""
        return [
            row
            for start in range(0, len(texts), _TEXTS)
            for row in self._projected("text", self.encode_texts(texts[start : start + _TEXTS]))
        ]

    @torch.inference_mode()
    def picture_states(self, pictures: Sequence[Image]) -> list[Matrix]:
        """Return the projected states of each picture's patches."""
        return self._projected("image", self.encode_pictures(pictures)) if pictures else []

    def _projected(self, side: str, states: TokenStates) -> list[Matrix]:
        tokens_BTM = (states.tokens_BTD @ self._projection(side)).numpy()
        both = zip(tokens_BTM, states.mask_BT.numpy(), strict=True)
        return [unit_rows(tokens_TM[mask_T]) for tokens_TM, mask_T in both]

    def _projection(self, side: str) -> Tensor:
        """Return projection_DM of a tower; raises NotAvailable where it is no plain matrix."""
        if side == "image":
            found = getattr(self._model.visual, "proj", None)
        else:
            tower = getattr(self._model, "text", self._model)
            found = getattr(tower, "text_projection", None)
        if isinstance(found, torch.nn.Linear) and getattr(found, "bias", None) is None:
            return found.weight.T
        if isinstance(found, Tensor):
            return found
        raise NotAvailable(
            f"{self.name} has no plain projection of {side}s, so it gives no token states.",
            hint="Take a ViT of CLIP's own kind, or do without tokens.",
        )

    def _last_states(self, side: str, **inputs: Any) -> Tensor:
        """Return the states of a tower's last layer, normalised, without a class token."""
        try:
            given = self._model.forward_intermediates(normalize_intermediates=True, **inputs)
            states: Tensor = given[f"{side}_intermediates"][-1]
        except (AttributeError, NotImplementedError, KeyError, AssertionError):
            raise NotAvailable(f"{self.name} gives no token states for {side}s.") from None
        return states

    def _pixels(self, pictures: Sequence[Image]) -> Tensor:
        return torch.stack([self._prepare(self._trimmed(picture)) for picture in pictures])

    def _trimmed(self, picture: Image) -> Image:
        """Return the middle of a strip; resized by its short side it could fill the memory."""
        width, height = picture.size
        longest = 4 * min(width, height)
        if not self._crops or max(width, height) <= 2 * longest:
            return picture
        left, top = max(width - longest, 0) // 2, max(height - longest, 0) // 2
        return picture.crop((left, top, width - left, height - top))


def _built(recipe: OpenClipRecipe) -> Any:
    """Return the model in eval mode, its weights loaded; raises InvalidInput for a bad file."""
    if recipe.text_config.get("hf_model_name"):
        raise NotAvailable(f"{recipe.arch} has a text tower of transformers, not supported.")
    options = {"force_quick_gelu": recipe.quick_gelu, "force_preprocess_cfg": recipe.preprocessing}
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model(recipe.arch, **options)
        if recipe.weights is not None:
            _load(model, recipe.weights)
    return model.eval().requires_grad_(False)


def _load(model: Any, weights: Path) -> None:
    try:
        open_clip.load_checkpoint(model, str(weights), strict=True, weights_only=True)
    # torch, safetensors and pickle have a dozen errors for a file of another kind
    except Exception as error:
        raise InvalidInput(
            f"{weights.name} does not hold weights of this architecture ({type(error).__name__}).",
            hint="Give .safetensors, or a state_dict that torch loads with weights_only.",
        ) from None


def _weights_digest(recipe: OpenClipRecipe, model: Any) -> str:
    if recipe.weights is not None:
        with recipe.weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip's calls of `logging.warning` from being shown, and from setting up logging.

    It warns of random weights before ours are loaded. What goes to other loggers passes by.
    """
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)
    root.addFilter(_none)
    try:
        yield
    finally:
        root.removeFilter(_none)
        root.removeHandler(silent)


def _none(record: logging.LogRecord) -> bool:
    return False
