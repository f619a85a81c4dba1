"""One score for a text and a picture from the states of their tokens: the reranker's model.

T texts, N pictures, Q text tokens, P patches, W width of what is compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from triptych.encoders.cross_modal.block import masked_softmax
from triptych.encoders.cross_modal.entrance import Entrance
from triptych.encoders.scorers.maxsim import maxsim, unit_tokens
from triptych.encoders.towers.states import TokenStates, check_states


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMatcherConfig:
    """The shape of the matcher."""

    text_width: int = 384
    picture_width: int = 1280
    width: int = 256  # of what is stored with an item and compared
    dropout: float = 0.2  # of the towers' states, in training


class TokenMatcher(nn.Module):
    """Late interaction (Khattab and Zaharia 2020) in a space of its own, with words that weigh.

    It reads the towers' states before anything else has: what was trained on top of them fits the
    pictures of training too well to tell unseen ones apart.
    """

    def __init__(self, config: TokenMatcherConfig) -> None:
        super().__init__()
        self.config = config
        self.enter_text = Entrance(config.text_width, inner=config.width)
        self.enter_picture = Entrance(config.picture_width, inner=config.width)
        self.weigh = nn.Linear(config.width, 1)  # how much a text token counts
        self.drop = nn.Dropout(config.dropout)
        self.log_scale = nn.Parameter(torch.tensor(20.0).log())
        # untrained, all tokens count as much
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)

    def text(self, states: TokenStates) -> TokenStates:
        """Return the unit states that a text is compared by, from those of the tower.

        Raises InvalidInput on shapes that do not fit, and on a token that is not finite.
        """
        check_states(states, self.config.text_width, what="text")
        return self._entered(self.enter_text, states)

    def picture(self, states: TokenStates) -> TokenStates:
        """Return the unit states that a picture is compared by, likewise."""
        check_states(states, self.config.picture_width, what="picture")
        return self._entered(self.enter_picture, states)

    def forward(self, text: TokenStates, picture: TokenStates) -> Tensor:
        """Return scores_TN of all pairs of what `text` and `picture` gave; higher is better.

        A pair of which a side has no token scores 0.
        """
        share_TQ = masked_softmax(self.weigh(text.tokens_BTD).squeeze(-1), text.mask_BT)
        return self.log_scale.exp() * maxsim(text, picture, share_QT=share_TQ)

    def _entered(self, entrance: Entrance, states: TokenStates) -> TokenStates:
        inner = entrance(TokenStates(self.drop(states.tokens_BTD), states.mask_BT))
        return TokenStates(unit_tokens(TokenStates(inner, states.mask_BT)), states.mask_BT)
