"""Files of open_clip models on the Hugging Face Hub: what is in its cache needs no network."""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from triptych.errors import NotAvailable

logger = logging.getLogger(__name__)
hub: Any = import_module("huggingface_hub")

_HINT = "Download the model elsewhere, and name its weights file."


def hub_file(repo: str, names: Sequence[str]) -> Path:
    """Return the first of `names` that `repo` holds: from the cache, else downloaded.

    Raises NotAvailable.
    """
    for name in names:
        cached = hub.try_to_load_from_cache(repo, name)
        if isinstance(cached, str):
            return Path(cached)
    _require_network(repo)
    for name in names:
        try:
            logger.info("Downloading %s of %s.", name, repo)
            return Path(hub.hf_hub_download(repo, name))
        except hub.errors.EntryNotFoundError:
            continue
        # whatever else its client raises: gone, gated, connection lost, disk full
        except Exception as error:
            why = type(error).__name__
            raise NotAvailable(f"{repo} could not be downloaded ({why}).", hint=_HINT) from None
    raise NotAvailable(f"{repo} has none of {', '.join(names)}.", hint=_HINT)


def _require_network(repo: str) -> None:
    """Raise NotAvailable at once; the Hub's own client tries for minutes, whoever is offline."""
    endpoint = str(hub.constants.ENDPOINT)
    if hub.constants.HF_HUB_OFFLINE or not endpoint.startswith("https://"):
        raise NotAvailable(f"{repo} is not in the Hub's cache, and it is offline.", hint=_HINT)
    try:
        request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
    except urllib.error.HTTPError:
        return  # it answers
    except OSError:
        message = f"{repo} is not in the Hub's cache, and {endpoint} cannot be reached."
        raise NotAvailable(message, hint=_HINT) from None
