"""GRPO with TRL, rewarded by karat: two steps of a tiny policy, so that it runs on a laptop's processor.

    python examples/grpo.py http://127.0.0.1:8080

Needs torch and TRL. The policy is a random Llama of a few thousand parameters whose tokens are letters: it learns
nothing in two steps, but everything between a trainer and its reward model is real. For a run in earnest, put a model's
name in the place of `policy()`, and a data set with a column `prompt` in the place of `PROMPTS`.
"""

from __future__ import annotations

import math
import string
import sys
import tempfile
from pathlib import Path

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from karat_client.trl import RewardFunction

PROMPTS = ["How do I boil an egg?", "What causes the tides?", "May I borrow your car?", "I found a purse."]
STEPS = 2


def policy() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A random policy that writes letters."""
    letters = ["<pad>", "<end>", *string.printable]
    tokenizer = Tokenizer(models.WordLevel({letter: index for index, letter in enumerate(letters)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    config = LlamaConfig(
        vocab_size=len(letters),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=0,
        eos_token_id=1,
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    return LlamaForCausalLM(config), wrapped


def main() -> None:
    """Trains two steps and prints the rewards that TRL logged."""
    model, tokenizer = policy()
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            # Any rule of the catalogue: the worst case is hard to hack, the clip bounds what a lucky response earns.
            reward_funcs=RewardFunction(
                sys.argv[1], "harmless", aggregate="worst_case", transforms=[{"clip": {"min": -5, "max": 5}}]
            ),
            train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
            args=GRPOConfig(
                output_dir=str(Path(folder) / "policy"),
                max_steps=STEPS,
                num_generations=4,
                per_device_train_batch_size=4,
                max_completion_length=16,
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                use_cpu=True,
            ),
        )
        trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    print(f"rewards: {', '.join(f'{reward:.3f}' for reward in rewards)}")
    if len(rewards) != STEPS or not all(math.isfinite(reward) for reward in rewards):
        raise SystemExit(f"{len(rewards)} rewards were logged in {STEPS} steps")


if __name__ == "__main__":
    main()
