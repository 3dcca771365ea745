"""How much of a document is function words of its language: lists of tags and menus have few, prose has many."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from stages.analysis import PROVIDERS, column_of, hashes, token_view
from stages.contract import map_stage
from stages.filters.rules import Rule, Worded, languages, reads_words, share, verdict, with_columns

LISTS: Final[dict[str, tuple[str, ...]]] = {
    language: tuple(words.split())
    for language, words in {
        "ar": "في من على إلى عن أن إن ما لا هذا هذه التي الذي كان كانت مع أو و ثم قد لم كل بعد بين هو هي كما حتى ذلك",
        "bg": "и на да в от за се не с че по са е си ще като до това към но или което който при той тя",
        "cs": "a v na je se že s z do o i to ve pro jako za k po by ale od jsou byl bylo které který při jeho nebo jsem",
        "da": "og i at er en det til på som for den med de af har ikke et var fra om kan der men vi han blev sig eller",
        "de": "der die das und in den von zu mit ist im für auf nicht ein eine des dem als auch es an sich werden aus wie dass",
        "el": "και το της του η ο να των με για που στο από την τα οι σε τη δεν είναι στην τον ένα μια στη θα ότι ως",
        "en": "the of and to in a is that for it as was with be on by at this are from or have an not but they which you we his",
        "es": "de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le ha este",
        "fa": "و در به از که این را با است برای آن یک خود تا کرد بر هم نیز شد می شده یا اما او ما هر بود",
        "fi": "ja on ei se että oli hän mutta ovat kun niin tai myös joka sen ole mukaan kuin jos vain ne sekä voi hänen jo en",
        "fr": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec son aux",
        "he": "של את על לא הוא זה עם כי היא גם או אם אני כל יותר רק מה היה אך בין לפני כמו אבל אל הם יש",
        "hi": "के में की है और से का को एक पर ने यह भी कि था हैं नहीं इस लिए तो कर ही जो हो या गया थे",
        "hu": "a az és hogy nem is egy van ez meg volt de csak már azt mint ha még el vagy ezt kell aki fel volna pedig",
        "id": "yang dan di dengan untuk dari ini pada itu dalam tidak adalah akan ke oleh juga ada atau telah sebagai lebih",
        "it": "di e la che il in a per un è del non una le si i con da dei nel al sono della come più gli ha o alla ma",
        "ja": "の に は を た が で て と し れ さ い る も な か こ ら あ そ り す",
        "ko": "이 그 및 수 있는 있다 것 등 더 한 할 의 를 은 는 에 가 위해 대한 하는 것이다 그리고 또한 했다 같은 한다",
        "nl": "de van het een en in is dat op te met voor zijn niet die aan er om ook als bij of door maar naar hij was",
        "no": "og i er på det som en til for av at med de har ikke den et var fra om kan men vi han seg ble eller ved",
        "pl": "w i na z się nie do to że jest o jak za po od ale przez dla są co tym być tylko może jego już było oraz",
        "pt": "de a o que e do da em um para com não uma os no se na por mais as dos como mas ao das à foi são ou seu",
        "ro": "de și în a la cu o pe că nu din care pentru un mai este se sau fi au ce al prin era dar său sunt fost",
        "ru": "и в не на что с по как это а из к но у за от о для он все же так его то был или мы они",
        "sk": "a v na je sa že s z do o aj to vo pre ako za k po by ale od sú bol bolo ktoré ktorý pri jeho alebo som",
        "sr": "и у је да се на за од са су као не о а који из до то што или i u je da se na za od sa su kao ne o a koji",
        "sv": "och i att det som en på är av för med till den har inte om ett men var jag sig så vi de från kan han eller",
        "sw": "ya na wa kwa ni katika za la kuwa hiyo hii huo huu lakini pia au kama yake wao yao hilo cha vya kuna si",
        "tr": "ve bir bu için ile de da olarak çok daha olan gibi en ne var o ki kadar sonra ise değil ya her ama olduğu",
        "uk": "і в не на що з у та до як це за від про але його для по є він а або так був вони ми також при",
        "ur": "کے میں کی ہے اور سے کا کو ایک پر نے یہ بھی کہ تھا ہیں نہیں اس لیے تو کر ہی جو ہو یا گیا",
        "vi": "và của là có trong được cho các với một không những này đã để người khi từ ra đến cũng như về vào ở sẽ nhưng",
        "zh": "的 是 在 了 不 有 和 人 这 中 大 为 上 个 我 以 要 他 时 来 们 到 就 出 也 會 這 為 個 時 來 們",
    }.items()
}
"""Frequent function words of 33 languages, lower-cased, chosen and written down by hand; of Chinese and Japanese
single characters, because there a character is a word of the plain splitter."""

LOWER: Final[dict[str, float]] = {
    "ar": 0.06, "cs": 0.06, "fi": 0.04, "he": 0.03, "id": 0.05, "ko": 0.01, "sk": 0.06, "sr": 0.06, "tr": 0.04, "uk": 0.06,
    "zh": 0.05,
}  # fmt: skip
"""Languages that write function words as endings or prefixes, or whose short news passages often stay under 0.08."""

SLOTS: Final = 1 << 8


class Share(Worded):
    """Parameters of `per_language`."""

    min_share: float = Field(0.08, ge=0, le=1, description="Smallest share of words that are stop words (see the docstring).")
    min_shares: dict[str, float] = Field(LOWER, description="Language to another smallest share.")
    min_words: int = Field(20, description="Documents with fewer words are not judged: too short for a share.")
    more: dict[str, tuple[str, ...]] = Field({}, description="Language to a list that replaces the shipped one, lower-cased.")


def _writes(params: Any) -> dict[str, pa.DataType]:
    return {"drop_reason": pa.string(), **({"stop_word_share": pa.float32()} if params.stats else {})}


def _table(words: tuple[str, ...]) -> NDArray[np.uint64]:
    """Open addressing of the hashes of a list."""
    slots = np.zeros(SLOTS, np.uint64)
    if len(words) > SLOTS // 2:
        raise ValueError(f"more: at most {SLOTS // 2} words a language, got {len(words)}")
    for key in hashes(list(words)):
        at = int(key) & (SLOTS - 1)
        while slots[at] not in (0, key):
            at = (at + 1) & (SLOTS - 1)
        slots[at] = key
    return slots


@cache
def _shipped() -> dict[str, NDArray[np.uint64]]:
    return {language: _table(words) for language, words in LISTS.items()}


@map_stage(version=1, reads=reads_words, writes=_writes, derived=PROVIDERS)
def per_language(batch: pa.Table, params: Share) -> pa.Table:
    """Reason too_few_stop_words by the share of words in the list of the row's language; `stop_word_share` with `stats`.

    Rows of a language without a list stand (their share is null), and so do rows with few words. The idea is Gopher's
    stop-word rule (arXiv 2112.11446, A1.1) made a share, as FineWeb2 does by language; the thresholds are ours, set so that
    news passages of one to four sentences stay above them in nearly all of these languages.
    """
    from stages.filters import stopword_kernel

    spoken = languages(batch, params)
    tables = _shipped() | {language: _table(words) for language, words in params.more.items()}
    names = sorted(tables)
    lists = np.asarray(pc.index_in(spoken, value_set=pa.array(names, pa.string())).fill_null(-1)).astype(np.int64)
    tokens, starts = token_view(batch[column_of(params.words)])
    counts = np.zeros((batch.num_rows, 2), np.int64)
    stopword_kernel.listed_words(tokens, starts, np.stack([tables[name] for name in names]), lists, counts)
    shares = share(counts[:, 1], counts[:, 0])
    limits = np.array([params.min_shares.get(name, params.min_share) for name in names])[lists]
    few = (shares < limits) & (lists >= 0) & (counts[:, 0] >= params.min_words)
    reasons = verdict([Rule("too_few_stop_words", few)], spoken, params)
    known = np.where(lists >= 0, shares, np.nan)
    return with_columns(batch, reasons, {"stop_word_share": known}, _writes(params))
