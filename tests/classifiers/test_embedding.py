import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from classifiers.embedding import embed
from stages.contract import TEXT

WORDS = ["[UNK]", "cat", "dog", "sat", "ran", "tax", "law"]
VECTORS = np.array([[0, 0, 0], [1, 0, 0], [0.9, 0.1, 0], [0.2, 1, 0], [0.1, 0.9, 0], [0, 0, 1], [0, 0.1, 0.9]], np.float16)


def model(folder: Path) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    raw = VECTORS.tobytes()
    header = json.dumps(
        {"embedding.weight": {"dtype": "F16", "shape": list(VECTORS.shape), "data_offsets": [0, len(raw)]}}
    ).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + raw)
    return str(folder)


def embedded(texts: list[str | None], place: str, **params: object) -> list[list[float] | None]:
    chosen = embed.params(model=place, **params)
    found: list[list[float] | None] = embed(pa.table({"text": pa.array(texts, TEXT)}), chosen, model=embed.model(chosen))[
        "embedding"
    ].to_pylist()
    return found


def test_a_static_model_gives_the_mean_direction_of_its_tokens(tmp_path: Path) -> None:
    place = model(tmp_path)
    (got, near, far, nothing, empty) = embedded(["cat sat", "dog ran", "tax law", None, ""], place)
    expected = VECTORS[[1, 3]].astype(np.float64).sum(axis=0)
    assert got == pytest.approx((expected / np.linalg.norm(expected)).tolist(), abs=1e-4)
    assert np.dot(got, near) > 0.98
    assert np.dot(got, far) < 0.2
    assert nothing is None
    assert empty is None


def test_the_batch_has_no_say_and_limits_hold(tmp_path: Path) -> None:
    place = model(tmp_path)
    texts = ["cat", "cat sat on the dog and ran", "law " * 50, "tax"]
    assert embedded(list(texts), place) == [embedded([t], place)[0] for t in texts]
    assert embedded(["cat " * 2 + "tax " * 50], place, max_tokens=2) == embedded(["cat"], place)
    assert embedded(["cat " * 2 + "tax " * 50], place, max_chars=8) == embedded(["cat"], place)


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds 0 models"):
        embed.model(embed.params(model=str(tmp_path)))
    place = model(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="no tokenizer there"):
        embed.model(embed.params(model=place))
