"""Decoding at the shapes of MolmoAct-7B-D on a GPU: random weights, compact spelling, two pictures, 8 x 7 actions, bfloat16.

A random network's text says nothing about acceptance, so drafts are teacher-forced: the answer of plain decoding, with a share 1 - p of
its values replaced by other ones. The engine then accepts exactly p; what else it could guess from (earlier values of the
same answer) is switched off. Peer: `transformers` generate on the same weights, unmasked, told the length of the answer.

    prefill ms | ms a block by width | chain ms at p = .8 .9 .95 1 and at .9 with actions at .5 | parallel block
    chunks/s at 1 4 8 16 sessions | memory

Run: python benchmarks/decode_gpu.py            writes benchmarks/results/decode_gpu.json; without a CUDA device it says so and ends
     python benchmarks/decode_gpu.py --device cpu --tiny     the same path at toy size, nothing written
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "decode_gpu.json"
ACCEPTANCES = (0.8, 0.9, 0.95, 1.0)
SESSIONS = (1, 4, 8, 16)
WARM = 6
PROMPT = 558  # tokens of a two-camera prompt as published
TARGET_MS, STRETCH_MS, PARALLEL_MS = 292.0, 188.0, 120.0


def shapes(tiny: bool):
    """(config, layout, processor) of 7B-D, or of a toy with the same parts."""
    from model_core.network.images import ImageProcessor
    from model_core.network.presets import molmoact_7b_d
    from model_core.tokenization.compact.layout import CompactLayout, CompactVocabulary

    vocabulary = CompactVocabulary(words=tuple(f"w{number:03}" for number in range(256)))
    grid, views, proprio = ((1, 1), 2, 8) if tiny else ((14, 14), 2, 8)
    image = grid[0] * (grid[1] + 1) + 2
    words = 8 if tiny else PROMPT - views * image - proprio - 1
    layout = CompactLayout(
        vocabulary=vocabulary,
        chunk_length=8,
        action_dims=7,
        proprio_dims=proprio,
        views=views,
        patch_grid=grid,
        max_words=words,
        image_marks=True,
    )
    config = replace(molmoact_7b_d(), image_patch_id=vocabulary.im_patch_id)
    if tiny:
        small = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
        vit = replace(
            config.vit,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            image_default_input_size=(28, 28),
            image_num_pos=4,
            **small,
        )
        adapter = replace(config.adapter, vit_layers=(-1, -2), hidden_size=16, intermediate_size=16, text_hidden_size=32, **small)
        llm = replace(config.llm, hidden_size=32, vocab_size=2048, num_hidden_layers=2, intermediate_size=32, **(small | {"head_dim": 16}))
        config = replace(config, vit=vit, adapter=adapter, llm=llm)
    processor = ImageProcessor(crop_mode="resize", base_image_input_size=config.vit.image_default_input_size)
    return config, layout, processor


def random_network(config, device, dtype):
    """The network with random weights, made where it stays."""
    import torch

    from model_core.network.model import MolmoAct

    with torch.device("meta"):
        model = MolmoAct(config).to(dtype)
    model = model.to_empty(device=device)
    generator = torch.Generator(device=device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln" in name.split(".")[-2]:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                parameter.normal_(0.0, 0.02, generator=generator)
    return model.eval()


def asked(layout, count: int):
    """Questions with random pictures and words."""
    import numpy as np

    from model_core.engine.decode_request import DecodeRequest

    rng = np.random.default_rng(0)
    words = layout.vocabulary.word
    return [
        DecodeRequest(
            images_VHW3=rng.integers(0, 256, (layout.views, 240, 320, 3), dtype=np.uint8),
            words_W=rng.integers(words.start, words.stop, layout.max_words),
            proprio_bins_P=rng.integers(0, 256, layout.proprio_dims),
        )
        for _ in range(count)
    ]


def language_of(layout, processor):
    """The compact language over pictures as the published processor makes them."""
    from model_core.engine.decode_request import CompactLanguage, Prompt

    class Compact7B(CompactLanguage):
        def prompt(self, question) -> Prompt:
            inputs = processor(list(question.images_VHW3)).tensors()
            return replace(
                super().prompt(question),
                images=inputs["images_BCPD"],
                pooled_patches_idx=inputs["pooled_patches_idx_BN4"],
                image_masks=inputs["image_masks_BCP"],
            )

    return Compact7B(layout)


def drafted(language, answer, share: dict[str, float], seed: int):
    """The answer as drafts, each value replaced by another one with probability 1 - share of its field."""
    import numpy as np

    from model_core.engine.automaton import walk
    from model_core.engine.decode_request import Drafts

    rng, grammar = np.random.default_rng(seed), language.grammar
    ids = walk(grammar, language.begin(answer[0]), answer[1].ids_L.tolist())
    found = {}
    for state, token in ids.items():
        others = [int(other) for other in grammar.groups[grammar.group(state)] if other != token]
        keep = not others or rng.random() < share[grammar.stage(state).value]
        found[state] = token if keep else others[int(rng.integers(len(others)))]
    return Drafts(ids=found)


def timed(work, runs: int, device, *, warm: int = 1) -> tuple[float, object]:
    """Median milliseconds, and the last result. The first `warm` runs are not counted: the engine learns how good its drafts are."""
    import numpy as np
    import torch

    times, result = [], None
    for _ in range(runs + warm):
        began = time.perf_counter()
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - began) * 1e3)
    return float(np.median(times[warm:])), result


def measure(options) -> dict:
    """Everything, smallest first, so that a run that is cut short has said something."""
    import torch

    from components.evaluation.decoding.hf_peer import Generation, HfPeer
    from components.evaluation.decoding.replay import machine
    from model_core.engine.decode import DecodingEngine
    from model_core.engine.resources import EngineOptions
    from model_core.engine.rounds.parallel import BlockUse
    from model_core.engine.rounds.window import Acceptance

    device, dtype = torch.device(options.device), torch.bfloat16
    config, layout, processor = shapes(options.tiny)
    model = random_network(config, device, dtype)
    language, questions = language_of(layout, processor), asked(layout, max(SESSIONS))
    alone = {"refine": False, "echo": False}  # nor what the engine said last: that would be the answer itself
    engine = DecodingEngine(model, language, EngineOptions(dtype=dtype, **alone))
    plain = DecodingEngine(model, language, EngineOptions(dtype=dtype, speculate=False, numerics=engine.numerics))
    runs = options.runs
    said: dict = {"tile": engine.numerics.tile, "bound": engine.numerics.bound, "prompt_tokens": layout.prompt_length}
    print(f"numerics: {engine.numerics}", flush=True)
    said["block_ms_by_width"] = {str(width): ms for width, ms in engine.costs.at(1).items()}
    print(f"ms a block by width: {said['block_ms_by_width']}", flush=True)

    plain_ms, decoded = timed(lambda: plain.decode(questions[:1]), runs, device)
    reference = decoded.answers[0]
    said |= {"plain_ms": plain_ms, "answer_tokens": len(reference.ids_L), "prefill_ms": reference.timing_ms["prefill"]}
    said["vision_ms"] = reference.timing_ms["vision"]
    print(
        f"plain {plain_ms:.0f} ms, {len(reference.ids_L)} tokens, prefill {said['prefill_ms']:.1f}, vision {said['vision_ms']:.1f}",
        flush=True,
    )

    shares = {f"{p:g}": dict.fromkeys(("depth", "trace", "action"), p) for p in ACCEPTANCES}
    shares["0.9, actions 0.5"] = {"depth": 0.9, "trace": 0.9, "action": 0.5}
    said["chain"] = {}
    for name, share in shares.items():
        drafts = drafted(language, (questions[0], reference), share, seed=1)
        engine.acceptance = Acceptance()
        chain_ms, fast = timed(lambda drafts=drafts: engine.decode(questions[:1], [drafts]), runs, device, warm=WARM)
        same = fast.answers[0].ids_L.tolist() == reference.ids_L.tolist()
        counts = dict(fast.answers[0].counts)
        said["chain"][name] = {"ms": chain_ms, "tokens_equal": same, "forwards": counts["forwards"], "guarded": counts.get("guarded", 0)}
        print(f"acceptance {name}: {chain_ms:.0f} ms, {counts['forwards']} forwards, tokens {'equal' if same else 'DIFFERENT'}", flush=True)

    block = DecodingEngine(model, language, EngineOptions(dtype=dtype, block=BlockUse.PREDICT, numerics=engine.numerics, **alone))
    drafts = drafted(language, (questions[0], reference), shares["0.9"], seed=1)
    said["parallel_block_ms"], _ = timed(lambda: block.decode(questions[:1], [drafts]), runs, device, warm=WARM)
    print(f"parallel block, depth and trace at 0.9: {said['parallel_block_ms']:.0f} ms", flush=True)

    said["generate"] = {}
    for cache in ("dynamic", "static"):
        peer = HfPeer(model, language, Generation(cache=cache, masked=False))
        said["generate"][cache], _ = timed(lambda peer=peer: peer.answer(questions[0], len(reference.ids_L)), max(1, runs // 2), device)
        print(f"generate, {cache} cache: {said['generate'][cache]:.0f} ms", flush=True)
    said["speedup_over_generate"] = min(said["generate"].values()) / said["chain"]["0.9, actions 0.5"]["ms"]

    references = [plain.decode([question]).answers[0] for question in questions]
    every = [drafted(language, pair, shares["0.9, actions 0.5"], seed) for seed, pair in enumerate(zip(questions, references, strict=True))]
    said["chunks_per_s"] = {}
    for count in SESSIONS:
        ms, together = timed(lambda count=count: engine.decode(questions[:count], every[:count]), runs, device, warm=2)
        same = all(a.ids_L.tolist() == b.ids_L.tolist() for a, b in zip(together.answers, references[:count], strict=True))
        said["chunks_per_s"][str(count)] = {"chunks_per_s": count / ms * 1e3, "tokens_equal": same}
        print(f"{count} session(s): {count / ms * 1e3:.2f} chunks/s, tokens {'equal' if same else 'DIFFERENT'}", flush=True)
    if device.type == "cuda":
        said["peak_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    said["targets_ms"] = {"chain at .9, actions .5": TARGET_MS, "stretch": STRETCH_MS, "parallel block": PARALLEL_MS}
    said["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    return said | {"machine": machine("bfloat16", str(device))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto (a CUDA device, else nothing is measured), cuda, cuda:1 or cpu")
    parser.add_argument("--tiny", action="store_true", help="toy shapes: tests the path, its numbers mean nothing")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None, help=f"default: {RESULT.relative_to(ROOT)}; nothing with --tiny")
    options = parser.parse_args()
    import torch

    if options.device == "auto" or options.device.startswith("cuda"):
        if not torch.cuda.is_available():
            print("no CUDA device here, nothing was measured; try --device cpu --tiny to test the path", file=sys.stderr)
            raise SystemExit(0 if options.device == "auto" else 2)
        options.device = "cuda" if options.device == "auto" else options.device
    elif not options.tiny:
        print("7B shapes need a CUDA device; type --device cpu --tiny to test the path", file=sys.stderr)
        raise SystemExit(2)
    result = measure(options)
    out = options.out or (None if options.tiny else RESULT)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))
    equal = all(row["tokens_equal"] for row in (*result["chain"].values(), *result["chunks_per_s"].values()))
    raise SystemExit(0 if equal else 3)


if __name__ == "__main__":
    main()
