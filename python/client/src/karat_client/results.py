"""What comes back, as values that hold what they say: every reward is a finite number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from karat_client.errors import InvalidInput, RequestRefused

Refusal: TypeAlias = "InvalidInput | RequestRefused"
"""Why one input wasn't scored."""


@dataclass(frozen=True)
class Ensemble:
    """What an ensemble says about one input; of a model with one member, mean and worst case are its score."""

    mean: float
    """The mean of the members."""
    worst_case: float
    """The lowest member."""
    variance: float
    """The population variance of the members."""
    members: tuple[float, ...] | None = None
    """Each member's score, if `include=["members"]` asked for it."""

    @property
    def disagreement(self) -> float:
        """The population standard deviation of the members."""
        return math.sqrt(self.variance)


@dataclass(frozen=True)
class Cut:
    """How many tokens the truncation policy removed."""

    prompt_tokens: int
    response_tokens: int


@dataclass(frozen=True)
class ScoreResult:
    """The reward of one input."""

    index: int
    """The input's place in the caller's list, counted from 0."""
    reward: float
    """The aggregate after all transforms."""
    raw: float
    """The aggregate before any transform."""
    ensemble: Ensemble
    """What the members say, whatever the aggregation."""
    tokens: int
    """The length in tokens, after any truncation."""
    cut: Cut | None
    """What was cut; None when nothing was."""
    objectives: Mapping[str, float] | None = None
    """The score of each objective, if `include=["objectives"]` asked for them and there are several; of a composite,
    the reward of each of its models."""

    @property
    def truncated(self) -> bool:
        """Whether anything was cut."""
        return self.cut is not None


@dataclass(frozen=True)
class Usage:
    """What a call cost, summed over its requests."""

    tokens: int
    """The tokens of all inputs."""
    cached_tokens: int
    """Those of them that needed no forward pass of their own."""


@dataclass(frozen=True)
class Scores:
    """The rewards of one call, in the order of its inputs."""

    model: str
    model_version: str
    """Exactly which model scored: a digest over its manifest, graphs and tokenizer."""
    results: tuple[ScoreResult, ...]
    usage: Usage
    request_ids: tuple[str, ...]
    """The ids of the requests that the call was split into, for the server's log."""

    @property
    def rewards(self) -> list[float]:
        """The rewards alone."""
        return [result.reward for result in self.results]


@dataclass(frozen=True)
class PartialScores:
    """The rewards of one call of which some inputs may have been refused, in the order of its inputs."""

    model: str
    model_version: str | None
    """Exactly which model scored; None when nothing was scored."""
    results: tuple[ScoreResult | Refusal, ...]
    """A result, or why there is none, for each input."""
    usage: Usage
    request_ids: tuple[str, ...]
    """The ids of the requests that the call was split into, for the server's log."""

    @property
    def rewards(self) -> list[float | None]:
        """The rewards alone, None for what was refused."""
        return [result.reward if isinstance(result, ScoreResult) else None for result in self.results]

    @property
    def refusals(self) -> list[Refusal]:
        """Why inputs were refused, in their order; each has the `index` of its input."""
        return [result for result in self.results if not isinstance(result, ScoreResult)]


@dataclass(frozen=True)
class Pending:
    """An input whose reward isn't known yet: it is queued, and known when it is asked for some time later."""

    index: int
    """The input's place in the caller's list, counted from 0."""


@dataclass(frozen=True)
class KnownScores:
    """The rewards that the server knew when it was asked, in the order of the call's inputs."""

    model: str
    model_version: str
    """Exactly which model scored."""
    results: tuple[ScoreResult | Pending, ...]
    usage: Usage
    request_ids: tuple[str, ...]
    """The ids of the requests that the call was split into, for the server's log."""

    @property
    def rewards(self) -> list[float | None]:
        """The rewards alone, None for what isn't known yet: it is never 0."""
        return [result.reward if isinstance(result, ScoreResult) else None for result in self.results]

    @property
    def pending(self) -> list[int]:
        """The places of the inputs whose rewards aren't known yet."""
        return [result.index for result in self.results if isinstance(result, Pending)]


@dataclass(frozen=True)
class Placement:
    """One candidate's place in a ranking."""

    index: int
    """The candidate's place in the caller's list."""
    rank: int
    """1 for the best; tied candidates share the best rank among them."""
    reward: float
    behind: float
    """How much it lacks to the best, at least 0."""
    ahead: float | None
    """How much it leads the next one, at least 0; None for the last."""


@dataclass(frozen=True)
class CurvePoint:
    """What the best of n candidates is expected to be worth, estimated without bias."""

    n: int
    reward: float
    divergence: float
    """How far choosing among n moves the policy, in nats."""


@dataclass(frozen=True)
class EmbeddedBy:
    """What embedded the candidates, so that a rule could look for diversity."""

    model: str
    model_version: str


@dataclass(frozen=True)
class Ranking:
    """Candidates for one prompt, and which of them the rule picks."""

    model: str
    model_version: str
    selected: tuple[int, ...]
    """The picked candidates' places in the caller's list, the most wanted first; empty when none is good enough."""
    probabilities: tuple[float, ...] | None
    """With which probability each candidate would have been picked first, where chance decided."""
    placements: tuple[Placement, ...]
    """All candidates, best first; equal rewards keep the order of the candidates."""
    results: tuple[ScoreResult, ...]
    """The results in the order of the candidates."""
    pareto_front: tuple[int, ...] | None
    """The candidates that no other one beats in every objective; None when there is one objective."""
    curve: tuple[CurvePoint, ...] | None
    """What the best of n is expected to be worth for every n, if `curve=True` asked for it."""
    embedding: EmbeddedBy | None
    """What embedded the candidates, if `embedding_model` named it."""
    usage: Usage
    request_id: str

    @property
    def best(self) -> ScoreResult | None:
        """The first candidate that the rule picks; None when none is good enough."""
        return self.results[self.selected[0]] if self.selected else None

    @property
    def ranked(self) -> list[ScoreResult]:
        """The results by falling reward."""
        return [self.results[placement.index] for placement in self.placements]

    @property
    def margin(self) -> float | None:
        """How much the candidate with the highest reward leads the next one; None when there is only one."""
        return self.placements[0].ahead


@dataclass(frozen=True)
class Strength:
    """How strongly an ensemble's members agree with a preference."""

    mean: float
    """The mean over the members of chosen less rejected."""
    deviation: float
    """Its population standard deviation."""


@dataclass(frozen=True)
class Comparison:
    """A chosen response against a rejected one."""

    index: int
    """The pair's place in the caller's list, counted from 0."""
    margin: float
    """The chosen reward less the rejected one; of a model that judges both together, its preference's log-odds."""
    probability: float
    """The probability that the chosen one is preferred: the sigmoid of the margin.

    It means what it says where rewards are on the scale of log-odds, as Bradley and Terry's loss makes them.
    """
    strength: Strength
    unanimous: bool
    """Whether all members put the same response first."""
    reward_difference: float | None
    """The margin divided by `beta`, if that was given."""
    suggestion: str | None
    """`flip`, `ambiguous`, `keep` or `smooth`, by the `cuts` that were given."""
    chosen: ScoreResult | None
    """None of models that judge both responses together."""
    rejected: ScoreResult | None
    judged: ScoreResult | None
    """What a model that judges both together says: `reward` is its preference for the chosen one, from 0 to 1."""
    orders: tuple[float, ...] | None = None
    """Of a judge that was asked in both orders: its preference with the chosen one first, and with it second."""


@dataclass(frozen=True)
class Comparisons:
    """Pairs of one call, in the order of the caller's list."""

    model: str
    model_version: str
    pairs: tuple[Comparison, ...]
    usage: Usage
    request_ids: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """The share of pairs whose chosen response has the higher reward; a tie counts as wrong."""
        return sum(pair.margin > 0 for pair in self.pairs) / len(self.pairs)


@dataclass(frozen=True)
class ProcessResult:
    """The rewards of one solution's steps."""

    index: int
    """The solution's place in the caller's list, counted from 0."""
    scores: tuple[float, ...]
    """The score of each step, as the model's head gives it."""
    rewards: tuple[float, ...]
    """The reward of each step after the transforms."""
    returns_to_go: tuple[float, ...]
    """What a policy still earns from each step on: that step's reward and all later ones."""
    reductions: Mapping[str, float]
    """What each way to make one number of the scores gives, such as `min` and `product`."""
    reward: float
    """The reward of the whole solution after the transforms."""
    raw: float
    """The head's own reduction, before any transform."""
    tokens: int
    cut: Cut | None


@dataclass(frozen=True)
class ProcessScores:
    """The solutions of one call, in the order of the caller's list."""

    model: str
    model_version: str
    results: tuple[ProcessResult, ...]
    usage: Usage
    request_ids: tuple[str, ...]


@dataclass(frozen=True)
class TokenReward:
    """The reward of one token of a response."""

    position: int
    """The token's place in the model's input."""
    start: int | None
    """Where the token's characters begin in the response, in Unicode code points, as Python counts; None if unknown."""
    end: int | None
    """Where they end; `response[start:end]` is the token's text."""
    reward: float


@dataclass(frozen=True)
class TokenResult:
    """The rewards of one response's tokens."""

    index: int
    """The response's place in the caller's list, counted from 0."""
    token_rewards: tuple[TokenReward, ...]
    """Of each token that stands for text."""
    reward: float
    """The reward of the whole response after the transforms."""
    raw: float
    """The head's own reward of the whole response, before any transform."""
    tokens: int
    cut: Cut | None


@dataclass(frozen=True)
class TokenScores:
    """The responses of one call, in the order of the caller's list."""

    model: str
    model_version: str
    results: tuple[TokenResult, ...]
    usage: Usage
    request_ids: tuple[str, ...]


@dataclass(frozen=True)
class CritiqueText:
    """The next letters of a critique that is being written."""

    index: int
    """Which critique, counted from 0."""
    text: str


@dataclass(frozen=True)
class Critique:
    """One complete critique."""

    index: int
    """Which, counted from 0."""
    text: str
    finish: str
    """Why it ended: the model ended it (`end`), it was as long as it may be (`length`), or a stop string (`stop`)."""
    tokens: int
    """How many tokens were generated."""
    rating: float | None
    """The number that the model wrote; None when none was found or the model writes none."""


@dataclass(frozen=True)
class Critiques:
    """The critiques of one response, and its score with them in view."""

    model: str
    """The model that wrote."""
    model_version: str
    critiques: tuple[Critique, ...]
    reward: float | None
    """The mean of the rewards; None when no score was asked for or all critiques are empty."""
    rating: float | None
    """The mean of the ratings that were found; None when none was."""
    scores: tuple[ScoreResult, ...]
    """A score for each critique that isn't empty; `index` says which."""
    scorer: str | None
    """The model that scored, if one did."""
    scorer_version: str | None
    prompt_tokens: int
    generated_tokens: int
    request_id: str
