"""Are scores right on the GPU? Against fp32 on the processor, alone against in company, shared against unshared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, count, islice

from tests.gpu import kit as kits
from tests.gpu.findings import Table, compare
from tests.gpu.kit import Kit, Served
from tests.gpu.texts import Sample, Texts

ENCODER, DECODER = "minilm-l12", "llama-39m"
# Encoders whose rows are padded, which are large enough for a processor to take its time.
PADDED = ("deberta-v3-base", "modernbert-base")
# What 16 bits may change of a score: some four times what they change of these models' with PyTorch on a processor.
TOLERANCE = {ENCODER: 1e-2, DECODER: 5e-2, **dict.fromkeys(PADDED, 1e-2)}
# In 32 bits, on a processor.
EXACT = 1e-4
# Prompts around the length of a block and their candidates, as tokens.
PROMPTS = (1, 7, 255, 256, 257, 300, 700)
CANDIDATES = (1, 2, 31, 128, 300)
# The same model again, with blocks for one of the longest texts or two: three of those take the place of all.
AGAIN, STRANGERS = "few-blocks", 3


def run(kit: Kit, table: Table, _served: Served | None) -> None:
    """Scores of four models by four ways."""
    samples = {ENCODER: _pairs(kit, ENCODER, 6), DECODER: _prompts(kit)}
    samples |= {name: _pairs(kit, name, 2) for name in PADDED}
    models = {name: name for name in samples}
    # In 32 bits and whole: rows that share nothing.
    reference = kit.linked("parity-reference", models, provider="cpu", as_on_gpu=False)
    with kits.serving(kit, reference, "--prefix-cache-mb", "0") as served:
        expected = {name: _each(served, name, samples[name]) for name in models}
    repository = kit.linked("parity", models, options=f"block_memory_mb = {4 if kit.tiny else 512}")
    kit.linked("parity", {AGAIN: DECODER}, options="block_memory_mb = 1")
    with kits.serving(kit, repository) as served:
        for name, wanted in expected.items():
            _compare(kit, table, served, name, samples[name], wanted)


def _pairs(kit: Kit, name: str, times: int) -> list[list[Sample]]:
    texts = Texts(kit.shapes[name], seed=3)
    most = 40 if kit.tiny else 250
    return texts.groups([7, 16, most] * (1 if kit.tiny else times), [1, 9, 17, 33, 48, most // 2, most])


def _prompts(kit: Kit) -> list[list[Sample]]:
    texts = Texts(kit.shapes[DECODER], seed=4)
    return texts.groups(PROMPTS[:5] if kit.tiny else PROMPTS, CANDIDATES[:3] if kit.tiny else CANDIDATES)


def _each(
    served: Served, model: str, groups: Sequence[Sequence[Sample]], strangers: Iterable[Sample] = ()
) -> list[float]:
    """Every sample in a request of its own, one after another: alone. One of each prompt after the other, behind
    strangers that take all blocks, so that nothing is known any more of a prompt that comes again."""
    found = []
    behind = iter(strangers)
    for candidates in zip(*groups, strict=True):
        for stranger in islice(behind, STRANGERS):
            served.scores(model, [stranger])
        found.append([served.scores(model, [sample])[0] for sample in candidates])
    return [score for scores in zip(*found, strict=True) for score in scores]


def _alone(kit: Kit, served: Served, name: str, groups: Sequence[Sequence[Sample]]) -> list[float]:
    if name != DECODER:
        return _each(served, name, groups)
    shape = kit.shapes[DECODER]
    texts = Texts(shape, seed=5)
    strangers = (texts.sample(texts.words(shape.longest - 1), texts.words(1)) for _ in count())
    return _each(served, AGAIN, groups, strangers)


def _compare(
    kit: Kit, table: Table, served: Served, name: str, groups: Sequence[Sequence[Sample]], expected: Sequence[float]
) -> None:
    card = served.card(name)
    if card["status"] != "ready":
        table.must(name, card.get("reason") or card["status"], "ready", holds=False)
        return
    packed = bool(card["graphs"][0].get("packed"))
    table.add(f"{name}: packed", str(packed).lower())
    # Padded rows compute in 16 bits wherever they do.
    tolerance = TOLERANCE[name] if kit.on_gpu or not packed else EXACT
    samples = list(chain.from_iterable(groups))
    # Shuffled, so that no candidate stands beside its own, and all at once: company of every kind.
    order = sorted(range(len(samples)), key=lambda at: at * 7919 % len(samples))
    mixed = served.scores(name, [samples[at] for at in order])
    placed = dict(zip(order, mixed, strict=True))
    together = [placed[at] for at in range(len(samples))]
    alone = _alone(kit, served, name, groups)
    by_group = [score for group in groups for score in served.scores(name, group)]
    if name == DECODER:
        known = served.metrics(AGAIN).get("karat_prefix_cached_tokens_total", 0.0)
        table.add(f"{name}: tokens that were known when scored alone", f"{known:.0f}", "0", holds=not known)
    numbers = [number for number, group in enumerate(groups) for _ in group]
    found = compare(expected, alone, numbers, tolerance)
    table.must(
        f"{name}: largest difference from the processor's fp32",
        f"{found.largest:.1e} (mean {found.mean:.1e})",
        f"<= {tolerance:g}",
        holds=found.largest <= tolerance,
    )
    table.must(
        f"{name}: clear pairs in another order", f"{found.swapped} of {found.clear}", "0", holds=not found.swapped
    )
    for what, others in (("alone / together", together), ("alone / with its prompt's other candidates", by_group)):
        moved = [abs(one - other) for one, other in zip(alone, others, strict=True)]
        table.must(f"{name}: {what}, at most", f"{max(moved):.1e}", f"<= {tolerance:g}", holds=max(moved) <= tolerance)
        same = sum(not difference for difference in moved)
        if kit.on_gpu and packed:
            table.add(f"{name}: {what}, bit-identical", f"{same} of {len(moved)}", "all", holds=same == len(moved))
    table.keep(name, {"expected": list(expected), "alone": alone, "together": together, "by_group": by_group})
