"""When a request is sent again, and after how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Retry:
    """Exponential back-off with jitter.

    Sent again: what got no reply, and 429, 502, 503 and 504. Other errors are final. Scoring changes nothing on
    the server, and a job that is sent again is the same job, so sending again is safe. A 429 that says when to
    come back is waited out as long as the call's timeout allows and doesn't count as an attempt: the server is well,
    and asks for patience.
    """

    attempts: int = 8
    """How often a request is sent at most."""
    first: float = 0.25
    """The pause after the first failure, in seconds, before jitter."""
    factor: float = 2.0
    """How much longer each pause is than the one before."""
    longest: float = 20.0
    """No pause is longer, unless the server asks for it; in seconds."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first < 0 or self.factor < 1 or self.longest < 0:
            raise ValueError(f"{self}: write attempts and factor of at least 1, and pauses of at least 0")

    def pause(self, failures: int, retry_after: float | None, jitter: float) -> float:
        """How long to wait after that many failures, in seconds.

        `jitter` lies in 0..1. Half of a pause is random; what the server asks for is never undercut, and stretched
        by up to a tenth, so that clients who were refused together don't come back together.
        """
        if retry_after is not None:
            return retry_after * (1.0 + 0.1 * jitter)
        # Beyond 2^64 the pause has long reached its limit, and the power would overflow.
        pause = min(self.longest, self.first * self.factor ** min(failures - 1, 64))
        return pause * (0.5 + 0.5 * jitter)
