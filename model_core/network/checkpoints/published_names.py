"""How the files of a folder name the published classes, which are loaded by these names once their code lies in the folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PROCESSOR = "MolmoActProcessor"
CONFIG_NAMES: Mapping[str, Any] = {
    "auto_map": {
        "AutoConfig": "configuration_molmoact.MolmoActConfig",
        "AutoModelForImageTextToText": "modeling_molmoact.MolmoActForActionReasoning",
    },
    "tie_word_embeddings": False,
}
PREPROCESSOR_NAMES: Mapping[str, Any] = {
    "auto_map": {
        "AutoImageProcessor": "image_processing_molmoact.MolmoActImageProcessor",
        "AutoProcessor": f"processing_molmoact.{_PROCESSOR}",
    },
    "image_processor_type": "MolmoActImageProcessor",
    "processor_class": _PROCESSOR,
}
# the settings that the published processor has by default
PROCESSOR: Mapping[str, Any] = {
    "auto_map": {"AutoProcessor": f"processing_molmoact.{_PROCESSOR}"},
    "processor_class": _PROCESSOR,
    "always_start_with_space": False,
    "default_inference_len": 65,
    "image_padding_mask": False,
    "message_format": "role",
    "prompt_templates": "uber_model",
    "style": "demo",
    "system_prompt": "demo_or_style",
    "use_col_tokens": True,
}
