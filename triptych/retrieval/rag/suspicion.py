"""Does a text speak to a language model instead of a person?

A list of phrases finds the clumsy ones only. The defence is that everything retrieved is marked as
data (see context.py); this tells a person where to look.
"""

from __future__ import annotations

import re

_ORDERS = re.compile(
    r"""(?:ignore|disregard|forget|override|bypass)\s+(?:\w+\s+){0,3}?
        (?:previous|prior|above|earlier|preceding|system)\s+(?:\w+\s+)?
        (?:instructions?|prompts?|messages?|rules|directions|context)
    | (?:ignorier\w*|vergiss|missachte\w*)\s+(?:\w+\s+){0,3}?
        (?:vorherig\w*|bisherig\w*|obig\w*|früher\w*|vorig\w*)\s+(?:\w+\s+)?
        (?:anweisung\w*|instruktion\w*|regeln|befehl\w*)
    | \byou\s+are\s+now\s+(?:an?|the|in)\b
    | \b(?:reveal|print|repeat|show)\s+(?:\w+\s+){0,2}?system\s+prompt
    | \bdo\s+not\s+(?:tell|inform|mention\s+\w+\s+to)\s+the\s+user\b
    | <\|?(?:im_start|im_end|system|endoftext)\|?> | \[/?INST\] | <</?SYS>>""",
    re.IGNORECASE | re.VERBOSE,
)


def order_in(text: str) -> str | None:
    """Return the first words that look like an order to a language model, if any."""
    found = _ORDERS.search(text)
    return None if found is None else " ".join(found[0].split())
