"""Which architectures transformers registers for our tasks, and a small configuration of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import transformers
from transformers.models.auto import modeling_auto

VOCABULARY = 400
"""Tokens that models have room for; the tokenizers here have fewer."""

LENGTH = 128
"""Positions of a small model of texts."""

_MAPPINGS = {
    "text-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "token-classification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "question-answering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "image-classification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "object-detection": "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",
    "image-segmentation": "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
}
TASKS = (*_MAPPINGS, "feature-extraction")
IMAGES = frozenset({"image-classification", "object-detection", "image-segmentation"})

_SIZES: Mapping[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "dim", "n_embd", "emb_dim", "embedding_size", "word_embed_proj_dim"), 32
    ),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "num_key_value_heads"), 4),
    **dict.fromkeys(("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_inner"), 64),
    **dict.fromkeys(("hidden_dim", "n_inner", "moe_intermediate_size", "shared_expert_intermediate_size"), 64),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "kv_channels", "rotary_dim"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    "num_experts_per_tok": 2,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), LENGTH),
}
"""Attributes of configurations of texts -> what they are in a small model, where the architecture has them."""

_OF_TEXTS: Mapping[str, Mapping[str, Any]] = {
    "big_bird": {"attention_type": "original_full"},
    "bloom": {"hidden_size": 32},
    "deberta-v2": {"pos_att_type": ["p2c", "c2p"], "relative_attention": True, "position_buckets": 16},
    "falcon": {"new_decoder_architecture": False},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 16},
    "gptj": {"rotary_dim": 4},
    "longformer": {"attention_window": [16, 16]},
    "led": {"attention_window": [16, 16]},
    "mobilebert": {
        "embedding_size": 16,
        "intra_bottleneck_size": 32,
        "true_hidden_size": 32,
        "num_feedforward_networks": 2,
    },
    "nystromformer": {"num_landmarks": 8, "segment_means_seq_len": LENGTH},
    "t5": {"decoder_start_token_id": 0},
    "squeezebert": {"q_groups": 1, "k_groups": 1, "v_groups": 1, "post_attention_groups": 1, "intermediate_groups": 1},
    "xlm-roberta-xl": {"max_position_embeddings": LENGTH + 2},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "openai-gpt": {"n_positions": LENGTH},
}
"""What the rule above does not know of some architectures."""

_OFFSET = (
    "roberta",
    "camembert",
    "xlm-roberta",
    "data2vec-text",
    "ibert",
    "roberta-prelayernorm",
    "longformer",
    "mpnet",
)
"""Architectures that number positions from the padding's id on."""

_FEW_QUERIES = ("detr", "conditional_detr", "deformable_detr", "table-transformer", "dab-detr")
"""Detectors that look for hundreds of objects."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture for one task.

    Attributes:
        task: Our task.
        name: transformers' model type.
        model_class: Name of the class with the task's head.
    """

    task: str
    name: str
    model_class: str


def architectures(tasks: tuple[str, ...] = TASKS) -> Iterator[Architecture]:
    """Return the architectures of each task; of embeddings those that are trained to fill in masks."""
    for task in tasks:
        if task == "feature-extraction":
            names = modeling_auto.MODEL_MAPPING_NAMES
            found: Mapping[str, Any] = {
                key: names[key] for key in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES if key in names
            }
        else:
            found = getattr(modeling_auto, _MAPPINGS[task])
        for name, model_class in sorted(found.items()):
            yield Architecture(task, name, model_class if isinstance(model_class, str) else model_class[0])


def small_config(architecture: Architecture, labels: int, ids: Mapping[str, int]) -> Any:
    """Return a small configuration, with labels named a, b, c ..."""
    config_class = transformers.models.auto.configuration_auto.CONFIG_MAPPING[architecture.name]
    known = config_class().to_dict()
    letters = [chr(97 + index) for index in range(labels)]
    names: dict[str, Any] = {
        "id2label": dict(enumerate(letters)),
        "label2id": {name: index for index, name in enumerate(letters)},
    }
    if architecture.task in ("feature-extraction", "question-answering"):  # whose heads have no labels to name
        names = {}
    if architecture.task in IMAGES:
        sizes = _small_image(known, architecture.name)
        return config_class(**({"num_labels": labels} if "num_labels" in known else {}), **sizes, **names)
    sizes = _sizes(known)
    if architecture.name in _OFFSET:
        sizes["max_position_embeddings"] = LENGTH + ids["pad_token_id"] + 1
    settings = {**sizes, "vocab_size": VOCABULARY, **ids, **_OF_TEXTS.get(architecture.name, {})}
    return config_class(**settings, **names)


def _small_backbone() -> Any:
    """Return a ResNet in the place of one that needs timm."""
    return transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )


def _sizes(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return small sizes for what a configuration has, those of configurations within it included."""
    found: dict[str, Any] = {
        key: value for key, value in _SIZES.items() if key in known and isinstance(known[key], int | None)
    }
    return found | _within(known)


def _within(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return small sizes for the configurations within one."""
    found = {}
    for key, value in known.items():
        if key.endswith("_config") and isinstance(value, dict) and (sizes := _sizes(value)):
            found[key] = {**sizes, "model_type": value.get("model_type")} if value.get("model_type") else sizes
    return found


def _small_image(known: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return one layer a stage, and a narrow transformer where stages have no widths of their own."""
    settings: dict[str, Any] = {
        key: [1] * len(value)
        for key, value in known.items()
        if key in ("depths", "num_hidden_layers", "encoder_layers") and isinstance(value, list)
    }
    staged = any(
        isinstance(known.get(key), list)
        for key in ("hidden_sizes", "embed_dims", "neck_hidden_sizes", "stage_channels")
    )
    if not staged and "depths" not in known:
        narrow = {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "d_model": 32,
        }
        narrow |= dict.fromkeys(("encoder_layers", "decoder_layers"), 2)
        narrow |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4)
        narrow |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64)
        settings |= {key: value for key, value in narrow.items() if isinstance(known.get(key), int)}
    settings |= _within(known)
    if name in _FEW_QUERIES:
        settings["num_queries"] = 12
    if (known.get("backbone_config") or {}).get("model_type") == "timm_backbone":
        settings["backbone_config"] = _small_backbone()
    settings |= {key: 0.25 for key in ("width_coefficient", "depth_coefficient") if key in known}
    return settings
