"""The three parts of the network that are trained at rates of their own: decoder, connector and vision tower."""

from __future__ import annotations

GROUPS = ("llm", "connector", "vit")


def group_of(name: str) -> str:
    """The part that a parameter belongs to, by its published key (adapters stand behind the key of their layer).

    The rows of the image tokens (`new_embedding`) are trained with the connector, as in the published trainer.
    """
    if ".image_vit." in name:
        return "vit"
    return "connector" if ".vision_backbone." in name or "wte.new_embedding" in name else "llm"
