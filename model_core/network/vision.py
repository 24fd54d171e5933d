"""Vision: patches -> ViT -> 2x2 index attention pooling -> SwiGLU projector -> one feature per image token.

Shape letters: B samples, C crops, P patches of a crop, N pooled tokens of a sample, D width.
Module and parameter names are the published checkpoint's keys.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.network.attention import ACTIVATIONS, attend
from model_core.network.config import MolmoActConfig, VitConfig
from model_core.spec.errors import SpecError


class ImageAttention(nn.Module):
    """Multi-head attention with biased projections; used by the ViT blocks and by the pooling."""

    def __init__(
        self, *, input_dim: int, hidden_size: int, heads: int, kv_heads: int, head_dim: int, float32_attention: bool, implementation: str
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.float32_attention, self.implementation = float32_attention, implementation
        self.wq = nn.Linear(input_dim, heads * head_dim)
        self.wk = nn.Linear(input_dim, kv_heads * head_dim)
        self.wv = nn.Linear(input_dim, kv_heads * head_dim)
        self.wo = nn.Linear(heads * head_dim, hidden_size)

    def forward(self, queries_BLD: Tensor, keys_BTD: Tensor) -> Tensor:
        """Attend from every query to every key, without a mask."""
        q = self._split(self.wq(queries_BLD), self.heads)
        k = self._split(self.wk(keys_BTD), self.kv_heads)
        v = self._split(self.wv(keys_BTD), self.kv_heads)
        if self.float32_attention and q.dtype != torch.float32:
            # The published tower takes q and k to float32 and lets the result fall back to the values' dtype.
            out = attend(q.float(), k.float(), v.float(), mask=None, causal=False, implementation=self.implementation).to(v.dtype)
        else:
            out = attend(q, k, v, mask=None, causal=False, implementation=self.implementation)
        return self.wo(out.transpose(1, 2).flatten(2))

    def _split(self, x_BLD: Tensor, heads: int) -> Tensor:
        return x_BLD.unflatten(-1, (heads, self.head_dim)).transpose(1, 2)


class ImageMlp(nn.Module):
    """w2(act(w1 x)) with biases."""

    def __init__(self, hidden_size: int, intermediate_size: int, hidden_act: str) -> None:
        super().__init__()
        self.w1 = nn.Linear(hidden_size, intermediate_size)
        self.w2 = nn.Linear(intermediate_size, hidden_size)
        self.act = ACTIVATIONS[hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the two layers."""
        return self.w2(self.act(self.w1(x)))


class ImageBlock(nn.Module):
    """One pre-LayerNorm transformer block."""

    def __init__(self, vit: VitConfig, implementation: str) -> None:
        super().__init__()
        self.attention = ImageAttention(
            input_dim=vit.hidden_size,
            hidden_size=vit.hidden_size,
            heads=vit.num_attention_heads,
            kv_heads=vit.num_key_value_heads,
            head_dim=vit.head_dim,
            float32_attention=vit.float32_attention,
            implementation=implementation,
        )
        self.feed_forward = ImageMlp(vit.hidden_size, vit.intermediate_size, vit.hidden_act)
        self.attention_norm = nn.LayerNorm(vit.hidden_size, eps=vit.layer_norm_eps)
        self.ffn_norm = nn.LayerNorm(vit.hidden_size, eps=vit.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Add attention, then the MLP."""
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed)
        return x + self.feed_forward(self.ffn_norm(x))


class ConvStem(nn.Module):
    """Stride-2 3x3 convolutions over the whole crop, then one 3x3 onto the width: the same grid as a patch embedding."""

    def __init__(self, vit: VitConfig) -> None:
        super().__init__()
        self.patch, self.grid = vit.image_patch_size, vit.grid
        widths = (3, *vit.stem_channels)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.out = nn.Conv2d(widths[-1], vit.hidden_size, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """[crops, P, patch_dim] normalised patches, or [crops, H, W, 3] uint8 frames -> [crops, P, D]."""
        x = self._to_raster(images)
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.out(x).flatten(2).transpose(1, 2)

    def _to_raster(self, images: Tensor) -> Tensor:
        dtype = self.out.weight.dtype
        if images.dtype == torch.uint8:
            return images.permute(0, 3, 1, 2).to(dtype).div(127.5).sub(1.0)
        (rows, cols), size = self.grid, self.patch
        x = images.to(dtype).view(-1, rows, cols, size, size, 3)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, rows * size, cols * size)


class VisionTransformer(nn.Module):
    """The tower up to the deepest block whose output is used; no final norm, no pooling head."""

    def __init__(self, config: MolmoActConfig) -> None:
        super().__init__()
        vit = config.vit
        self.config = vit
        if vit.patch_stem == "conv":
            self.patch_embedding = ConvStem(vit)
        else:
            self.patch_embedding = nn.Linear(vit.patch_dim, vit.hidden_size, bias=vit.patch_bias)
        self.positional_embedding = nn.Parameter(torch.zeros(vit.image_num_pos, vit.hidden_size))
        if vit.use_cls_token:
            self.class_embedding = nn.Parameter(torch.zeros(vit.hidden_size))
        if vit.pre_layernorm:
            self.pre_ln = nn.LayerNorm(vit.hidden_size, eps=vit.layer_norm_eps)
        self.transformer = nn.ModuleDict(
            {"resblocks": nn.ModuleList(ImageBlock(vit, config.attention) for _ in range(config.vit_blocks))},
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """[crops, P, patch_dim] -> [stem output, block 0, block 1, ...], each [crops, P, D] without the class token."""
        weight = self.positional_embedding
        if self.config.further_input_sizes:  # read from frames alone, [crops, H, W, 3]
            weight = weight[self.config.position_rows(*images.shape[1:3])]
        x = self.patch_embedding(images if images.dtype == torch.uint8 else images.to(weight.dtype))
        if self.config.use_cls_token:
            x = torch.cat([self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
        x = x + weight.to(x.dtype)
        if self.config.pre_layernorm:
            x = self.pre_ln(x)
        states = [x]
        for block in self.transformer["resblocks"]:  # type: ignore[union-attr]
            x = block(x)
            states.append(x)
        return [state[:, 1:] for state in states] if self.config.use_cls_token else states


class ImageProjector(nn.Module):
    """SwiGLU without bias: w2(act(w1 x) * w3 x)."""

    def __init__(self, input_dim: int, inner: int, output_dim: int, hidden_act: str) -> None:
        super().__init__()
        self.w1 = nn.Linear(input_dim, inner, bias=False)
        self.w2 = nn.Linear(inner, output_dim, bias=False)
        self.w3 = nn.Linear(input_dim, inner, bias=False)
        self.act = ACTIVATIONS[hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """Project pooled image features to the decoder's width."""
        return self.w2(self.act(self.w1(x)) * self.w3(x))


class VisionBackbone(nn.Module):
    """Tower and connector: crops in, one decoder-width feature per valid pooled token out.

    published_padding: skip the padding embedding as the published inference does. Off by default: 7B-O was trained
    with it, and CLIP's letterbox pads every frame that is not square, so skipping it moves inference away from training.
    """

    def __init__(self, config: MolmoActConfig) -> None:
        super().__init__()
        adapter = config.adapter
        self.feature_layers = config.feature_layers
        self.pool_residual = adapter.pool_residual
        self.published_padding = False
        self.image_vit = VisionTransformer(config)
        self.image_pooling_2d = ImageAttention(
            input_dim=config.feature_width,
            hidden_size=adapter.hidden_size,
            heads=adapter.num_attention_heads,
            kv_heads=adapter.num_key_value_heads,
            head_dim=adapter.head_dim,
            float32_attention=adapter.float32_attention,
            implementation=config.attention,
        )
        self.image_projector = ImageProjector(adapter.hidden_size, adapter.intermediate_size, adapter.text_hidden_size, adapter.hidden_act)
        self.pad_embed = nn.Parameter(torch.zeros(2, config.feature_width)) if adapter.image_padding_embed else None

    def patch_features(self, images: Tensor) -> Tensor:
        """[crops, P, patch_dim] -> [crops, P, feature width]: the listed block outputs side by side."""
        states = self.image_vit(images)
        if not self.feature_layers:
            return states[-1]
        return torch.cat([states[layer + 1] for layer in self.feature_layers], dim=-1)

    def forward(self, images_BCPD: Tensor, pooled_patches_idx_BN4: Tensor, image_masks_BCP: Tensor | None = None) -> Tensor:
        """Features of the valid pooled tokens, [tokens, text width], samples in order.

        images_BCPD: normalised patches; a crop that is all -1 is padding of the batch and costs its forward only.
        With a conv stem also uint8 frames [B, C, H, W, 3].
        pooled_patches_idx_BN4: four patch indices over the sample's crops, -1 where a slot is empty.
        image_masks_BCP: share of each patch that is real image, 0..1; read only by models with padding embeddings.
        """
        batch, crops = images_BCPD.shape[:2]
        features_BCPD = self.patch_features(images_BCPD.flatten(0, 1)).unflatten(0, (batch, crops))
        return self.connect(features_BCPD, pooled_patches_idx_BN4, image_masks_BCP)

    def connect(self, features_BCPD: Tensor, pooled_patches_idx_BN4: Tensor, image_masks_BCP: Tensor | None = None) -> Tensor:
        """What `forward` gives, from the features that `patch_features` gave of its crops."""
        if self.pad_embed is not None and image_masks_BCP is not None and not self.published_padding:
            features_BCPD = features_BCPD + self._padding(image_masks_BCP, features_BCPD.dtype)
        return self.pool(features_BCPD.flatten(1, 2), pooled_patches_idx_BN4)

    def pool(self, features_BPD: Tensor, pooled_patches_idx_BN4: Tensor) -> Tensor:
        """Gather 2x2 windows, attend within each, project; windows with no patch at all are dropped."""
        batch, patches, width = features_BPD.shape
        highest = int(pooled_patches_idx_BN4.max()) if pooled_patches_idx_BN4.numel() else -1
        if highest >= patches:
            raise SpecError(
                f"pooled_patches_idx names patch {highest}, but a sample has {patches}; crops and indices do not belong together"
            )
        slot_valid_BN4 = pooled_patches_idx_BN4 >= 0
        offset = torch.arange(batch, device=features_BPD.device).view(-1, 1, 1) * patches
        flat = (pooled_patches_idx_BN4.clamp(min=0) + offset).flatten()
        # index_select and not fancy indexing: its backward is a plain index_add.
        windows = features_BPD.reshape(-1, width).index_select(0, flat).view(-1, pooled_patches_idx_BN4.shape[-1], width)
        token_valid = slot_valid_BN4.any(-1).flatten()
        slots = slot_valid_BN4.flatten(0, 1)
        if not bool(slots.all()):
            windows = windows[token_valid] * slots[token_valid][..., None].to(windows.dtype)
        query = windows.mean(1, keepdim=True)  # always divided by four, empty slots included, as published
        pooled = self.image_pooling_2d(query, windows)
        if self.pool_residual:
            pooled = pooled + query
        return self.image_projector(pooled.squeeze(1))

    def _padding(self, image_masks_BCP: Tensor, dtype: torch.dtype) -> Tensor:
        assert self.pad_embed is not None
        full = image_masks_BCP <= 0
        partly = (image_masks_BCP < 1) & ~full
        pad_2D = self.pad_embed.to(dtype)
        return full[..., None].to(dtype) * pad_2D[0] + partly[..., None].to(dtype) * pad_2D[1]
