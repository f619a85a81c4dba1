"""Texts to token ids for open_clip, without the network and without `transformers`.

Letters: B batch, T tokens, as many as the model's context.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from triptych.encoders.open_clip.hub import hub_file
from triptych.encoders.open_clip.torchvision_guard import guarded_import
from triptych.errors import NotAvailable

logger = logging.getLogger(__name__)
open_clip: Any = guarded_import("open_clip")


class TokenIds(NamedTuple):
    ids_BT: NDArray[np.int64]
    mask_BT: NDArray[np.bool_]  # True up to and with the end token


class OpenClipTokenizer:
    """What a model of open_clip reads: padded to its context; a longer text keeps its end token."""

    def __init__(self, *, encode: Callable[[Sequence[str]], TokenIds], fingerprint: str) -> None:
        self._encode = encode
        self.fingerprint = fingerprint

    def __call__(self, texts: Sequence[str]) -> TokenIds:
        # a lone surrogate has no UTF-8
        tokens = self._encode([text.encode("utf-8", "replace").decode() for text in texts])
        num_full = int(tokens.mask_BT[:, -1].sum()) if len(texts) else 0
        if num_full:
            logger.info(
                "%d texts fill all %d tokens; what is beyond is cut.",
                num_full,
                tokens.mask_BT.shape[1],
            )
        return tokens


def tokenizer_of(text_config: dict[str, Any], *, beside: Path | None) -> OpenClipTokenizer:
    """Return the tokenizer of an architecture.

    Raises NotAvailable where it is neither part of open_clip, nor beside the weights, nor on the
    Hub within reach.
    """
    context = int(text_config.get("context_length", 77))
    options = dict(text_config.get("tokenizer_kwargs") or {})
    name = text_config.get("hf_tokenizer_name")
    if name:
        if text_config.get("tokenizer_mode") or options.get("strip_sep_token"):
            raise NotAvailable(f"The tokenizer of {name}, with rules of its own, is not supported.")
        return _from_json(_tokenizer_file(str(name), beside), context=context, options=options)
    simple = open_clip.SimpleTokenizer(context_length=context, **options)

    def encode(texts: Sequence[str]) -> TokenIds:
        ids_BT = simple(list(texts)).numpy()
        # the end token is the only one that is looked for: 0, the padding, is a word as well
        ends_B1 = (ids_BT == simple.eot_token_id).argmax(axis=1)[:, None]
        return TokenIds(ids_BT, np.arange(context) <= ends_B1)

    words = json.dumps([context, options, sorted(simple.encoder.items())])
    return OpenClipTokenizer(encode=encode, fingerprint=_sha256(words.encode()))


def _tokenizer_file(name: str, beside: Path | None) -> Path:
    """Return tokenizer.json beside the caller's file; without one, from the Hub or its cache."""
    hint = f"Put tokenizer.json and tokenizer_config.json of huggingface.co/{name} beside it."
    if beside is not None:
        file = beside.with_name("tokenizer.json")
        if not file.is_file():
            raise NotAvailable(f"The tokenizer of {beside.name} is not beside it.", hint=hint)
        return file
    hub_file(name, ["tokenizer_config.json"])  # read from beside the other
    return hub_file(name, ["tokenizer.json"])


def _from_json(path: Path, *, context: int, options: dict[str, Any]) -> OpenClipTokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    pad = _pad_token(path)
    pad_id = tokenizer.token_to_id(pad) or 0
    tokenizer.enable_truncation(context)
    tokenizer.enable_padding(length=context, pad_id=pad_id, pad_token=pad)
    cleaned = open_clip.tokenizer.get_clean_fn(options.get("clean", "whitespace"))

    def encode(texts: Sequence[str]) -> TokenIds:
        encodings = tokenizer.encode_batch([cleaned(text) for text in texts])
        ids_BT = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
        mask_BT = np.array([encoding.attention_mask for encoding in encodings], dtype=np.bool_)
        return TokenIds(ids_BT.reshape(-1, context), mask_BT.reshape(-1, context))

    about = json.dumps([context, options, pad]).encode()
    return OpenClipTokenizer(encode=encode, fingerprint=_sha256(about + path.read_bytes()))


def _pad_token(path: Path) -> str:
    """Return the padding token that tokenizer_config.json names, or the usual one."""
    config = path.with_name("tokenizer_config.json")
    token = json.loads(config.read_text("utf-8")).get("pad_token") if config.is_file() else None
    return str(token["content"] if isinstance(token, dict) else token or "<pad>")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
