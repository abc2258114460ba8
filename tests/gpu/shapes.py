"""The shapes of the models that the GPU check measures: what their configuration says, and which tensors they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Tensors = dict[str, tuple[int, ...]]

# All that are rendered are turns of plain words, each with a space before it: so a word is a token.
TEMPLATE = "{% for message in messages %} {{ message['content'] }}{% endfor %}"


@dataclass(frozen=True)
class Encoder:
    """A BERT, or a RoBERTa, that rates pairs."""

    kind: Literal["bert", "roberta"]
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    # Of lengths of samples in tokens, as they occur.
    median: int
    longest: int
    dtype = "F32"
    render = '"pair"'
    form = "packed"

    @property
    def config(self) -> dict[str, Any]:
        """Its `config.json`."""
        roberta = self.kind == "roberta"
        return {
            "architectures": ["RobertaForSequenceClassification" if roberta else "BertForSequenceClassification"],
            "model_type": self.kind,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "type_vocab_size": 1 if roberta else 2,
            "pad_token_id": 1 if roberta else 0,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5 if roberta else 1e-12,
            "id2label": {"0": "LABEL_0"},
        }

    @property
    def positions(self) -> int:
        """How many positions its table holds: RoBERTa's begin behind that of padding."""
        return self.longest + (2 if self.kind == "roberta" else 0)

    @property
    def tensors(self) -> Tensors:
        """Every tensor by name."""
        hidden = self.hidden
        tables = {"word": self.vocabulary, "position": self.positions, "token_type": self.config["type_vocab_size"]}
        name = self.kind
        tensors: Tensors = {
            f"{name}.embeddings.{what}_embeddings.weight": (rows, hidden) for what, rows in tables.items()
        }
        head = {"classifier.dense": (hidden, hidden), "classifier.out_proj": (1, hidden)}
        if self.kind == "bert":
            head = {"bert.pooler.dense": (hidden, hidden), "classifier": (1, hidden)}
        matrices, norms = dict(head), [f"{name}.embeddings.LayerNorm"]
        for layer in range(self.layers):
            prefix = f"{name}.encoder.layer.{layer}."
            squares = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
            matrices |= {prefix + square: (hidden, hidden) for square in squares}
            matrices[f"{prefix}intermediate.dense"] = (self.intermediate, hidden)
            matrices[f"{prefix}output.dense"] = (hidden, self.intermediate)
            norms += [f"{prefix}attention.output.LayerNorm", f"{prefix}output.LayerNorm"]
        return tensors | _biased(matrices, norms, hidden)


def _biased(matrices: Mapping[str, tuple[int, ...]], norms: Sequence[str], hidden: int) -> Tensors:
    """Matrices and norms of states, each with a bias."""
    tensors: Tensors = {}
    for matrix, shape in matrices.items():
        tensors |= {f"{matrix}.weight": shape, f"{matrix}.bias": shape[:1]}
    for norm in norms:
        tensors |= {f"{norm}.weight": (hidden,), f"{norm}.bias": (hidden,)}
    return tensors


@dataclass(frozen=True)
class Deberta:
    """A DeBERTa-v3 that rates pairs: its rows are padded."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    # How many kinds of distances there are to each side.
    buckets: int
    median: int
    longest: int
    kind = "deberta"
    dtype = "F32"
    render = '"pair"'
    form = "half_rows"

    @property
    def config(self) -> dict[str, Any]:
        """Its `config.json`."""
        return {
            "architectures": ["DebertaV2ForSequenceClassification"],
            "model_type": "deberta-v2",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.longest,
            "max_relative_positions": -1,
            "position_buckets": self.buckets,
            "norm_rel_ebd": "layer_norm",
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "relative_attention": True,
            "share_att_key": True,
            "type_vocab_size": 0,
            "pad_token_id": 0,
            "hidden_act": "gelu",
            "pooler_hidden_act": "gelu",
            "pooler_hidden_size": self.hidden,
            "layer_norm_eps": 1e-7,
            "id2label": {"0": "LABEL_0"},
        }

    @property
    def tensors(self) -> Tensors:
        """Every tensor by name."""
        hidden, encoder = self.hidden, "deberta.encoder."
        tensors: Tensors = {
            "deberta.embeddings.word_embeddings.weight": (self.vocabulary, hidden),
            f"{encoder}rel_embeddings.weight": (2 * self.buckets, hidden),
        }
        matrices: Tensors = {"pooler.dense": (hidden, hidden), "classifier": (1, hidden)}
        norms = ["deberta.embeddings.LayerNorm", f"{encoder}LayerNorm"]
        for layer in range(self.layers):
            prefix = f"{encoder}layer.{layer}."
            squares = (*(f"attention.self.{part}_proj" for part in ("query", "key", "value")), "attention.output.dense")
            matrices |= {prefix + square: (hidden, hidden) for square in squares}
            matrices[f"{prefix}intermediate.dense"] = (self.intermediate, hidden)
            matrices[f"{prefix}output.dense"] = (hidden, self.intermediate)
            norms += [f"{prefix}attention.output.LayerNorm", f"{prefix}output.LayerNorm"]
        return tensors | _biased(matrices, norms, hidden)


@dataclass(frozen=True)
class ModernBert:
    """A ModernBERT that rates pairs: its rows are padded."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    median: int
    longest: int
    kind = "modernbert"
    dtype = "F32"
    render = '"pair"'
    form = "half_rows"

    @property
    def config(self) -> dict[str, Any]:
        """Its `config.json`."""
        return {
            "architectures": ["ModernBertForSequenceClassification"],
            "model_type": "modernbert",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 8192,
            "global_attn_every_n_layers": 3,
            "local_attention": 128,
            "global_rope_theta": 160_000.0,
            "local_rope_theta": 10_000.0,
            "classifier_pooling": "mean",
            "classifier_activation": "gelu",
            "hidden_activation": "gelu",
            "norm_eps": 1e-5,
            "pad_token_id": 0,
            "id2label": {"0": "LABEL_0"},
        }

    @property
    def tensors(self) -> Tensors:
        """Every tensor by name."""
        hidden, inner = self.hidden, self.intermediate
        tensors: Tensors = {
            "model.embeddings.tok_embeddings.weight": (self.vocabulary, hidden),
            "model.embeddings.norm.weight": (hidden,),
            "model.final_norm.weight": (hidden,),
            "head.dense.weight": (hidden, hidden),
            "head.norm.weight": (hidden,),
            "classifier.weight": (1, hidden),
            "classifier.bias": (1,),
        }
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            # The embeddings are normed already.
            norms = ("attn_norm", "mlp_norm") if layer else ("mlp_norm",)
            tensors |= {f"{prefix}{norm}.weight": (hidden,) for norm in norms}
            tensors |= {
                f"{prefix}attn.Wqkv.weight": (3 * hidden, hidden),
                f"{prefix}attn.Wo.weight": (hidden, hidden),
                f"{prefix}mlp.Wi.weight": (2 * inner, hidden),
                f"{prefix}mlp.Wo.weight": (hidden, inner),
            }
        return tensors


@dataclass(frozen=True)
class Decoder:
    """A Llama that rates conversations, or (`writes`) one that writes critiques."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    median: int
    longest: int
    writes: bool = False
    dtype = "BF16"
    form = "packed"
    render = f'{{ jinja = "{TEMPLATE}" }}'

    @property
    def config(self) -> dict[str, Any]:
        """Its `config.json`."""
        kind = "CausalLM" if self.writes else "SequenceClassification"
        return {
            "architectures": [f"LlamaFor{kind}"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.longest,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0,
            "tie_word_embeddings": False,
            "pad_token_id": 0,
            "torch_dtype": "bfloat16",
        } | ({} if self.writes else {"id2label": {"0": "LABEL_0"}})

    @property
    def tensors(self) -> Tensors:
        """Every tensor by name."""
        hidden, inner = self.hidden, self.intermediate
        width, shared = self.heads * self.head_dim, self.kv_heads * self.head_dim
        tensors: Tensors = {"model.embed_tokens.weight": (self.vocabulary, hidden)}
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            tensors |= {
                f"{prefix}self_attn.q_proj.weight": (width, hidden),
                f"{prefix}self_attn.k_proj.weight": (shared, hidden),
                f"{prefix}self_attn.v_proj.weight": (shared, hidden),
                f"{prefix}self_attn.o_proj.weight": (hidden, width),
                f"{prefix}mlp.gate_proj.weight": (inner, hidden),
                f"{prefix}mlp.up_proj.weight": (inner, hidden),
                f"{prefix}mlp.down_proj.weight": (hidden, inner),
                f"{prefix}input_layernorm.weight": (hidden,),
                f"{prefix}post_attention_layernorm.weight": (hidden,),
            }
        tensors["model.norm.weight"] = (hidden,)
        head = "lm_head" if self.writes else "score"
        tensors[f"{head}.weight"] = (self.vocabulary if self.writes else 1, hidden)
        return tensors


Shape = Encoder | Deberta | ModernBert | Decoder

LLAMA_8B = Decoder(32, 4096, 32, 8, 128, 14_336, 128_256, median=350, longest=2048)
# What is asked of a GPU.
FULL: Mapping[str, Shape] = {
    "minilm-l12": Encoder("bert", 12, 384, 12, 1536, 30_522, median=160, longest=512),
    "roberta-large": Encoder("roberta", 24, 1024, 16, 4096, 50_265, median=160, longest=512),
    "deberta-v3-base": Deberta(12, 768, 12, 3072, 128_100, buckets=256, median=160, longest=512),
    "modernbert-base": ModernBert(22, 768, 12, 1152, 50_368, median=160, longest=512),
    "llama-1b": Decoder(16, 2048, 32, 8, 64, 8192, 128_256, median=350, longest=2048),
    "llama-8b": LLAMA_8B,
    "llama-8b-writer": Decoder(32, 4096, 32, 8, 128, 14_336, 128_256, median=350, longest=2048, writes=True),
    # Small enough to be computed in 32 bits on a processor, for comparison.
    "llama-39m": Decoder(8, 512, 8, 2, 64, 1408, 32_000, median=350, longest=2048),
}
# The same ways with next to nothing to compute, for machines without a GPU.
_DECODER = Decoder(2, 32, 4, 2, 8, 48, 1024, median=40, longest=2048)
TINY: Mapping[str, Shape] = {
    "minilm-l12": Encoder("bert", 2, 32, 4, 48, 1024, median=24, longest=128),
    "roberta-large": Encoder("roberta", 2, 32, 4, 48, 1024, median=24, longest=128),
    "deberta-v3-base": Deberta(2, 32, 4, 48, 1024, buckets=16, median=24, longest=128),
    "modernbert-base": ModernBert(3, 32, 4, 48, 1024, median=24, longest=128),
    "llama-1b": _DECODER,
    "llama-8b": _DECODER,
    "llama-8b-writer": Decoder(2, 32, 4, 2, 8, 48, 1024, median=40, longest=2048, writes=True),
    "llama-39m": _DECODER,
}


def layer_parameters(shape: Shape) -> int:
    """The parameters of the layers' matrices, by which floating-point operations are counted: two a token each."""
    tables = ("embed", "lm_head", "score", "classifier", "pooler")
    counted = (size for name, size in shape.tensors.items() if len(size) == 2 and not any(t in name for t in tables))
    return sum(rows * columns for rows, columns in counted)
