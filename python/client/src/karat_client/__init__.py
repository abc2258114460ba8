"""A typed client for karat, the reward-model inference server.

    from karat_client import Client
    from karat_client.aggregates import uncertainty_weighted

    with Client("http://127.0.0.1:8080", model="harmless") as client:
        scores = client.score(
            prompts="How long does it take to boil an egg?",
            responses=["About seven minutes.", "Hens lay fewer eggs in winter."],
            aggregate=uncertainty_weighted(0.5),
        )
        print(scores.rewards, scores.model_version)

`AsyncClient` has the same methods for use with `await`. Every reward is a finite number from the model version that
the result names; what can't be had is an exception out of `karat_client.errors`.

Ready callables are in modules of their own, none of which needs its framework to be installed here:
`karat_client.trl`, `karat_client.verl`, `karat_client.ms_swift`, `karat_client.rewardbench`, `karat_client.ray_data`.
"""

from karat_client.async_client import AsyncClient
from karat_client.client import Client
from karat_client.errors import KaratError, Problem
from karat_client.images import Image
from karat_client.inputs import Message
from karat_client.jobs import Job, JobResult, JobResults
from karat_client.options import ClientOptions, CritiqueOptions, PartOptions, ScoreOptions, Settings
from karat_client.results import (
    Comparison,
    Comparisons,
    Critique,
    Critiques,
    CritiqueText,
    CurvePoint,
    Cut,
    EmbeddedBy,
    Ensemble,
    KnownScores,
    PartialScores,
    Pending,
    Placement,
    ProcessResult,
    ProcessScores,
    Ranking,
    ScoreResult,
    Scores,
    Strength,
    TokenResult,
    TokenReward,
    TokenScores,
    Usage,
)
from karat_client.retry import Retry
from karat_client.runs import Outcome, OutcomesTold, Run, RunModel, Signal
from karat_client.server import Health, ModelCard
from karat_client.streams import AsyncCritiqueStream, CritiqueStream

__all__ = [
    "AsyncClient",
    "AsyncCritiqueStream",
    "Client",
    "ClientOptions",
    "Comparison",
    "Comparisons",
    "Critique",
    "CritiqueOptions",
    "CritiqueStream",
    "CritiqueText",
    "Critiques",
    "CurvePoint",
    "Cut",
    "EmbeddedBy",
    "Ensemble",
    "Health",
    "Image",
    "Job",
    "JobResult",
    "JobResults",
    "KaratError",
    "KnownScores",
    "Message",
    "ModelCard",
    "Outcome",
    "OutcomesTold",
    "PartOptions",
    "PartialScores",
    "Pending",
    "Placement",
    "Problem",
    "ProcessResult",
    "ProcessScores",
    "Ranking",
    "Retry",
    "Run",
    "RunModel",
    "ScoreOptions",
    "ScoreResult",
    "Scores",
    "Settings",
    "Signal",
    "Strength",
    "TokenResult",
    "TokenReward",
    "TokenScores",
    "Usage",
]
