"""English strings that spaCy's tokenizer cuts, or leaves whole, against its own punctuation rules.

Contractions lose their clitic (`can't` is `ca` + `n't`, and so is `cant`), abbreviations keep their point. Written down as
rules over short word lists; the test compares the outcome with an installed spaCy.
"""
# ruff: noqa: SIM905 - word lists read better unquoted

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SUBJECTS: Final = ("i", "you", "he", "she", "it", "we", "they")
_ASKING: Final = ("who", "what", "when", "where", "why", "how", "there")
_NEGATED: Final = (
    "ca could do does did had may might must need ought sha should wo would ai are is was were have has dare"
).split()  # fmt: skip
_CONDITIONAL: Final = ("could", "might", "must", "should", "would")
_WORDS_AFTER_ALL: Final = "Ill ill Its its Hell hell Shell shell Shed shed were Were Well well Whore whore".split()
_UNCUT: Final = (
    "em 'em ll 'll nuff 'nuff 'S 's ‘S ‘s 're 'd 'bout and/or w/o ma'am Ma'am o'clock O'clock ' '' C++ — \\t \\n "
    "'Cause 'cause 'Cos 'cos 'Coz 'coz 'Cuz 'cuz "
    "Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. Kan. Kans. Ky. "
    "La. Mar. Mass. Mich. Minn. Miss. Mt. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. S.C. Sep. "
    "Sept. Tenn. Va. Wash. Wis. a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. Jr. Ltd. "
    "Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s. "
    "a. b. c. d. e. f. g. h. i. j. k. l. m. n. o. p. q. r. s. t. u. v. w. x. y. z. ä. ö. ü."
).split()
_DROPPED_G: Final = "doin goin nothin nuthin ol somethin lovin havin".split()
_CUT: Final = (
    "y'|all y|all how|'d|'y How|'d|'y not|'ve not|ve Not|'ve Not|ve can|not Can|not gon|na Gon|na got|ta Got|ta let|'s Let|'s "
    "c'm|on C'm|on °|c|. °|f|. °|k|. °|C|. °|F|. °|K|."
).split()
_FACES: Final = (
    ":) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) (; (-; :( :-( :(( :-(( :((( "
    ":-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o :* :-* :3 "
    ":-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- v.v V.V "
    "v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) (-_-) (._.) (>_<) (*_*)"
).split()  # fmt: skip


def _clitics(word: str) -> list[str]:
    """The endings that a subject or a question word takes, cut marks included."""
    if word in _SUBJECTS:
        found = ["'ll", "'ll|'ve", "'d", "'d|'ve"]
        found += ["'m", "'m|a"] if word == "i" else []
        found += ["'ve"] if word in ("i", "you", "we", "they") else []
        found += ["'re"] if word in ("you", "we", "they") else []
        return found + (["'s"] if word in ("he", "she", "it") else [])
    found = ["'ll", "'ll|'ve", "'d", "'d|'ve"]
    found += ["'s"] if word not in ("these", "those") else []
    return found + (["'re", "'ve"] if word not in ("that", "this") else [])


def _contractions() -> list[str]:
    """Every contraction with `|` where it is cut, apostrophes still in place."""
    found = []
    for word in (*_SUBJECTS, *_ASKING, "that", "this", "these", "those"):
        found += [f"{word}|{ending}" for ending in _clitics(word)]
    for word in _NEGATED:
        found.append(f"{word}|n't")
        if _NEGATED.index(word) < _NEGATED.index("ai"):
            found.append(f"{word}|n't|'ve")
    found += [f"{word}|'ve" for word in _CONDITIONAL]
    return found + [whole[0].upper() + whole[1:] for whole in found]


@cache
def exceptions() -> dict[str, tuple[int, ...]]:
    """String to the lengths of its tokens, in characters."""
    cut = _contractions()
    cut += [whole.replace("'", "") for whole in cut]
    cut += [f"{hour}|{half}{kind}" for hour in range(1, 13) for half in "ap" for kind in ("m", ".m.")]
    whole = [*_UNCUT, *_FACES] + [form + end for word in _DROPPED_G for form in (word, word.title()) for end in ("", "'")]
    found: dict[str, tuple[int, ...]] = {text: (len(text),) for text in whole}
    found |= {text.replace("|", ""): tuple(map(len, text.split("|"))) for text in (*cut, *_CUT)}
    for word in _WORDS_AFTER_ALL:
        found.pop(word, None)
    return found | {text.replace("'", "’"): lengths for text, lengths in found.items()}


SLOTS: Final = 1 << 13
LONGEST: Final = 16


@cache
def exception_table() -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint8]]:
    """Open addressing by the token hash: keys, the lengths of the tokens (eight bits each), and the shapes that occur."""
    from stages.analysis import hashes

    found = exceptions()
    keys, cuts = np.zeros(SLOTS, np.uint64), np.zeros(SLOTS, np.int64)
    for key, lengths in zip(hashes(list(found)), found.values(), strict=True):
        at = int(key) & (SLOTS - 1)
        while keys[at]:
            at = (at + 1) & (SLOTS - 1)
        keys[at] = key
        cuts[at] = sum(length << 8 * i for i, length in enumerate(lengths))
    shapes = np.zeros(SLOTS, np.uint8)
    shapes[[(ord(text[0]) * 31 + ord(text[-1])) * 31 + len(text) & (SLOTS - 1) for text in found]] = 1
    return keys, cuts, shapes


UNITS: Final = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa mbar mb MB "
    "kb KB gb GB tb TB T G M K % км м дм см мм нм кг г мг м/с км/ч кПа Па мбар Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тб"
).split()  # fmt: skip


@cache
def unit_hashes() -> NDArray[np.uint64]:
    """Sorted hashes of the units that are split off a number."""
    from stages.analysis import hashes

    return np.sort(hashes(UNITS))
