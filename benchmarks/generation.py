"""How fast the bot answers: tokens/s and seconds to the first token, per precision, adapter merged and unmerged.

Each case in its own process, greedy with the chat page's settings. An adapter fresh from peft computes as much as a
trained one. Merging into int8 or nf4 loses the adapter (7.2), so "merged" there is the plain quantized model: what a
model merged in 16 or 32 bits and quantized again would be.
"""

import argparse
import json
import statistics
import sys
import time

from benchmarks.common import run_json, save
from benchmarks.rows import SYSTEM

QUESTION = "医生，我全身疼痛，发烧38.5，还有咳嗽，请问该咋办？"


def cases(avx512_bf16: bool) -> list[dict]:
    """Return the cases; ``repack``: nf4 with bitsandbytes' AVX512-BF16 kernel, right for inference only (7.2)."""
    chosen = [dict(precision=p, adapter=a) for p in ("fp32", "bf16", "int8", "nf4") for a in ("merged", "unmerged")]
    return chosen + ([dict(precision="nf4", adapter="merged", repack=True)] if avx512_bf16 else [])


def measure(precision: str, adapter: str, repack: bool = False, tokens: int = 48, rounds: int = 3) -> dict:
    """Return lists of seconds to the first token and of tokens/s after it, and the seconds that loading took."""
    import torch
    from peft import get_peft_model

    from helpers.formatting import encode_chat, set_chat_template
    from helpers.lora import lora_config
    from helpers.models import load_model, load_tokenizer
    from helpers.sizes import SMOLLM2

    started = time.perf_counter()
    tokenizer = set_chat_template(load_tokenizer(SMOLLM2))
    model = load_model(SMOLLM2, precision)
    if adapter == "unmerged" or precision in ("fp32", "bf16"):
        model = get_peft_model(model, lora_config())
        model = model if adapter == "unmerged" else model.merge_and_unload()
    for module in model.modules() if repack else ():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = True
    model.eval()
    loading = time.perf_counter() - started
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    ids = torch.tensor([encode_chat(tokenizer, messages, reply=True)["input_ids"]])
    settings = dict(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, repetition_penalty=1.1)
    settings["pad_token_id"] = tokenizer.pad_token_id

    def seconds(count: int) -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            model.generate(**settings, max_new_tokens=count, min_new_tokens=count)
        return time.perf_counter() - start

    seconds(2)  # the first call sets things up
    first = [seconds(1) for _ in range(rounds)]
    rates = [(tokens - 1) / (seconds(tokens) - statistics.median(first)) for _ in range(rounds)]
    return dict(first_token=first, tokens_per_second=rates, load_seconds=loading, prompt_tokens=ids.shape[1])


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("{"):
        print(json.dumps(measure(**json.loads(sys.argv[1]))))
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    import torch

    results = []
    for case in cases(bool(torch.cpu.get_capabilities().get("avx512_bf16"))):
        results.append(case | run_json("benchmarks.generation", case | vars(options)))
        rate, first = (statistics.median(results[-1][key]) for key in ("tokens_per_second", "first_token"))
        memory = results[-1]["peak_mib"]
        print(f"{case}: {rate:.1f} tokens/s, first token {first:.2f} s, {memory:.0f} MiB", flush=True)
    save("generation", dict(settings=vars(options), results=results))
