"""Credentials in source code, replaced: keys of known form, private keys, passwords in addresses and in assignments.

Forms are those that the providers document. A value in an assignment (`password = "..."`) goes only when it looks random:
placeholders, names, paths and words stay.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stages.contract import TEXT, Params, map_stage

PLACEHOLDER = re.compile(
    r"example|sample|dummy|placeholder|change.?me|your|todo|xxx|\*\*\*|\.\.\.|[<>{}]|^\$|%[sd(]|^(.)\1*$|test|fake|insert|redacted|abcdef|123456789",
    re.IGNORECASE,
)
MIN_ENTROPY = 3.0
"""Bits per character: random letters and digits of 16 characters have about 3.7, English words and identifiers under 3.2."""


def entropy(text: str) -> float:
    """Shannon entropy of a text's characters, in bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values()) if text else 0.0


def is_random(value: str) -> bool:
    """Whether a quoted value looks like a credential: no placeholder, several kinds of characters, no plain name."""
    kinds = sum(re.search(kind, value) is not None for kind in ("[a-z]", "[A-Z]", "[0-9]", r"[^\w\s]"))
    return kinds >= 2 and bool(re.search("[0-9]", value)) and entropy(value) >= MIN_ENTROPY and PLACEHOLDER.search(value) is None


def is_password(value: str) -> bool:
    """Whether what stands for a password in an address may be one."""
    return PLACEHOLDER.search(value) is None and value.lower() not in {"password", "pass", "pwd", "secret", "user", "root", "admin"}


@dataclass(frozen=True)
class Rule:
    """`hint` is a cheap superset in RE2's syntax, tested on a whole batch; what the pattern calls `found` is replaced."""

    kind: str
    hint: str
    pattern: re.Pattern[str]
    sure: Callable[[str], bool] = lambda _value: True


RULES = (
    Rule(
        "PRIVATE_KEY",
        "PRIVATE KEY-----",
        re.compile(
            r"(?P<found>-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY-----.{1,20000}?"
            r"-----END (?:[A-Z]+ ){0,3}PRIVATE KEY-----)",
            re.DOTALL,
        ),
    ),
    Rule(
        "AWS_KEY",
        "A(?:KIA|SIA)",
        re.compile(r"(?<![A-Za-z0-9])(?P<found>A(?:KIA|SIA)[A-Z2-7]{16})(?![A-Za-z0-9])"),
        lambda v: "EXAMPLE" not in v,
    ),
    Rule(
        "GITHUB_TOKEN",
        "gh[pousr]_|github_pat_",
        re.compile(r"\b(?P<found>gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{60,90})\b"),
    ),
    Rule("GITLAB_TOKEN", "glpat-", re.compile(r"\b(?P<found>glpat-[A-Za-z0-9_-]{20,})")),
    Rule(
        "SLACK_TOKEN",
        "xox[abeoprs]-|hooks.slack.com",
        re.compile(r"(?P<found>\bxox[abeoprs]-[A-Za-z0-9-]{10,}|(?<=hooks\.slack\.com/services/)T\w+/B\w+/\w+)"),
    ),
    Rule("GOOGLE_KEY", "AIza", re.compile(r"\b(?P<found>AIza[A-Za-z0-9_-]{35})(?![A-Za-z0-9_-])")),
    Rule("STRIPE_KEY", "[sr]k_(?:live|test)_", re.compile(r"\b(?P<found>[sr]k_(?:live|test)_[A-Za-z0-9]{16,})\b")),
    Rule(
        "MODEL_KEY", "sk-|hf_", re.compile(r"(?<![\w-])(?P<found>sk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}|hf_[A-Za-z]{30,})(?![\w-])")
    ),
    Rule("MAIL_KEY", r"SG\.|key-[0-9a-f]{8}", re.compile(r"\b(?P<found>SG\.[\w-]{16,32}\.[\w-]{32,64}|key-[0-9a-f]{32})\b")),
    Rule("PACKAGE_TOKEN", "npm_|pypi-", re.compile(r"\b(?P<found>npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,})(?![\w-])")),
    Rule("BOT_TOKEN", r"[0-9]{8,10}:[A-Za-z0-9_-]", re.compile(r"(?<!\w)(?P<found>[0-9]{8,10}:AA[A-Za-z0-9_-]{33})(?![\w-])")),
    Rule("WEB_TOKEN", r"eyJ", re.compile(r"(?<![\w.])(?P<found>eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,})")),
    Rule("ACCOUNT_KEY", "AccountKey=", re.compile(r"AccountKey=(?P<found>[A-Za-z0-9+/]{60,}={0,2})")),
    Rule(
        "PASSWORD",
        r"://[^/\s]{1,80}@",
        re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@\"']{1,60}:(?P<found>[^\s:/@\"']{4,80})@[\w.-]"),
        is_password,
    ),
    Rule(
        "SECRET",
        r"(?i)passw|pwd|secret|token|api.?key|auth|credential|private.?key",
        re.compile(
            r"(?i:\b\w{0,40}(?:passw(?:or)?d|passwd|pwd|secret|token|api_?key|auth_?key|access_?key|credential|private_?key)\w{0,20})"
            r"[\"']?\]?\s{0,4}(?::|=>?|:=|,)\s{0,4}[\"'](?P<found>[^\s\"']{12,200})[\"']"
        ),
        is_random,
    ),
)


class Redact(Params):
    """How credentials are replaced."""

    placeholder: str = Field(
        "<{kind}>", description="What stands in their place; {kind} becomes AWS_KEY, PASSWORD, SECRET and so on."
    )


@map_stage(version=1, reads={"text": TEXT}, writes={"text": TEXT, "secrets": pa.int32()})
def redact(batch: pa.Table, params: Redact) -> pa.Table:
    """Replace credentials in `text` by placeholders such as <AWS_KEY>; `secrets` counts them.

    Keys with a form are replaced wherever they stand; a value assigned to a name like `password` only when it looks random
    (three bits a character, digits among letters, no placeholder). Private keys go as a whole.
    """
    text = batch["text"].combine_chunks()
    hints = [np.asarray(pc.fill_null(pc.match_substring_regex(text, rule.hint), False)) for rule in RULES]
    hinted = np.logical_or.reduce(hints)
    counts = np.zeros(batch.num_rows, np.int32)
    cleaned = []
    for row, before in zip(np.flatnonzero(hinted), text.filter(pa.array(hinted)).to_pylist(), strict=True):
        after = before
        for rule, mask in zip(RULES, hints, strict=True):
            if mask[row]:
                after, found = replaced(after, rule, params.placeholder)
                counts[row] += found
        cleaned.append(after)
    text = pc.replace_with_mask(text, pa.array(hinted), pa.array(cleaned, TEXT)) if cleaned else text
    return pa.table({"text": text, "secrets": pa.array(counts)})


def replaced(text: str, rule: Rule, placeholder: str) -> tuple[str, int]:
    """The text with every sure find of a rule replaced, and their number."""
    count = 0
    mark = placeholder.replace("{kind}", rule.kind)

    def substitute(match: re.Match[str]) -> str:
        nonlocal count
        if not rule.sure(match["found"]):
            return match[0]
        count += 1
        start, stop = match.span("found")
        return match.string[match.start() : start] + mark + match.string[stop : match.end()]

    return rule.pattern.sub(substitute, text), count
