"""Whether conservative rules stop a reward from being over-optimised, on real answers.

`make study DATA=best-of-n-alpacaeval.jsonl.gz` runs all of it: it trains
Bradley-Terry ensembles on published judgements, serves them with karat, lets
karat score every answer to prompts that no head has seen, and draws what
picking the best of n by each rule does to the judgement that the heads imitate.

`docs/evidence.md` tells what came out. The data and every head trained on it
are CC BY-NC 4.0: they live under `.karat/study/` and never enter the repository.
"""
