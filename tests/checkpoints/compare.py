"""Every configuration that is known here, served by karat, against Transformers in 32 bits, eagerly.

`PYTHONPATH=python PYTHON -m tests.checkpoints.compare [PART OF A NAME ...]`, with a Python that has torch and
transformers. Checkpoints with small random weights are made of the configurations that tests use and of those that
published reward models have (`configurations.json`), which are shrunk in size alone. Ten texts are scored one by one,
in one request, and again when the server has seen them. Prints the largest difference of each; ends with 1 where one
is above the tolerance.
"""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from tests.checkpoints import record, record_encoders
from tests.server_files import executable
from tools.server_process import ServerProcess

TOLERANCE = 1e-4
CONFIGURATIONS = json.loads((Path(__file__).parent / "configurations.json").read_text())
Turns = list[tuple[str, str]]
# What Transformers makes of a conversation.
Reference = Callable[[Turns], list[float]]

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


@dataclass(frozen=True)
class Case:
    """A checkpoint to be made, and what is asked of it."""

    name: str
    # Writes the checkpoint into a folder.
    make: Callable[[Path], Reference]
    # How many bytes a text may have.
    longest: int = 200
    pairs: bool = False


def decoder(small: record.Small) -> Callable[[Path], Reference]:
    """A decoder with a head."""

    def make(folder: Path) -> Reference:
        encoder, score = record.make(small, folder)

        def reference(turns: Turns) -> list[float]:
            text = encoder.apply_chat_template(record.messages_of(small, turns), tokenize=False)
            return score(encoder(text, add_special_tokens=False)["input_ids"])

        return reference

    return make


def encoder(name: str, kind: str, made: transformers.PreTrainedConfig) -> Callable[[Path], Reference]:
    """An encoder of pairs."""

    def make(folder: Path) -> Reference:
        encode, score = record_encoders.make(name, kind, made, folder)
        return lambda turns: [score(encode(turns[0][1], turns[-1][1]))]

    return make


def language_model(name: str, kind: str, file: dict[str, Any]) -> Callable[[Path], Reference]:
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

        def reference(turns: Turns) -> list[float]:
            messages = [{"role": role, "content": content} for role, content in turns]
            text = tokens.apply_chat_template(messages, tokenize=False)
            ids = tokens(text, add_special_tokens=False)["input_ids"]
            # A token a byte, and one that ends the response.
            end, count = len(ids) - 1, len(turns[-1][1].encode())
            odds = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double(), dim=-1)
            places = range(end - count, end)
            return [sum(odds[place - 1, ids[place]].item() for place in places) / count]

        return reference

    return make


# How each of the published models is made small: its class in Transformers, and its head in the words of `record`. One
# without an entry isn't compared, and the table says so.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Skywork-Reward-Llama-3.1-8B": {"kind": "llama"},
    "OpenRLHF Llama classifier with mean and std": {"kind": "llama"},
    "GRM Llama-3.1-8B rewardmodel-ft": {"kind": "llama", "head": "v_head.summary"},
    "Qwen2.5-Math-PRM-7B": {"kind": "qwen2", "head": "score.mlp", "rows": 2},
    "Qwen2.5-Math-RM-72B": {"kind": "qwen2", "head": "score.mlp"},
    "Skywork-Reward-Gemma-2-27B": {"kind": "gemma2"},
}
LONG = 2000


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


def published(name: str, file: dict[str, Any]) -> Case | None:
    """A published model as a case, where its head is known."""
    small = shrunk(file)
    if file["model_type"] == "deberta-v2":
        made = transformers.DebertaV2Config.from_dict(small | {"initializer_range": 0.2, "num_labels": 1})
        return Case(name, encoder(name, "DebertaV2", made), longest=400, pairs=True)
    if file["architectures"][0].endswith("ForCausalLM"):
        kind = record.CLASSES[file["model_type"]]
        return Case(name, language_model(name, kind, small), longest=LONG)
    known = PUBLISHED.get(name)
    if known is None:
        return None
    made = record.Small(
        name, known["kind"], head=known.get("head", "score"), rows=known.get("rows", 1), file=small
    )
    return Case(name, decoder(made), longest=LONG)


def cases() -> Iterator[tuple[str, Case | None]]:
    """Every configuration by name; `None` for one that can't be made yet."""
    for small in record.CHECKPOINTS:
        yield small.name, Case(small.name, decoder(small), longest=120 if small.name == "phi3-longrope" else 200)
    for name, kind, changes in record_encoders.ENCODERS:
        made = record_encoders.configuration(kind, changes)
        yield name, Case(name, encoder(name, kind, made), pairs=True)
    for name, file in CONFIGURATIONS.items():
        yield name, published(name, file)


def folder_of(name: str) -> str:
    """The name that the model is served under."""
    return "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in name).strip("-.")


def served(url: str, case: Case, wanted: list[Turns]) -> list[list[float]]:
    """What the server gives for conversations, in one request."""
    if case.pairs:
        inputs: list[dict[str, Any]] = [{"prompt": turns[0][1], "response": turns[-1][1]} for turns in wanted]
    else:
        small = next((small for small in record.CHECKPOINTS if small.name == case.name), None)
        steps = small.rows == 2 if small else PUBLISHED.get(case.name, {}).get("rows") == 2
        marked = record.Small("", "", rows=2 if steps else 1)
        inputs = [{"messages": record.messages_of(marked, turns)} for turns in wanted]
    body = json.dumps({"model": folder_of(case.name), "inputs": inputs, "include": ["steps"]}).encode()
    request = urllib.request.Request(f"{url}/v1/score", body, {"content-type": "application/json"})  # noqa: S310 - ours
    try:
        with urllib.request.urlopen(request, timeout=600) as reply:  # noqa: S310 - a server that was started here
            results = json.load(reply)["results"]
    except urllib.error.HTTPError as error:
        print(f"{case.name}: {error.read().decode()}")
        return []
    return [
        result["steps"]["scores"] if (result.get("steps") or {}).get("scores") else [result["raw"]] for result in results
    ]


def difference(found: list[list[float]], wanted: list[list[float]]) -> float:
    """The largest difference between two lists of scores of the same shape."""
    if [len(row) for row in found] != [len(row) for row in wanted]:
        return float("inf")
    pairs = zip(sum(found, []), sum(wanted, []), strict=True)
    return max(abs(ours - theirs) for ours, theirs in pairs)


def main() -> None:
    """Makes, serves and compares."""
    chosen = [
        (name, case)
        for name, case in cases()
        if not sys.argv[1:] or any(part.lower() in name.lower() for part in sys.argv[1:])
    ]
    known = [case for _, case in chosen if case is not None]
    print(f"{'':44}{'alone':>10}{'together':>10}{'again':>10}")
    worst = 0.0
    with tempfile.TemporaryDirectory() as models, torch.no_grad():
        references = {case.name: case.make(Path(models) / folder_of(case.name)) for case in known}
        with ServerProcess(executable(), Path(models), "--cache-mb", "0") as server:
            for name, case in chosen:
                if case is None:
                    print(f"{name:44}  not compared: nothing here makes such a head")
                    continue
                asked = list(texts(case.longest))
                wanted = [references[name](turns) for turns in asked]
                alone = [scores for turns in asked for scores in served(server.url, case, [turns])]
                together = served(server.url, case, asked[::-1])[::-1]
                again = served(server.url, case, asked)
                found = [difference(scores, wanted) for scores in (alone, together, again)]
                worst = max(worst, *found)
                mark = "" if max(found) <= TOLERANCE else "  !"
                print(f"{name:44}" + "".join(f"{number:10.1e}" for number in found) + mark, flush=True)
    print(f"{len(known)} checkpoints, largest difference {worst:.1e}")
    raise SystemExit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
