"""Which small decoders are recorded, what their configurations say, and which conversations each is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SPECIAL = ("<pad>", "<s>", "</s>", "<extra_0>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{{ eos_token }}{% endfor %}"
)
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "vocab_size": 264,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.4,
}
CONVERSATIONS = (
    [("user", "Hi"), ("assistant", "Hello!")],
    [("user", "What causes the tides?"), ("assistant", "The moon's gravity, and the sun's.")],
    [
        ("user", "Name a prime above 10."),
        ("assistant", "11"),
        ("user", "And above 100?"),
        ("assistant", "101 is prime: none of 2, 3, 5 and 7 divides it."),
    ],
    [("user", "Ein Käse für Ångström?"), ("assistant", "価格は百円です。")],
)
# Answers to one question that is longer than any window here.
SHARED = tuple(
    [("user", "A farmer has 17 sheep, and all but 9 run away. How many are left, and why?"), ("assistant", answer)]
    for answer in (
        "9: all but 9 ran away.",
        "8, as 17 minus 9 is 8.",
        'Nine are left. That is what "all but nine" means.',
    )
)


@dataclass(frozen=True)
class Small:
    """One checkpoint: a class of Transformers, what its configuration says beyond `SMALL`, and a head of one's own."""

    name: str
    model_type: str
    head: str = "score"
    config: dict[str, Any] = field(default_factory=dict)
    # What is written into `config.json` afterwards.
    written: dict[str, Any] = field(default_factory=dict)
    architecture: str | None = None
    rows: int = 1
    # What the trunk's tensors are called.
    prefix: str = "model"
    # Saved as Transformers saves it, with the head that it makes.
    whole: bool = False
    # The configuration as it lies in the file; otherwise `SMALL` and `config` make it.
    file: dict[str, Any] | None = None
    conversations: tuple[list[tuple[str, str]], ...] = CONVERSATIONS


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
GATED = {"attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 12, "sliding_window": 512}
WINDOWED = CONVERSATIONS + SHARED
GEMMA3 = {
    "num_hidden_layers": 3,
    "query_pre_attn_scalar": 12,
    "sliding_window": 20,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.2, 1.7],
    "long_factor": [1.5, 4.0, 16.0],
}
# Every head has keys and values of its own, and its width follows from the state's.
NEOX: dict[str, Any] = {
    "hidden_act": "gelu",
    "num_attention_heads": 2,
    "num_key_value_heads": None,
    "head_dim": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 20000, "partial_rotary_factor": 0.5},
}
GRANITE = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.7,
    "logits_scaling": 4.0,
}
MIXTRAL = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 20}
QWEN3_MOE = {
    "num_hidden_layers": 3,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "mlp_only_layers": [1],
}
OLMO3 = {
    "num_hidden_layers": 2,
    "sliding_window": 20,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": {
        "full_attention": YARN,
        "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0},
    },
}
CHECKPOINTS = (
    Small("llama3", "llama", config={"rope_parameters": LLAMA3}),
    Small("llama-linear", "llama", config={"rope_parameters": LINEAR, "attention_bias": True, "mlp_bias": True}),
    Small("llama-yarn", "llama", config={"rope_parameters": YARN}),
    Small(
        "openrlhf",
        "llama",
        head="value_head",
        written={"value_head_prefix": "value_head", "mean": -2.58, "std": 3.02, "normalize_reward": True},
    ),
    Small("grm", "llama", head="v_head.summary", written={"vhead_layer_type": "linear", "vhead_num_layers": 1}),
    Small(
        "qwen2-math-rm",
        "qwen2",
        head="score.mlp",
        architecture="Qwen2ForRewardModel",
        config={"use_sliding_window": False},
    ),
    Small("qwen2-math-prm", "qwen2", head="score.mlp", architecture="Qwen2ForProcessRewardModel", rows=2),
    Small("qwen3", "qwen3"),
    Small("mistral", "mistral", config={"sliding_window": None}),
    Small("gemma", "gemma"),
    Small("gemma2", "gemma2", config=GATED),
    Small("phi3", "phi3"),
    Small("olmo2", "olmo2"),
    Small("smollm3", "smollm3", config={"num_hidden_layers": 4, "no_rope_layer_interval": 2}),
    Small("mistral-window", "mistral", config={"sliding_window": 20}, conversations=WINDOWED),
    Small("gemma2-window", "gemma2", config=GATED | {"sliding_window": 20}, conversations=WINDOWED),
    Small(
        "qwen2-window",
        "qwen2",
        config={"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1},
        conversations=WINDOWED,
    ),
    Small(
        "smollm3-window",
        "smollm3",
        config={"no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 20},
        conversations=WINDOWED,
    ),
    Small("phi3-window", "phi3", config={"sliding_window": 20}, conversations=WINDOWED),
    Small(
        "phi3-longrope",
        "phi3",
        config={
            "num_attention_heads": 2,
            "rope_parameters": LONGROPE | {"partial_rotary_factor": 0.75},
            "original_max_position_embeddings": 128,
        },
    ),
    Small("gemma3", "gemma3_text", config=GEMMA3, conversations=WINDOWED, whole=True),
    Small("gemma3-wrapped", "gemma3", config=GEMMA3, conversations=WINDOWED, whole=True),
    Small("olmo3", "olmo3", config=OLMO3, conversations=WINDOWED, whole=True),
    Small("glm", "glm", whole=True),
    Small("glm4", "glm4", config={"attention_bias": True}, whole=True),
    Small("pythia", "gpt_neox", config=NEOX, whole=True),
    Small(
        "oasst-pythia",
        "gpt_neox",
        head="out_proj",
        prefix="gpt_neox",
        config=NEOX | {"use_parallel_residual": False},
        architecture="GPTNeoXRewardModel",
        written={
            "model_type": "gpt_neox_reward_model",
            "pooling": "last",
            # As files of its time say it.
            "rope_parameters": None,
            "rotary_pct": 0.5,
            "rotary_emb_base": 20000,
        },
    ),
    Small("granite", "granite", config=GRANITE),
    Small("nemotron", "nemotron", config={"hidden_act": "relu2"}, whole=True),
    Small("mixtral", "mixtral", config=MIXTRAL, conversations=WINDOWED, whole=True),
    Small("qwen3-moe", "qwen3_moe", config=QWEN3_MOE, whole=True),
    Small("internlm2", "internlm2", head="v_head", config={"bias": False}, architecture="InternLM2ForRewardModel"),
)
