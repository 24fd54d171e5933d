"""MolmoAct: vision backbone, decoder and head in one module whose `state_dict` is the published checkpoint's.

Source: arXiv 2508.07917 and the layout of the published checkpoints. One implementation serves 7B-D, 7B-O
and the tiny models; only `MolmoActConfig` differs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_core.network.attention import Documents
from model_core.network.config import MolmoActConfig
from model_core.network.int8.linear import exchange_linears
from model_core.network.int8.stored import is_int8
from model_core.network.language import Decoder, KeyValueCache
from model_core.network.vision import VisionBackbone
from model_core.spec.errors import SpecError


class _Inner(nn.Module):
    """The `model.` level of the published keys."""

    def __init__(self, config: MolmoActConfig) -> None:
        super().__init__()
        self.transformer = Decoder(config.llm, config.attention)
        self.vision_backbone = VisionBackbone(config)


class MolmoAct(nn.Module):
    """The action reasoning model: image features are *added* to the image-patch embeddings of a causal decoder.

    Where the config says that its weights are int8, its linear layers are `network.int8.linear.Int8Linear`.

    Shapes: B samples, L tokens, C crops, P patches a crop, N pooled image tokens a sample, D width, X base vocabulary.
    """

    def __init__(self, config: MolmoActConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Inner(config)
        self.lm_head = nn.Linear(config.llm.hidden_size, config.llm.vocab_size, bias=False)
        if is_int8(config.extras):
            exchange_linears(self)

    def encode_images(self, images_BCPD: Tensor, pooled_patches_idx_BN4: Tensor, image_masks_BCP: Tensor | None = None) -> Tensor:
        """Features of the valid pooled tokens, [tokens, D], samples in order. See `VisionBackbone.forward`."""
        return self.model.vision_backbone(images_BCPD, pooled_patches_idx_BN4, image_masks_BCP)

    def connect_images(self, features_BCPD: Tensor, pooled_patches_idx_BN4: Tensor, image_masks_BCP: Tensor | None = None) -> Tensor:
        """What `encode_images` gives, of crops whose patch features are known already. See `VisionBackbone.connect`."""
        return self.model.vision_backbone.connect(features_BCPD, pooled_patches_idx_BN4, image_masks_BCP)

    def embed(self, input_ids_BL: Tensor, image_features_ND: Tensor | None = None) -> Tensor:
        """x_BLD: token embeddings, with one image feature added at each `image_patch_id`, in order.

        Raises SpecError when the number of features is not the number of image-patch tokens.
        """
        x_BLD = self.model.transformer.wte(input_ids_BL)
        if image_features_ND is None:
            return x_BLD
        places = (input_ids_BL == self.config.image_patch_id).flatten().nonzero().squeeze(1)
        if len(places) != len(image_features_ND):
            raise SpecError(f"{len(places)} image-patch tokens in the prompt but {len(image_features_ND)} image features")
        flat = x_BLD.flatten(0, 1).index_add(0, places, image_features_ND.to(x_BLD.dtype))
        return flat.view_as(x_BLD)

    def trunk(
        self, x_BLD: Tensor, position_ids_BL: Tensor, attention_mask: Tensor | Documents | None = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Final hidden states h_BLD, after `ln_f`; causal.

        attention_mask: None, [B, T] with 0 at padding (T = cached + new tokens), or bool [B, 1, L, T] with True where a
        key may be seen (then nothing else is masked), or `Documents` that lie one after
        the other in each row (positions begin at 0 in each). With a cache, the new tokens start at slot `cache.start`.
        """
        return self.model.transformer(x_BLD, position_ids_BL, attention_mask, cache)

    def logits(self, h_BLD: Tensor) -> Tensor:
        """h_BLX over the base vocabulary: the image tokens are input-only."""
        return self.lm_head(h_BLD)

    def forward(
        self,
        input_ids_BL: Tensor,
        images_BCPD: Tensor | None = None,
        pooled_patches_idx_BN4: Tensor | None = None,
        image_masks_BCP: Tensor | None = None,
        attention_mask_BL: Tensor | None = None,
        position_ids_BL: Tensor | None = None,
    ) -> Tensor:
        """Logits of a whole prompt; meaningful where `attention_mask_BL` is 1. Padding is on the left."""
        features = None
        if images_BCPD is not None:
            if pooled_patches_idx_BN4 is None:
                raise SpecError("images were given without pooled_patches_idx; pass what ImageProcessor returned")
            features = self.encode_images(images_BCPD, pooled_patches_idx_BN4, image_masks_BCP)
        if position_ids_BL is None:
            position_ids_BL = default_position_ids(input_ids_BL, attention_mask_BL)
        return self.logits(self.trunk(self.embed(input_ids_BL, features), position_ids_BL, attention_mask_BL))

    @torch.no_grad()
    def init_weights(self, seed: int = 0, *, std: float = 0.02) -> None:
        """Random start for models that are trained from scratch: scaled normals, unit norms, zero biases.

        Linear and convolution weights get 1/sqrt(fan in), residual outputs divided by sqrt(2 x layers); embedding rows
        and positions get `std`.
        """
        generator = torch.Generator().manual_seed(seed)
        depth = max(1, 2 * self.config.llm.num_hidden_layers)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name or "ln" in name.split(".")[-2]:
                parameter.fill_(1.0)
            elif "embed" in name and "patch_embedding" not in name:
                parameter.normal_(0.0, std, generator=generator)
            else:
                scale = parameter[0].numel() ** -0.5
                if "transformer.blocks" in name and name.endswith(("attn_out.weight", "ff_out.weight")):
                    scale /= depth**0.5
                parameter.normal_(0.0, scale, generator=generator)


def default_position_ids(input_ids_BL: Tensor, attention_mask_BL: Tensor | None) -> Tensor:
    """Positions 0..n-1 over the valid tokens of each row; padding gets 0."""
    if attention_mask_BL is None:
        return torch.arange(input_ids_BL.shape[1], device=input_ids_BL.device).expand_as(input_ids_BL)
    return (attention_mask_BL.long().cumsum(-1) - 1).clamp(min=0)
