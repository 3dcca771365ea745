"""Personal data that has a form: e-mail addresses, IP addresses, phone numbers, bank accounts and payment cards."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stages.clean.numbering import CARD, IBAN, is_card, is_iban
from stages.contract import TEXT, Params, map_stage

Kind = Literal["email", "iban", "card", "ip", "phone"]

RESERVED = re.compile(r"(^|\.)(example\.(com|org|net)|example|test|invalid|localhost)$")
"""Domains that belong to nobody (RFC 2606)."""
FILES = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "html", "md"})
"""`icon@2x.png` is a file."""
DATE = re.compile(r"[0-9]{4}[-./][0-9]{1,2}[-./][0-9]{1,2}|[0-9]{1,2}[-./][0-9]{1,2}[-./](?:[0-9]{2}|[0-9]{4})")
VERSION = re.compile(r"(?:version|release|build|section|chapter|clause|rev|ver|sec|fig|v|§)[\s.:]*$", re.IGNORECASE)


class Redact(Params):
    """What to replace, and by what."""

    kinds: tuple[Kind, ...] = Field(("email", "iban", "card", "ip", "phone"), description="Kinds of data to replace.")
    placeholder: str = Field("<{kind}>", description="What stands in its place; {kind} becomes EMAIL, IBAN, CARD, IP or PHONE.")


def is_email(match: re.Match[str]) -> bool:
    """Whether an address can be somebody's: no reserved domain, no file name, no `git@` of a repository."""
    local, _, domain = match[0].lower().rpartition("@")
    return local != "git" and domain.rpartition(".")[2] not in FILES and not RESERVED.search(domain)


def is_ip(match: re.Match[str]) -> bool:
    """Whether a public IPv4 or a global unicast IPv6 address; not a version or section number.

    Four numbers below ten are taken for a section number: the few public addresses among them (8.8.8.8, 1.1.1.1) are
    servers that everybody knows.
    """
    found = match[0]
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address.is_global and found[0] in "23"
    if all(len(part) == 1 for part in found.split(".")) or VERSION.search(match.string[max(0, match.start() - 12) : match.start()]):
        return False
    return address.is_global and not address.is_multicast


def is_phone(match: re.Match[str]) -> bool:
    """Whether a number has the digits of a phone number (ITU-T E.164: at most 15) and is neither a date nor an ISBN."""
    digits = re.sub(r"[^0-9]", "", found(match))
    if DATE.fullmatch(found(match)) or (len(digits) == 13 and digits.startswith(("978", "979"))):
        return False
    return 7 <= len(digits) <= 15


@dataclass(frozen=True)
class Rule:
    """`hint` is a cheap superset in RE2's syntax, tested on a whole batch; `patterns` and `sure` decide.

    What a pattern calls `found` is replaced, its whole match otherwise.
    """

    hint: str
    patterns: tuple[re.Pattern[str], ...]
    sure: Callable[[re.Match[str]], bool]


NUMBER_ENDS = r"(?!\w|[-.,/:][0-9])"

RULES: dict[Kind, Rule] = {
    "email": Rule(
        r"[\pL\pN_%+-]@[\pL\pN]",
        (re.compile(r"(?<![\w.%+@/-])[\w%+-][\w.%+-]{0,63}@(?:[^\W_][\w-]{0,62}\.){1,8}[^\W\d_]{2,24}(?![\w@])"),),
        is_email,
    ),
    "iban": Rule(r"[A-Z]{2}[0-9]{2} ?[A-Z0-9]", (IBAN,), lambda match: is_iban(match[0])),
    "card": Rule(r"[2-6][0-9]{3}[ -]?[0-9]{4}[0-9 -]{3}", (CARD,), lambda match: is_card(match[0])),
    "ip": Rule(
        r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]",
        (
            re.compile(r"(?<![\w.:/-])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w-]|[./][0-9])"),
            re.compile(r"(?<![\w.:/-])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w-]|[.:]\w)"),
        ),
        is_ip,
    ),
    "phone": Rule(
        r"\+[1-9][0-9 ./(-]|[2-9][0-9]{2}(?:\) ?|[-.])[2-9][0-9]{2}[-. ][0-9]{4}"
        r"|(?i:tel|phone|mobil|cell|fax|whatsapp|handy|тел).{0,24}[0-9][0-9 ()./-]{6}",
        (
            re.compile(r"(?<![\w+])\+[1-9][0-9]{0,2}(?:[ .-]?\(0?[0-9]{1,4}\))?(?:[ ./-]?[0-9]){6,13}" + NUMBER_ENDS),
            re.compile(
                r"(?<![\w.+/,-])(?:1[-. ])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[-.])[2-9][0-9]{2}[-. ][0-9]{4}" + NUMBER_ENDS
            ),
            re.compile(
                r"\b(?:tel|telephone|telefon|teléfono|téléphone|telefono|phone|mobile?|cell|fax|whatsapp|handy|тел|телефон)"
                r"\b(?: ?(?:no|nr|number))?[.: ]{1,4}(?P<found>\(?[0-9](?:[ ()./-]{0,2}[0-9]){6,14})" + NUMBER_ENDS,
                re.IGNORECASE,
            ),
        ),
        is_phone,
    ),
}


def _counted(params: Redact) -> dict[str, pa.DataType]:
    return {f"pii_{kind}": pa.int32() for kind in params.kinds}


@map_stage(version=1, reads={"text": TEXT}, writes=lambda params: {"text": TEXT, **_counted(params)})
def redact(batch: pa.Table, params: Redact) -> pa.Table:
    """Replace personal data in `text` by placeholders such as <EMAIL>; `pii_email` and so on count the replacements.

    Accounts and cards must pass their checksums, IP addresses be public, phone numbers be international, North American
    or stand after a word such as "Tel". Rows in which a regular expression over the whole batch finds nothing cost
    nothing more. Names and postal addresses have no form and stay.
    """
    text = batch["text"].combine_chunks()
    hints = {kind: np.asarray(pc.fill_null(pc.match_substring_regex(text, RULES[kind].hint), False)) for kind in params.kinds}
    hinted = np.logical_or.reduce(list(hints.values())) if hints else np.zeros(batch.num_rows, bool)
    rows = np.flatnonzero(hinted)
    counts = {kind: np.zeros(batch.num_rows, np.int32) for kind in params.kinds}
    cleaned = []
    for row, before in zip(rows, text.filter(pa.array(hinted)).to_pylist(), strict=True):
        after = before
        for kind in params.kinds:
            if hints[kind][row]:
                after, counts[kind][row] = replace(after, kind, params.placeholder.replace("{kind}", kind.upper()))
        cleaned.append(after)
    text = pc.replace_with_mask(text, pa.array(hinted), pa.array(cleaned, TEXT)) if cleaned else text
    return pa.table({"text": text, **{f"pii_{kind}": pa.array(found) for kind, found in counts.items()}})


def replace(text: str, kind: Kind, placeholder: str) -> tuple[str, int]:
    """The text with every sure find of one kind replaced, and their number."""
    rule = RULES[kind]
    count = 0

    def substitute(match: re.Match[str]) -> str:
        nonlocal count
        if not rule.sure(match):
            return match[0]
        count += 1
        return match[0].removesuffix(found(match)) + placeholder

    for pattern in rule.patterns:
        text = pattern.sub(substitute, text)
    return text, count


def found(match: re.Match[str]) -> str:
    """The part of a match that is the datum; it stands at the end."""
    return match["found"] if "found" in match.re.groupindex else match[0]
