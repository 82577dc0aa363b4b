"""What one TransAct ranker is made of."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_repo.schema import SEQUENCE_LENGTH
from feature_repo.sequence import SURFACES
from training.models.pinnability import FeatureSpec


class Fusion(StrEnum):
    """How the candidate meets the user's actions."""

    CONCAT = "concat"
    """Early: beside every action (the paper)."""
    APPEND = "append"
    """As one more token, in front of the actions (BST)."""
    AVERAGE = "average pooling"
    """Not at all: the mean of the actions, no encoder."""
    NONE = "none"
    """No sequence."""


class Output(StrEnum):
    """Which columns of the encoder's output reach the ranker; the pooled one stands first."""

    RANDOM = "random"
    FIRST = "first"
    RANDOM_K = "random k"
    FIRST_K = "first k"
    ALL = "all"
    MAX = "max"
    FIRST_K_MAX = "first k + max"
    ALL_MAX = "all + max"

    @property
    def pooled(self) -> bool:
        return self in (Output.MAX, Output.FIRST_K_MAX, Output.ALL_MAX)

    @property
    def random(self) -> bool:
        return self in (Output.RANDOM, Output.RANDOM_K)

    def columns(self, k: int, length: int) -> int:
        """How many columns beside the pooled one."""
        if self in (Output.RANDOM, Output.FIRST):
            return 1
        if self in (Output.ALL, Output.ALL_MAX):
            return length
        return 0 if self is Output.MAX else min(k, length)


class SequenceConfig(BaseModel):
    """The sequence module; defaults are the paper's (section 3.3, arXiv 2306.00248)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fusion: Fusion = Fusion.CONCAT
    candidate_token: bool = False
    """Early fusion has the candidate as one more token in front as well: attention that finds nothing like the
    candidate among the actions goes there, and how much is left to the actions says how much was found."""
    output: Output = Output.FIRST_K_MAX
    length: int = Field(SEQUENCE_LENGTH, ge=1, le=4096)
    """Newest tokens read."""
    k: int = Field(10, ge=1)
    """Columns of the `k` outputs."""
    tokens: Literal["concat", "add"] = "concat"
    """An action's parts side by side, or added to the pin vectors (V2: width twice `pin_dim`)."""
    action_dim: int = Field(32, ge=0)
    """0 leaves action types out. Not read when parts are added."""
    surface_dim: int = Field(0, ge=0)
    """0 leaves surfaces out. When parts are added, any other number lets them in."""
    pin_dim: int = Field(32, ge=1)
    """What the content vector of a pin is projected to."""
    actions: int = Field(20, ge=1, le=126)
    """Largest action code. Code 0 is padding; a code beyond is an action of unknown kind."""
    surfaces: int = Field(len(SURFACES), ge=0)
    layers: int = Field(2, ge=1, le=24)
    heads: int = Field(1, ge=1)
    ffn: int = Field(32, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    positions: bool = False
    """A learned vector a place. The paper has none: it hurt hides."""
    causal: bool = False
    """A token sees only itself and older ones (V2)."""
    mask_hours: float = Field(24.0, ge=0)
    """In training, actions of the last T hours are hidden, T uniform in (0, mask_hours) an example."""

    @model_validator(mode="after")
    def _fits(self) -> SequenceConfig:
        if self.width % self.heads:
            raise ValueError(f"token width {self.width} is not a multiple of heads {self.heads}")
        return self

    @property
    def encodes(self) -> bool:
        return self.fusion in (Fusion.CONCAT, Fusion.APPEND)

    @property
    def leads(self) -> bool:
        """Whether a token of the candidate stands in front of the actions."""
        return self.fusion is Fusion.APPEND or (self.fusion is Fusion.CONCAT and self.candidate_token)

    @property
    def width(self) -> int:
        """d: width of a token."""
        candidate = self.pin_dim * (self.fusion is Fusion.CONCAT)
        if self.tokens == "add":
            return self.pin_dim + candidate
        return self.action_dim + self.surface_dim + self.pin_dim + candidate

    @property
    def places(self) -> int:
        """Tokens of one sequence, the candidate's own counted."""
        return self.length + self.leads

    @property
    def out(self) -> int:
        """Numbers the module gives a row."""
        if not self.encodes:
            return self.width * (self.fusion is Fusion.AVERAGE)
        return self.width * (self.output.pooled + self.output.columns(self.k, self.places))


class NextAction(BaseModel):
    """The next-action loss of V2: what a token says about the action after it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(0.01, gt=0)
    recent: int = Field(50, ge=2)
    """r: newest actions among which it is asked."""
    negatives: int = Field(16, ge=1)
    """Pins the user was shown and did not act on."""
    positives: tuple[int, ...] = Field(min_length=1)
    """Action codes that count as a positive."""


class Lifelong(BaseModel):
    """Which tokens of a long history a candidate is met with (V2; of 192 in all, the parts are ours)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: int = Field(16_000, ge=1)
    """Newest actions stored of a user, the realtime ones among them."""
    realtime: int = Field(100, ge=1)
    recent: int = Field(50, ge=0)
    """r: newest realtime actions, taken whatever the candidate."""
    nearest_lifelong: int = Field(64, ge=0)
    nearest_realtime: int = Field(39, ge=0)
    nearest_impressions: int = Field(39, ge=0)

    @property
    def tokens(self) -> int:
        """Tokens selected at most."""
        return self.recent + self.nearest_lifelong + self.nearest_realtime + self.nearest_impressions


class Head(BaseModel):
    """One answer: the probability of `action`, and how much a row counts for it by what the row was answered
    with (a row of M; section 3.2)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: str
    weights: dict[str, float] = {}
    """By action; `other` where it is not named."""
    other: float = Field(1.0, ge=0)
    base: float = Field(1.0, ge=0)
    """Of rows that no action answered. The paper's matrix has no such column, and they would teach nothing."""

    @model_validator(mode="after")
    def _counts(self) -> Head:
        wrong = {a: w for a, w in self.weights.items() if not w >= 0}
        if wrong:
            raise ValueError(f"head {self.action}: weights {wrong} are negative; 0 leaves such rows out")
        return self


class TransActConfig(BaseModel):
    """The whole ranker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: FeatureSpec = FeatureSpec()
    """Features beside the sequence, in order."""
    sequence: SequenceConfig = SequenceConfig()
    heads: tuple[Head, ...] = Field(min_length=1)
    user_dim: int = Field(0, ge=0)
    """Width of the user's long-term vector, PinnerFormer's for one; 0 reads none."""
    cross_layers: int = Field(2, ge=0)
    """Full-rank DCNv2 layers over everything."""
    deep: tuple[int, ...] = (256, 128)
    """Widths of the shared layers behind them."""
    wide: bool = False
    """Whether a head also adds up the features themselves (wide and deep, arXiv 1606.07792)."""
    pieces: int = Field(0, ge=0)
    """Pieces that the wide part cuts every feature into, each with as many training rows: what a head adds up
    of it bends between them (piecewise linear encoding, arXiv 2203.05556, section 3.2). 0: none."""
    head_dim: int = Field(0, ge=0)
    """Width of one hidden layer a head has to itself; 0 has none."""
    next_action: NextAction | None = None
    lifelong: Lifelong | None = None

    @model_validator(mode="after")
    def _agrees(self) -> TransActConfig:
        actions = [head.action for head in self.heads]
        if len(set(actions)) < len(actions):
            raise ValueError(f"two heads answer for the same action: {actions}")
        if self.pieces and not self.wide:
            raise ValueError("pieces of features are read by the wide part: set wide, or pieces to 0")
        if self.next_action is not None and not (self.sequence.causal and self.sequence.encodes):
            raise ValueError(
                "the next-action loss needs a causal encoder: set sequence.causal, or leave it out"
            )
        if self.lifelong is not None and self.lifelong.tokens > self.sequence.length:
            raise ValueError(
                f"a lifelong selection has {self.lifelong.tokens} tokens; "
                f"sequence.length is {self.sequence.length}"
            )
        return self

    @property
    def actions(self) -> tuple[str, ...]:
        """The action of each head, in the order of the output's columns."""
        return tuple(head.action for head in self.heads)

    @classmethod
    def v2(
        cls,
        heads: tuple[Head, ...],
        positives: tuple[int, ...],
        *,
        lifelong: Lifelong | None = None,
        **more: object,
    ) -> TransActConfig:
        """TransAct V2 (arXiv 2506.02267): lifelong selection, added parts, places, causal, next-action loss."""
        chosen = lifelong or Lifelong()
        sequence = SequenceConfig(
            length=chosen.tokens, tokens="add", surface_dim=1, positions=True, causal=True, mask_hours=0.0
        )
        recent = NextAction(positives=positives, recent=max(2, chosen.recent))
        return cls.model_validate(
            {"heads": heads, "sequence": sequence, "lifelong": chosen, "next_action": recent, **more}
        )
