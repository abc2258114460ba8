"""Records what Transformers makes of a checkpoint, for karat to hold its own scores against.

    python -m tools.reference CHECKPOINT [--texts FILE.jsonl]

computes a few conversations in 32 bits, eagerly, one at a time, and writes them
with their scores into `expected.json` beside the checkpoint. karat compares when
it loads the model. Text is rendered as karat's manifest says: `[text]` of
`model.toml`, or what karat would write there. A line of FILE.jsonl holds
`messages`, or `response` with its `prompt`. Of a model that sees, a few drawn
images are recorded, and a line holds an `image`, a file beside FILE.jsonl, with
its `prompt`.

Needs torch and transformers, which nothing else here does: install them into an
environment of their own, `pip install torch transformers`. No code that lies in
a checkpoint is run.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools import reference_images

# What two computations in 32 bits may differ by.
TOLERANCE = 1e-4
# As many as karat compares at most.
MOST_CASES = 64
STEP_MARK = "<extra_0>"
# Heads of one matrix, or of two with a rectifier between them, as the names of their tensors begin.
HEADS = ("score", "v_head.summary", "v_head", "value_head", "regression_head", "score_head", "reward_head")
ENCODERS = ("bert", "deberta-v2", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta")
DEFAULT: tuple[tuple[str, ...], ...] = (
    ("Hi", "Hello! What can I do for you?"),
    ("What causes the tides?", "The moon's gravity, and the sun's."),
    ("What causes the tides?", "Fish."),
    ("Name a prime above 10.", "11", "And above 100?", "101 is prime. None of 2, 3, 5 and 7 divides it."),
    ('Escape "<b>it\'s</b> & {{ more }}".', "&lt;b&gt;it's&lt;/b&gt;\n\n```html\n&amp;\n```"),
    ("Ein Käse für Ångström?", "価格は百円です。 😀"),
)

Case = dict[str, Any]


class Unrecordable(Exception):
    """What a checkpoint needs that this program can't give, and what to do."""


@dataclass(frozen=True)
class Manifest:
    """What karat's manifest says of a model, or would."""

    checkpoint: Path
    tokenizer: Path
    render: Any = None
    special_tokens: bool | None = None
    step_mark: str | None = None
    date: datetime.date | None = None
    tokens: dict[str, str] = field(default_factory=dict)
    head: Any = None

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads `model.toml`, if there is one."""
        path = folder / "model.toml"
        if not path.exists():
            return cls(folder, folder)
        manifest = tomllib.loads(path.read_text(encoding="utf-8"))
        graph, text = manifest.get("graph", {}), manifest.get("text", {})
        if "checkpoint" not in graph:
            raise Unrecordable(f"{path} names no checkpoint in [graph]: Transformers computes checkpoints, not graphs")
        stated = text.get("date")
        return cls(
            folder / graph["checkpoint"],
            (folder / text.get("tokenizer", "tokenizer.json")).parent,
            text.get("render"),
            text.get("special_tokens"),
            text.get("step_mark"),
            datetime.date.fromisoformat(stated) if stated else None,
            {name: text[name] for name in ("bos_token", "eos_token", "pad_token") if name in text},
            manifest.get("head"),
        )


def steps_of(response: str) -> list[str]:
    """A response's sentences, which stand for steps here."""
    return [f"{part}." for part in response.split(". ") if part] if ". " in response else [response]


def default_cases(*, pairs: bool, alone: bool, mark: str | None) -> list[Case]:
    """The built-in conversations in the shape that the model takes."""
    cases: list[Case] = []
    for turns in DEFAULT:
        response = turns[-1] if mark is None else "".join(step + mark for step in steps_of(turns[-1]))
        if alone:
            cases.append({"response": response})
        elif pairs and len(turns) == 2:
            cases.append({"prompt": turns[0], "response": response})
        elif not pairs:
            roles = ("user", "assistant") * (len(turns) // 2)
            contents = (*turns[:-1], response)
            cases.append({"messages": [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]})
    return cases


def read_cases(path: Path) -> list[Case]:
    """The conversations of a file, a line each."""
    cases = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        case = json.loads(line)
        kept = {key: case[key] for key in ("messages", "prompt", "response") if key in case}
        if not ({"messages"} <= kept.keys() <= {"messages"} or {"response"} <= kept.keys() <= {"prompt", "response"}):
            raise Unrecordable(f"{path}, line {number}: write messages, or response with its prompt")
        cases.append(kept)
    if not 1 <= len(cases) <= MOST_CASES:
        raise Unrecordable(f"{path} holds {len(cases)} conversations, and karat compares 1 to {MOST_CASES}")
    return cases


class Reference:
    """A checkpoint in Transformers."""

    def __init__(self, manifest: Manifest) -> None:
        """Loads tokenizer, trunk and head."""
        try:
            import torch
            import transformers
        except ImportError as missing:
            raise Unrecordable(
                f"{missing.name} isn't installed; make an environment for it: python -m venv FOLDER, then "
                "FOLDER/bin/pip install torch transformers, and run this with FOLDER/bin/python"
            ) from missing
        self.torch, self.transformers, self.manifest = torch, transformers, manifest
        try:
            self.config = transformers.AutoConfig.from_pretrained(manifest.checkpoint, trust_remote_code=False)
        except ValueError as unknown:
            raise Unrecordable(
                f"{manifest.checkpoint} is of a family that Transformers {transformers.__version__} doesn't have; "
                "compute its scores by its authors' code, and write expected.json as docs/checkpoints.md shows"
            ) from unknown
        self.architecture = (getattr(self.config, "architectures", None) or [""])[0]
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(manifest.tokenizer, trust_remote_code=False)
        except Exception as unlike:
            # The class that goes with the family can't read it: as it is, then, which is what karat does.
            print(f"{unlike}; taking tokenizer.json as it is")
            self.tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(manifest.tokenizer)
        for name, token in manifest.tokens.items():
            setattr(self.tokenizer, name, token)
        self.is_encoder = self.config.model_type in ENCODERS
        self.render = manifest.render or self.default_render()
        self.scores = self.load()

    @property
    def reads_steps(self) -> bool:
        """Whether the head scores each step."""
        return self.architecture.endswith("ForProcessRewardModel")

    @property
    def step_mark(self) -> str | None:
        """What ends a step, where steps are scored."""
        return (self.manifest.step_mark or STEP_MARK) if self.reads_steps else None

    def default_render(self) -> str:
        """As karat decides it (`crates/karat-checkpoint/src/manifest.rs`)."""
        if self.is_encoder:
            return "pair"
        return "chat_template" if self.tokenizer.chat_template is not None else "raw"

    def load(self) -> Callable[[Case], Any]:
        """What computes the head's numbers, of shape [tokens, width] or [1, width]."""
        torch, auto = self.torch, self.transformers
        eager = {"dtype": torch.float32, "attn_implementation": "eager", "trust_remote_code": False}
        known = self.architecture.endswith("ForSequenceClassification") and self.architecture in dir(auto)
        if known:
            model, found = auto.AutoModelForSequenceClassification.from_pretrained(
                self.manifest.checkpoint, output_loading_info=True, **eager
            )
            # Transformers makes a random head up where it finds none under the names that it knows.
            if not found["missing_keys"]:
                model.eval()
                return lambda inputs: model(**inputs).logits
        if not (known or self.architecture.endswith(("ForRewardModel", "ForProcessRewardModel"))):
            raise Unrecordable(
                f"{self.architecture or 'a checkpoint without a class'} is no reward model that this program knows; "
                "compute its scores by its authors' code, and write expected.json as docs/checkpoints.md shows"
            )
        trunk, found = auto.AutoModel.from_pretrained(self.manifest.checkpoint, output_loading_info=True, **eager)
        if found["missing_keys"]:
            raise Unrecordable(f"tensors are missing: {', '.join(sorted(found['missing_keys'])[:3])}")
        trunk.eval()
        head = self.head()
        return lambda inputs: head(trunk(**inputs).last_hidden_state[0])

    def head(self) -> Any:
        """The head that lies among the weights under a name of its authors' own."""
        from safetensors import safe_open

        tensors: dict[str, Any] = {}
        for path in sorted(self.manifest.checkpoint.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                wanted = [name for name in file.keys() if name.startswith(self.head_names())]  # noqa: SIM118
                tensors |= {name: file.get_tensor(name).to(self.torch.float32) for name in wanted}
        linear = self.torch.nn.functional.linear
        for name in self.head_names():
            layers = [
                (tensors[f"{prefix}.weight"], tensors.get(f"{prefix}.bias"))
                for prefix in (name, f"{name}.0", f"{name}.2")
                if f"{prefix}.weight" in tensors
            ]
            if len(layers) == 1:
                return lambda state, layer=layers[0]: linear(state, *layer)
            if len(layers) == 2:
                return lambda state, first=layers[0], second=layers[1]: linear(linear(state, *first).relu(), *second)
        raise Unrecordable(f"no head was found: looked for {', '.join(self.head_names())}")

    def head_names(self) -> tuple[str, ...]:
        """How the names of head tensors may begin."""
        stated = getattr(self.config, "value_head_prefix", None)
        return ((stated,) if stated else ()) + HEADS

    def encode(self, case: Case) -> dict[str, list[int]]:
        """A conversation's tokens."""
        special = self.manifest.special_tokens
        if self.render == "pair":
            return dict(self.tokenizer(case.get("prompt", ""), case["response"]))
        if self.render == "raw":
            text = case["response"]
        else:
            text, special = self.rendered(case), bool(special)
        encoded = dict(self.tokenizer(text, add_special_tokens=special is not False))
        ids = encoded["input_ids"]
        bos = self.tokenizer.bos_token_id
        while bos is not None and ids[:2] == [bos, bos]:
            encoded = {name: values[1:] for name, values in encoded.items()}
            ids = encoded["input_ids"]
        return encoded

    def rendered(self, case: Case) -> str:
        """A conversation as the template writes it."""
        turns = [("user", case.get("prompt", "")), ("assistant", case.get("response", ""))]
        messages = case.get("messages") or [{"role": r, "content": c} for r, c in turns if c]
        template = None
        if isinstance(self.render, dict):
            template = self.render.get("jinja") or (self.manifest.tokenizer / self.render["jinja_file"]).read_text()
        with fixed_date(self.transformers, self.manifest.date):
            return self.tokenizer.apply_chat_template(messages, tokenize=False, chat_template=template)

    def record(self, case: Case) -> Case:
        """A conversation with its tokens and its score."""
        encoded = self.encode(case)
        ids = encoded["input_ids"]
        with self.torch.no_grad():
            numbers = self.scores({name: self.torch.tensor([values]) for name, values in encoded.items()})
        width = numbers.shape[-1]
        if self.reads_steps:
            mark = self.tokenizer.convert_tokens_to_ids(self.step_mark)
            if width != 2:
                raise Unrecordable(f"the head gives {width} numbers a step, and 2 are known: no and yes")
            read = numbers[[place for place, token in enumerate(ids) if token == mark]]
            steps = self.torch.softmax(read.double(), dim=-1)[:, 1].tolist()
            return case | {"tokens": ids, "steps": [round(value, 8) for value in steps]}
        if width != 1:
            raise Unrecordable(f"the head gives {width} numbers, and only you know which is the reward")
        return case | {"tokens": ids, "reward": round(float(numbers[-1, 0]), 7)}


class fixed_date:  # noqa: N801 - it is used as a function
    """Lets templates believe that it is a certain day; without one, they are told nothing else."""

    def __init__(self, transformers: Any, date: datetime.date | None) -> None:
        """Of the module that templates ask."""
        self.module, self.date = transformers.utils.chat_template_utils, date

    def __enter__(self) -> None:
        """Stops the clock."""
        self.clock = self.module.datetime
        day = self.date
        if day is not None:
            fixed = type("Fixed", (), {"now": staticmethod(lambda: datetime.datetime(day.year, day.month, day.day))})
            self.module.datetime = fixed

    def __exit__(self, *_: object) -> None:
        """Lets it go on."""
        self.module.datetime = self.clock


def lines(recorded: list[Case]) -> Iterator[str]:
    """What was recorded, for people."""
    for case in recorded:
        score = case.get("reward", case.get("steps"))
        last = case["messages"][-1]["content"] if "messages" in case else None
        said = last or case.get("response") or case.get("prompt") or "an image"
        yield f"{score}  {said[:60]!r}"


def recorded_images(manifest: Manifest, images: Path | None) -> list[Case]:
    """The images of a file, or a few drawn ones, with their scores."""
    try:
        reference = reference_images.ImageReference(manifest)
        cases = reference_images.read_cases(images, MOST_CASES) if images else reference.cases()
        return [reference.record(case) for case in cases]
    except ImportError as missing:
        raise Unrecordable(
            f"{missing.name} isn't installed; make an environment for it: python -m venv FOLDER, then FOLDER/bin/pip "
            'install torch transformers "pillow<13", and run this with FOLDER/bin/python'
        ) from missing
    except reference_images.UnknownModel as unknown:
        raise Unrecordable(str(unknown)) from unknown


def recorded_texts(manifest: Manifest, texts: Path | None) -> list[Case]:
    """The conversations of a file, or a few built-in ones, with their scores."""
    reference = Reference(manifest)
    if texts:
        cases = read_cases(texts)
    else:
        shape = {"pairs": reference.render == "pair", "alone": reference.render == "raw"}
        cases = default_cases(**shape, mark=reference.step_mark)
    return [reference.record(case) for case in cases]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Record what Transformers makes of a checkpoint.")
    parser.add_argument("checkpoint", type=Path, help="a checkpoint's folder, or a model's whose manifest names one")
    parser.add_argument(
        "--texts", type=Path, help="conversations or images to score, a line each; by default a few built-in ones"
    )
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="what two scores may differ by")
    arguments = parser.parse_args()
    try:
        manifest = Manifest.read(arguments.checkpoint)
        if reference_images.sees(manifest.checkpoint):
            recorded = recorded_images(manifest, arguments.texts)
        else:
            recorded = recorded_texts(manifest, arguments.texts)
    except Unrecordable as refused:
        parser.exit(1, f"{refused}\n")
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "torch")}
    expected = {
        "source": f"Transformers {versions['transformers']} with torch {versions['torch']}, in 32 bits, eagerly",
        "tolerance": arguments.tolerance,
        "cases": recorded,
    }
    path = arguments.checkpoint / "expected.json"
    path.write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(*lines(recorded), f"{len(recorded)} scores in {path}", sep="\n")


if __name__ == "__main__":
    main()
