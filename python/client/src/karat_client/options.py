"""How inputs are scored, and how the client works: the parameters that several calls share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from karat_client.retry import Retry

if TYPE_CHECKING:
    import ssl

    from karat_client.rules import Rule

    AnyRule: TypeAlias = "str | Rule"

Truncation: TypeAlias = Literal["refuse", "prompt_start", "response_end"]
Priority: TypeAlias = Literal["low", "normal", "high"]
Include: TypeAlias = Literal["members", "objectives"]


class RuleOptions(TypedDict, total=False):
    """How inputs are scored. What is left out is as the model's manifest says."""

    aggregate: AnyRule | None
    """How the members' scores become one: a name or one of `karat_client.aggregates`."""
    transforms: Sequence[AnyRule] | None
    """What happens to the reward after that, in order: names or `karat_client.transforms`; nothing when empty."""
    truncation: Truncation | None
    """What happens to samples that are longer than the model takes."""
    priority: Priority
    """Requests of a higher priority go first."""
    timeout: float
    """The seconds that the whole call may take, all attempts included, if not the client's."""
    run: str | None
    """The training run that the inputs belong to, of which the server keeps statistics."""
    step: int | None
    """The run's step."""
    task: str | None
    """What the inputs are of, where a run has several tasks."""


class ScoringOptions(RuleOptions, total=False):
    """How inputs are scored, and what is told of them."""

    include: Iterable[Include]
    """What to add to each result."""


class PartOptions(RuleOptions, total=False):
    """What a call that scores the parts of responses may say beyond its inputs."""

    model: str
    """The model's name, if it isn't the client's."""


class ScoreOptions(ScoringOptions, total=False):
    """What a call may say beyond its inputs."""

    model: str
    """The model's name, if it isn't the client's."""


class CritiqueOptions(ScoreOptions, total=False):
    """What a call for critiques may say; the rules are for the score."""

    critiques: int
    """How many to write; several need a temperature above 0."""
    temperature: float
    """0 always takes the likeliest token; 1 draws by the model's own probabilities."""
    top_p: float
    """Draws out of the fewest likeliest tokens that make up this share of the probability."""
    seed: int
    """What the draws depend on; the n-th critique is what `seed` + n gives alone."""
    max_tokens: int
    """The most tokens of each critique."""
    stop: Sequence[str]
    """Texts that end a critique, and aren't part of it."""
    scorer: str
    """The model that scores, if it isn't the one that writes."""
    score: bool
    """Whether to score at all."""


class ClientOptions(TypedDict, total=False):
    """What a client may be told beyond its address and model; `Settings` holds the defaults."""

    timeout: float
    """The seconds that one call may take in all, attempts and pauses included."""
    retry: Retry
    """When a request is sent again."""
    max_inputs: int
    """A longer list is split into requests of at most so many inputs. The answers to one prompt stay together."""
    max_bytes: int
    """A list with more bytes of JSON than that is split, too."""
    max_concurrency: int
    """How many requests are on their way at once, of all calls together."""
    headers: Mapping[str, str]
    """Sent with every request, such as an `Authorization`."""
    api_key: str | None
    """The key for a server that wants one."""
    verify: ssl.SSLContext | str | bool
    """How TLS certificates are checked, as httpx takes it. A context doesn't pickle."""


class RewardOptions(ScoringOptions, ClientOptions, total=False):
    """What a ready callable may be told beyond its address and model."""


@dataclass(frozen=True)
class Settings:
    """How a client reaches its server; picklable, so that it can travel to other processes.

    `url` is the server's address, such as `http://127.0.0.1:8080`; a path in it stays in front of every route.
    `model` scores unless a call names another. The rest is described at `ClientOptions`.
    """

    url: str
    model: str | None = None
    timeout: float = 300.0
    retry: Retry = field(default_factory=Retry)
    max_inputs: int = 64
    max_bytes: int = 8 << 20
    max_concurrency: int = 16
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    api_key: str | None = field(default=None, repr=False)
    verify: ssl.SSLContext | str | bool = True

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url is {self.url!r}; write it with its scheme, such as http://127.0.0.1:8080")
        check_timeout(self.timeout)
        for name in ("max_inputs", "max_bytes", "max_concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


def check_timeout(seconds: float) -> float:
    """The same seconds. Raises ValueError unless they are finite and above 0: every call ends."""
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"timeout is {seconds}; write a finite number of seconds above 0")
    return seconds


def split_options(url: str, model: str, options: RewardOptions) -> tuple[Settings, ScoreOptions]:
    """What of a callable's options is the client's, and what goes with every call.

    Raises TypeError for an option that doesn't exist.
    """
    scoring = {name: value for name, value in options.items() if name in _SCORING_ONLY}
    connection = {name: value for name, value in options.items() if name not in _SCORING_ONLY}
    return Settings(url, model, **connection), ScoreOptions(**scoring)  # type: ignore[arg-type,typeddict-item]


_SCORING_ONLY = ScoringOptions.__annotations__.keys() - ClientOptions.__annotations__.keys()


_CRITIQUE_ONLY = CritiqueOptions.__annotations__.keys() - ScoreOptions.__annotations__.keys()


def critique_fields(options: CritiqueOptions, default_model: str | None) -> dict[str, Any]:
    """As `request_fields`, of a request for critiques."""
    own = {name: value for name, value in options.items() if name in _CRITIQUE_ONLY and value is not None}
    if isinstance(own.get("stop"), str):
        raise ValueError("stop is a list; put a single text into a list")
    shared = {name: value for name, value in options.items() if name not in _CRITIQUE_ONLY}
    return {**request_fields(ScoreOptions(**shared), default_model), **own}  # type: ignore[typeddict-item]


def request_fields(options: ScoreOptions | PartOptions, default_model: str | None) -> dict[str, Any]:
    """The fields of a request but for its inputs and its time.

    Raises ValueError when no model is named, and TypeError for an option that doesn't exist.
    """
    unknown = options.keys() - ScoreOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
    model = options.get("model") or default_model
    if not model:
        raise ValueError("no model is named; pass model=… to the call or to the client")
    aggregate, transforms = options.get("aggregate"), options.get("transforms")
    include: Any = options.get("include", ())
    fields = {
        "model": model,
        "aggregate": aggregate,
        "transforms": None if transforms is None else list(transforms),
        "truncation": options.get("truncation"),
        "include": sorted(set(include)) or None,
        "priority": options.get("priority"),
        "run": options.get("run"),
        "step": options.get("step"),
        "task": options.get("task"),
    }
    return {name: value for name, value in fields.items() if value is not None}
