"""Every configuration that is known here, served by karat, against Transformers in 32 bits, eagerly.

`make compare-checkpoints TORCH=PYTHON [COMPARE="PART OF A NAME ..."]`, with a Python that has torch and transformers.
Checkpoints with small random weights are made of the configurations that tests use and of those that
published reward models have (`configurations.json`), which are shrunk in size alone. Ten texts are scored one by one,
in one request, and again when the server has seen them. Prints the largest difference of each; ends with 1 where one
is above the tolerance.

With `--rounded`, decoders are served as 16 bits would compute them (`form = "rounded"`), held to a tolerance of their
own, and clear pairs of texts have to stay in their order. Beside each stands how far Transformers in 16 bits is from
itself in 32, of the same checkpoint: random weights make some as sensitive as that. Which of the two comes out nearer
is chance for one checkpoint, and none for all of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, combinations
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from tests.checkpoints import heads, record, record_encoders, record_heads
from tests.checkpoints.small import CHECKPOINTS, SMALL, SPECIAL, Small
from tests.server_files import executable
from tools.server_process import ServerProcess

TOLERANCE = 1e-4
# Of what 16 bits make of a score, and how far apart two scores are that they mustn't put in another order.
ROUNDED, CLEAR = 5e-2, 0.1
# How many times Transformers' own difference that of one checkpoint may be, by how roundings happen to meet, and that
# of all of them in the geometric mean.
CHANCE, MEAN = 4.0, 1.1
CONFIGURATIONS = json.loads((Path(__file__).parent / "configurations.json").read_text())
Turns = list[tuple[str, str]]

SHARED = "A farmer has 17 sheep, and all but 9 run away. How many are left?"
SHORT: tuple[Turns, ...] = (
    [("user", "Hi"), ("assistant", "Hello!")],
    [("user", "?"), ("assistant", "Yes.")],
    [("user", "Ein Käse für Ångström?"), ("assistant", "価格は百円です。")],
    [("user", "What causes the tides?"), ("assistant", "The moon's gravity, and the sun's.")],
    [("user", SHARED), ("assistant", "9: all but 9 ran away.")],
    [("user", SHARED), ("assistant", "8, as 17 minus 9 is 8.")],
    [
        ("user", "Name a prime above 10."),
        ("assistant", "11"),
        ("user", "And above 100?"),
        ("assistant", "101 is prime: none of 2, 3, 5 and 7 divides it."),
    ],
    [("user", "Thanks!"), ("assistant", "You're welcome."), ("user", "Bye"), ("assistant", "Goodbye!")],
)


def texts(longest: int) -> tuple[Turns, ...]:
    """Ten conversations, two of which are as long as a model of `longest` bytes takes."""
    room = longest - 40
    filled = ("The tide comes in twice a day, and it leaves as often. " * (room // 20))[:room]
    return (
        *SHORT,
        [("user", filled[: room // 4]), ("assistant", filled[room // 4 :])],
        [("user", filled[: room // 4]), ("assistant", filled[room // 3 :])],
    )


def chat(steps: bool = False) -> Callable[[Turns], dict[str, Any]]:
    """How conversations are asked about; with a mark behind each step where `steps` are scored."""
    marked = Small("", "", rows=2 if steps else 1)
    return lambda turns: {"messages": record.messages_of(marked, turns)}


def pair(turns: Turns) -> dict[str, Any]:
    """How a question and its last answer are asked about."""
    return {"prompt": turns[0][1], "response": turns[-1][1]}


@dataclass(frozen=True)
class Reference:
    """What Transformers makes of a conversation, and the modules that it computes with."""

    score: Callable[[Turns], list[float]]
    modules: tuple[torch.nn.Module, ...] = ()

    def narrow(self) -> None:
        """From here on it computes in 16 bits. Tables of positions, which no file holds, stay in 32."""
        for tensor in chain.from_iterable(module.state_dict(keep_vars=True).values() for module in self.modules):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(torch.bfloat16)


@dataclass(frozen=True)
class Case:
    """A checkpoint to be made, and what is asked of it."""

    name: str
    # Writes the checkpoint into a folder.
    make: Callable[[Path], Reference]
    # A conversation as an input of `POST /v1/score`.
    ask: Callable[[Turns], dict[str, Any]]
    # How many bytes a text may have.
    longest: int = 200


def decoder(small: Small, longest: int = 200) -> Case:
    """A decoder with a head."""

    def make(folder: Path) -> Reference:
        tokens, reference = record.make(small, folder)

        def score(turns: Turns) -> list[float]:
            text = tokens.apply_chat_template(record.messages_of(small, turns), tokenize=False)
            return reference.score(tokens(text, add_special_tokens=False)["input_ids"])

        return Reference(score, reference.modules)

    return Case(small.name, make, chat(steps=small.rows == 2), longest)


def encoder(name: str, kind: str, made: transformers.PreTrainedConfig, longest: int = 200) -> Case:
    """An encoder of pairs."""

    def make(folder: Path) -> Reference:
        encode, score = record_encoders.make(name, kind, made, folder)
        return Reference(lambda turns: [score(encode(turns[0][1], turns[-1][1]))])

    return Case(name, make, pair, longest)


def language_model(name: str, kind: str, file: dict[str, Any]) -> Case:
    """A language model, whose reward is the mean of its tokens' log-probabilities."""

    def make(folder: Path) -> Reference:
        torch.manual_seed(sum(map(ord, name)))
        made = getattr(transformers, f"{kind}Config").from_dict(file | {"initializer_range": 0.2})
        made._attn_implementation = "eager"
        model = getattr(transformers, f"{kind}ForCausalLM")(made).eval()
        record.spread(model)
        folder.mkdir(parents=True)
        tensors = {key: value.to(torch.bfloat16).contiguous() for key, value in model.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")
        model.load_state_dict({key: value.float() for key, value in tensors.items()})
        (folder / "config.json").write_text(json.dumps(file, indent=1))
        tokens = record.save_tokenizer(folder)

        def score(turns: Turns) -> list[float]:
            messages = [{"role": role, "content": content} for role, content in turns]
            text = tokens.apply_chat_template(messages, tokenize=False)
            ids = tokens(text, add_special_tokens=False)["input_ids"]
            # A token a byte, and one that ends the response.
            end, count = len(ids) - 1, len(turns[-1][1].encode())
            odds = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double(), dim=-1)
            places = range(end - count, end)
            return [sum(odds[place - 1, ids[place]].item() for place in places) / count]

        return Reference(score, (model,))

    return Case(name, make, chat(), LONG)


# How many bytes a text of a published model may have here.
LONG = 2000
# How a published model's file becomes a case.
Published = Callable[[str, dict[str, Any]], Case]


def shrunk(file: dict[str, Any]) -> dict[str, Any]:
    """A configuration with fewer and narrower layers, everything else being as it was."""
    heads, kv_heads = file["num_attention_heads"], file.get("num_key_value_heads")
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4}
    sizes["num_attention_heads"] = 8
    if kv_heads is not None:
        sizes["num_key_value_heads"] = max(1, 8 * kv_heads // heads)
    if "head_dim" in file:
        sizes["head_dim"] = 16
    if "pooler_hidden_size" in file:
        sizes["pooler_hidden_size"] = 64
    return file | sizes


def scored(model_type: str, head: str = "score", rows: int = 1) -> Published:
    """A decoder with a head in the words of `record`."""
    return lambda name, file: decoder(Small(name, model_type, head=head, rows=rows, file=file), LONG)


def by_its_authors(model: str, head: Callable[[dict[str, Any]], Callable[[], torch.nn.Module]]) -> Published:
    """A decoder whose head Transformers doesn't have, in the words of `record_heads`."""
    [known] = [one for one in record_heads.MODELS if one.name == model]

    def published(name: str, file: dict[str, Any]) -> Case:
        # The head's own sizes are those of the recorded ones.
        sizes = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
        small = file | {size: SMALL[size] for size in sizes}
        if "gating_hidden_dim" in file:
            small["gating_hidden_dim"] = 8
        if "reward_token_id" in file:
            small["reward_token_id"] = len(SPECIAL) + 256

        def make(folder: Path) -> Reference:
            authors = record_heads.make(replace(known, name=name, head=head(small)), folder, small)

            def score(turns: Turns) -> list[float]:
                messages = [{"role": role, "content": content} for role, content in turns]
                return [known.score(authors, messages)["reward"]]

            return Reference(score, (authors.trunk, authors.top))

        return Case(name, make, chat(), LONG)

    return published


def gating(file: dict[str, Any]) -> Callable[[], torch.nn.Module]:
    """The network that ArmoRM and QRM weigh objectives by."""
    return lambda: heads.Gating(
        file["num_objectives"],
        file["gating_hidden_dim"],
        file.get("num_quantiles", 1),
        # Of ArmoRM the number counts what lies before the last layer, of QRM as well.
        file["gating_n_hidden"],
        float(file["gating_temperature"]),
    )


def of_pairs(name: str, file: dict[str, Any]) -> Case:
    """A DeBERTa."""
    made = transformers.DebertaV2Config.from_dict(file | {"initializer_range": 0.2, "num_labels": 1})
    return encoder(name, "DebertaV2", made, longest=400)


# One without an entry isn't compared, and the table says so.
PUBLISHED: dict[str, Published] = {
    "Skywork-Reward-Llama-3.1-8B": scored("llama"),
    "OpenRLHF Llama classifier with mean and std": scored("llama"),
    "GRM Llama-3.1-8B rewardmodel-ft": scored("llama", head="v_head.summary"),
    "Qwen2.5-Math-PRM-7B": scored("qwen2", head="score.mlp", rows=2),
    "Qwen2.5-Math-RM-72B": scored("qwen2", head="score.mlp"),
    "Skywork-Reward-Gemma-2-27B": scored("gemma2"),
    "ArmoRM": by_its_authors("armorm", gating),
    "QRM-Llama3.1-8B": by_its_authors("qrm", gating),
    "internlm2-1_8b-reward": by_its_authors("internlm2-reward", lambda _: heads.named("v_head", heads.linear())),
    "DeBERTa-v3-large pair classifier": of_pairs,
    "Mistral-7B-v0.1 language model (Math-Shepherd's base)": lambda name, file: language_model(name, "Mistral", file),
}


def cases() -> Iterator[tuple[str, Case | None]]:
    """Every configuration by name; `None` for one that can't be made yet."""
    for small in CHECKPOINTS:
        # The one whose longer texts are turned otherwise is bounded.
        yield small.name, decoder(small, longest=120 if small.name == "phi3-longrope" else 200)
    for name, kind, changes in record_encoders.ENCODERS:
        yield name, encoder(name, kind, record_encoders.configuration(kind, changes))
    for name, file in CONFIGURATIONS.items():
        known = PUBLISHED.get(name)
        yield name, known(name, shrunk(file)) if known else None


def folder_of(name: str) -> str:
    """The name that the model is served under."""
    return "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in name).strip("-.")


class NotServed(Exception):
    """The server refuses."""


def served(url: str, case: Case, asked: list[Turns]) -> list[list[float]]:
    """What the server gives for conversations, in one request.

    Raises NotServed with what the server says.
    """
    inputs = [case.ask(turns) for turns in asked]
    body = json.dumps({"model": folder_of(case.name), "inputs": inputs, "include": ["steps"]}).encode()
    request = urllib.request.Request(f"{url}/v1/score", body, {"content-type": "application/json"})  # noqa: S310 - ours
    try:
        with urllib.request.urlopen(request, timeout=600) as reply:  # noqa: S310 - a server that was started here
            results = json.load(reply)["results"]
    except urllib.error.HTTPError as error:
        raise NotServed(error.read().decode()) from error
    return [
        result["steps"]["scores"] if (result.get("steps") or {}).get("scores") else [result["raw"]]
        for result in results
    ]


def difference(found: list[list[float]], wanted: list[list[float]]) -> float:
    """The largest difference between two lists of scores of the same shape."""
    if [len(row) for row in found] != [len(row) for row in wanted]:
        return float("inf")
    pairs = zip(chain.from_iterable(found), chain.from_iterable(wanted), strict=True)
    # A number that is none is no small difference.
    return max(gap if gap >= 0 else float("inf") for gap in (abs(ours - theirs) for ours, theirs in pairs))


@dataclass(frozen=True)
class Compared:
    """What came of one checkpoint."""

    # The largest differences of texts one by one, in one request, and behind what the prefix cache then holds.
    differences: list[float]
    # How many clear pairs of texts stand in another order.
    swapped: int
    # How far apart the reference's scores are.
    spread: float
    # The largest difference of Transformers in 16 bits; none where 32 are compared.
    theirs: float | None

    def is_within_tolerance(self) -> bool:
        """Whether the scores are near enough, and in their order."""
        allowed = TOLERANCE if self.theirs is None else max(ROUNDED, CHANCE * self.theirs)
        return max(self.differences) <= allowed and self.swapped == 0


def compared(url: str, case: Case, reference: Reference, rounds: bool) -> Compared:
    """Scores all texts, and again in other company; where it `rounds`, so does the reference, which then stays so."""
    asked = list(texts(case.longest))
    wanted = [reference.score(turns) for turns in asked]
    alone = [scores for turns in asked for scores in served(url, case, [turns])]
    together = served(url, case, asked[::-1])[::-1]
    again = served(url, case, asked)
    theirs = None
    if rounds:
        reference.narrow()
        theirs = difference([reference.score(turns) for turns in asked], wanted)
    last = [row[-1] for row in wanted]
    return Compared(
        differences=[difference(scores, wanted) for scores in (alone, together, again)],
        swapped=swapped([row[-1] for row in alone], last),
        spread=max(last) - min(last),
        theirs=theirs,
    )


def round_off(folder: Path) -> bool:
    """Has a checkpoint served as 16 bits would compute it; false where it has no such form."""
    inspected = subprocess.run([executable(), "inspect", folder], capture_output=True, text=True, check=False)
    manifest = folder / "model.toml"
    if not manifest.exists():
        lines = inspected.stdout.splitlines(keepends=True)
        manifest.write_text("".join(line for line in lines if not line.startswith("#")))
    written = manifest.read_text()
    manifest.write_text(written.replace("[graph]", '[graph]\nform = "rounded"', 1))
    return "NVIDIA GPU" in inspected.stdout and 'render = "pair"' not in written


def swapped(found: list[float], wanted: list[float]) -> int:
    """How many clear pairs of scores stand in another order."""
    pairs = combinations(zip(found, wanted, strict=True), 2)
    return sum(abs(b[1] - a[1]) > CLEAR and (b[0] - a[0]) * (b[1] - a[1]) <= 0 for a, b in pairs)


def main() -> None:
    """Makes, serves and compares."""
    rounds = "--rounded" in sys.argv
    words = [word.lower() for word in sys.argv[1:] if word != "--rounded"]
    chosen = [(name, case) for name, case in cases() if not words or any(word in name.lower() for word in words)]
    known = [case for _, case in chosen if case is not None]
    width = max((len(name) for name, _ in chosen), default=0)
    worst = 0.0
    failed: list[str] = []
    rounded: list[float] = []
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as models, torch.no_grad():
        references = {case.name: case.make(Path(models) / folder_of(case.name)) for case in known}
        if rounds:
            known = [case for case in known if round_off(Path(models) / folder_of(case.name))]
            served_here = {case.name for case in known}
            chosen = [(name, case) for name, case in chosen if case is not None and case.name in served_here]
        columns = ["alone", "together", "again", "swapped"] + ["spread", "Transformers"] * rounds
        print(" " * width + "".join(f"  {column:>8}" for column in columns))
        # Nothing is answered from the memory of scores.
        with ServerProcess(executable(), Path(models), "--cache-mb", "0") as server:
            for name, case in chosen:
                if case is None:
                    print(f"{name:{width}}  not compared: nothing here makes such a checkpoint")
                    continue
                try:
                    found = compared(server.url, case, references[name], rounds)
                except NotServed as refusal:
                    print(f"{name:{width}}  ! {refusal}")
                    failed.append(name)
                    continue
                worst = max(worst, *found.differences)
                mark = "" if found.is_within_tolerance() else "  !"
                failed.extend([name] if mark else [])
                numbers = "".join(f"{gap:10.1e}" for gap in found.differences) + f"{found.swapped:10}"
                if found.theirs is not None:
                    numbers += f"{found.spread:10.1e}{found.theirs:14.1e}"
                    rounded.append(max(found.differences))
                    ratios.append(rounded[-1] / found.theirs)
                print(f"{name:{width}}{numbers}{mark}", flush=True)
    print(f"{len(known)} checkpoints, largest difference {worst:.1e}; {len(failed)} beyond what is allowed")
    if ratios:
        mean = geometric_mean(ratios)
        above = sum(largest > ROUNDED for largest in rounded)
        print(f"{above} above {ROUNDED}; {mean:.2f} times the differences of Transformers, in the geometric mean")
        # A few say nothing of all.
        failed.extend(["the mean"] if mean > MEAN and not words else [])
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
