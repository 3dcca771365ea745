"""Filters of source code: each rule names its reason, and real libraries mostly stand."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import syntax
from stages.code import heuristics, provenance, secrets, structure
from stages.contract import TEXT

GOOD = '''"""Moving averages of a series."""
import math


def average(values, width):
    """The mean of each window of the given width."""
    total = sum(values[:width])
    means = [total / width]
    for old, new in zip(values, values[width:]):
        total += new - old
        means.append(total / width)
    return means


def spread(values):
    middle = sum(values) / len(values)
    return math.sqrt(sum((v - middle) ** 2 for v in values) / len(values))
'''
LONG = "def f(x):\n    y = x + 1\n    return y * x\n\n\n" * 6


def table(*rows: tuple[str, str, str]) -> pa.Table:
    texts, tongues, paths = zip(*rows, strict=True)
    return pa.table(
        {"text": pa.array(texts, TEXT), "code_language": pa.array(tongues, pa.string()), "path": pa.array(paths, pa.string())}
    )


def general(text: str, language: str = "Python", **params: Any) -> str | None:
    return heuristics.general(table((text, language, "a")), heuristics.General(**params))["drop_reason"][0].as_py()


BROKEN_RULES = {
    "too_few_chars": "x = 1\n",
    "too_few_words": "average = spread\n" * 9,
    "too_few_lines": GOOD.replace("\n", " "),
    "too_large": GOOD * 100,
    "too_many_lines": GOOD * 3,
    "xml": '<?xml version="1.0"?>\n' + GOOD,
    "replacement_chars": GOOD + "\ufffd" * 40,
    "line_too_long": GOOD + "z = " + "a + " * 300 + "a\n",
    "mean_line_too_short": GOOD + "\n\n" * 400,
    "mean_line_too_long": "\n".join(["value = compute(first, second) " * 4] * 12),
    "mean_word_too_short": "\n".join("x y z = a b c + d e" for _ in range(20)),
    "mean_word_too_long": "\n".join("internationalisation = incomprehensibility" for _ in range(30)),
    "too_few_letters": GOOD + "#" + "-+*/" * 20 + "\n" + ("#" + "=-" * 40 + "\n") * 9,
    "too_many_digits": "\n".join(f"row {n}: 1{n}34 5678 9{n}12 value of the table" for n in range(30)),
    "too_many_spaces": "\n".join("          x = average(values)            " for _ in range(20)),
    "encoded_data": GOOD + "\n".join('D = "' + "aGVsbG8g" * 40 + '"' for _ in range(1)),
    "long_strings": GOOD + "".join('print("' + "a word or two of text, and more of it again; " * 3 + '")\n' for _ in range(8)),
    "mostly_strings": "\n".join('print("a line of words that is printed to the reader here")' for n in range(20)),
    "prompt_comments": GOOD + "# write your code here\n# your solution goes here\n",
    "mostly_asserts": "\n".join(f"    assert average(values, {n}) == expected" for n in range(20)),
    "long_words": "\n".join("theLongestNameThatAnybodyEverGaveToAThing = a + b * c - d + e" for _ in range(20)),
}


@pytest.mark.parametrize("reason", BROKEN_RULES)
def test_each_general_rule_names_its_reason(reason: str) -> None:
    limits: dict[str, Any] = {"too_large": {"max_bytes": 5000}, "too_many_lines": {"max_lines": 40}}.get(reason, {})
    assert general(GOOD) is None
    assert general(BROKEN_RULES[reason], **limits) == reason


def test_hexadecimal_tables_are_data() -> None:
    text = (
        "uint8_t table[] = {\n"
        + "\n".join("  " + ", ".join(f"0x{n * 7 % 256:02x}ab" for n in range(k, k + 8)) + "," for k in range(20))
        + "\n};\n"
    )
    assert general(text, "C", min_letters=None, max_digits=None, encoded=False) == "too_much_hex"
    assert general(text, "C", min_letters=None, max_digits=None) == "encoded_data"


def test_a_rule_can_be_switched_off_and_its_value_read() -> None:
    out = heuristics.general(table((GOOD, "Python", "a")), heuristics.General(stats=True))
    row = out.to_pylist()[0]
    assert row["code_lines"] == len(GOOD.splitlines())
    assert row["code_letters"] > 0.7
    assert general(BROKEN_RULES["xml"], xml=False) is None
    assert general("SELECT 1, 12345 FROM mill WHERE stone = 777 AND grain > 12;\n" * 12, "SQL") is None


@given(st.text(st.sampled_from("ab1 \n\t'\"#\\x0é\ufffd(){}=;"), max_size=300))
def test_shares_lie_between_nought_and_one(text: str) -> None:
    values = heuristics.measure(text, heuristics.General())
    shares = {
        name: values[name]
        for name in ("letters", "digits", "spaces", "string_chars", "long_words", "hex_chars", "replacement_chars")
    }
    assert all(0 <= value <= 1 for value in shares.values()), shares


def judged(text: str, language: str, path: str = "a", **params: Any) -> str | None:
    return structure.by_syntax(table((text, language, path)), structure.Syntax(**params))["drop_reason"][0].as_py()


SYNTAX = [
    ("syntax_error", "Python", "def f(:\n    return 1\n"),
    ("syntax_error", "Python", "print 'two'\n"),
    ("syntax_error", "Python", "(" * 500 + ")" * 500),
    ("syntax_error", "C", "int main( { {{{ ]] return ;;; ) =\n" * 3),
    ("syntax_error", "JavaScript", "function ( { ]]] => =\n" * 3),
    ("mostly_comments", "Python", '"""' + "words " * 200 + '"""\nx = 1\n'),
    ("mostly_comments", "C", "/* " + "words " * 200 + "*/\nint x;\n"),
    ("too_many_defs", "Python", "def f(a):\n    b = a + 1\n    return b\n" * 3),
    ("no_variables", "Python", "import os\n\n\ndef f(a):\n    if a:\n        os.remove(a)\n        os.sync()\n    return a + 1\n"),
    ("too_many_pass", "Python", "x = 1\ny = x + 2\n" + "while x:\n    pass\n" * 3),
    ("too_many_imports", "Python", "import a\nimport b\nimport c\nx = a.b + c.d\ny = x + 1\nz = y * x\n"),
    ("trivial_functions", "Python", "x = len([])\ny = x + 1\nz = x + y\nfor i in range(x):\n    z += i\n    y += z\n    x += y\n" + "def f(a):\n    return a\n"),
    ("too_many_prints", "Python", "x = len([])\ny = x + 1\nprint(x)\nprint(y)\nprint(x + y)\n"),
    ("several_mains", "C", "int main(void) { return 0; }\nint main(void) { return 1; }\n"),
    ("mostly_preprocessor", "C", "#define A 1\n#define B(x) \\\n  ((x) + 1)\n#include <stdio.h>\n#include <stdlib.h>\nint x;\n"),
    ("little_visible_text", "HTML", "<html><head><style>" + "p { margin: 0 }\n" * 40 + "</style></head><body><p>Hi.</p></body></html>"),
    ("data_file", "JSON", '{"a": 1}\n' * 30),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "language", "text"), SYNTAX)
def test_each_rule_of_syntax_names_its_reason(reason: str, language: str, text: str) -> None:
    off = {"max_def_lines": None} if reason == "trivial_functions" else {}
    assert judged(text, language, **off) == reason


def test_good_files_stand() -> None:
    c = '#ifndef GEAR_H\n#define GEAR_H\n#include <stdio.h>\nstatic int turn(int n) {\n  for (int i = 0; i < n; ++i) printf("%d\\n", i);\n  return n;\n}\n#endif\n'
    js = "export function turn(n) {\n  let sum = 0;\n  for (let i = 0; i < n; i += 1) sum += i;\n  return sum;\n}\n"
    assert [judged(GOOD, "Python"), judged(c, "C"), judged(c, "C++"), judged(js, "JavaScript"), judged("anything", "COBOL")] == [
        None
    ] * 5


def test_plain_files_and_go_tests_are_drawn_by_their_text() -> None:
    plain = "import os\nA = 1\nB = 'two'\nC = [1, 2]\nprint('done')\nD = os.name\n"
    assert judged(plain, "Python", sampled=1.0, max_import_lines=None) == "no_logic"
    assert judged(plain, "Python", sampled=0.0) is None
    files = [f"package mill\n\nfunc Turn{n}(n int) int {{\n\treturn n + {n}\n}}\n" for n in range(200)]
    dropped = [judged(text, "Go", "mill/turn_test.go") for text in files]
    assert 140 <= dropped.count("go_test") <= 178, "four in five, by hash"
    assert dropped == [judged(text, "Go", "mill/turn_test.go") for text in files]
    assert judged(files[0], "Go", "mill/turn.go", sampled=1.0) is None


@given(st.text(max_size=200), st.sampled_from(sorted(syntax.GRAMMARS)))
def test_any_text_has_a_damage_between_nought_and_one(text: str, language: str) -> None:
    parsed = syntax.parse(language, text)
    assert parsed is not None
    assert 0 <= parsed.damage <= 1
    assert all(a < b for a, b in parsed.comments)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10)), max_size=12))
def test_merged_ranges_cover_the_same_bytes(drawn: list[tuple[int, int]]) -> None:
    spans = [(start, start + length) for start, length in drawn]
    joined = syntax.merged(spans)
    assert {n for a, b in joined for n in range(a, b)} == {n for a, b in spans for n in range(a, b)}
    assert syntax.covered(joined) == len({n for a, b in spans for n in range(a, b)})


def test_one_broken_macro_does_not_condemn_a_file() -> None:
    body = "\n".join(f"int turn{n}(int a) {{ return a + {n}; }}" for n in range(60))
    parsed = syntax.parse("C++", body + "\nWEIRD_MACRO( class { ;\n" + body)
    assert parsed is not None
    assert 0 < parsed.damage < 0.1


def test_large_minified_files_cost_little() -> None:
    """50 MB of minified JavaScript: dropped by size before anything is parsed."""
    blob = "function a(b){return b+1};" * 2_000_000
    assert len(blob) > 50_000_000
    assert general(blob, "JavaScript") == "too_large"
    assert judged(blob, "JavaScript") == "too_large_to_parse"
    assert provenance.origin(blob, "a.js", "JavaScript", provenance.Written()) == "minified"


def by_hand(text: str, path: str, language: str, **params: Any) -> str | None:
    return provenance.by_hand(table((text, language, path)), provenance.Written(**params))["drop_reason"][0].as_py()


def test_what_no_person_wrote_here_is_named() -> None:
    assert by_hand(GOOD, "src/average.py", "Python") is None
    assert by_hand(GOOD, "third_party/x/average.py", "Python") == "vendored"
    assert by_hand("# This file was automatically generated. Do not edit!\n" + GOOD, "a.py", "Python") == "generated"
    assert by_hand("// Code generated by protoc-gen-go. DO NOT EDIT.\npackage a\n", "a.pb.go", "Go") == "generated"
    assert by_hand("// Decodes the blocks generated by block_builder.cc.\n" + "int a;\n" * 20, "table/block.cc", "C++") is None
    assert by_hand("var a=function(b){return b+1};" * 40, "a.js", "JavaScript") == "minified"
    rng = random.Random(1)
    assert (
        by_hand("x = [\n" + "\n".join(f"  [{rng.random():.6f}, {rng.random():.6f}]," for _ in range(200)) + "]\n", "a.py", "Python")
        == "data"
    )
    assert by_hand(GOOD, "third_party/x/average.py", "Python", drop=("generated",)) is None


def test_licences_decide() -> None:
    said = pa.table({"license": pa.array(["mit", "GPL-3.0", "MIT OR GPL-3.0", None, "nobody knows"], pa.string())})
    out = provenance.permitted(said, provenance.Permitted())
    assert out["drop_reason"].to_pylist() == [None, "license_not_permitted", None, "license_unknown", "license_unknown"]
    assert out["license"].to_pylist()[:3] == ["MIT", "GPL-3.0-only", "MIT OR GPL-3.0-only"]
    kept = provenance.permitted(said, provenance.Permitted(unknown="keep", allowed=("GPL-3.0-only",)))
    assert kept["drop_reason"].to_pylist() == ["license_not_permitted", None, None, None, None]


def test_languages_are_told_and_chosen() -> None:
    files = pa.table({"text": pa.array(["x = 1\n", "int a;", "hm"], TEXT), "path": ["a.py", "a.c", "a.qqq"]})
    out = provenance.identify(files, provenance.Languages(keep=("Python",)))
    assert out["code_language"].to_pylist() == ["Python", "C", None]
    assert out["drop_reason"].to_pylist() == [None, "language_not_kept", "language_unknown"]


# Keys are put together here, so that no scanner takes this file for a leak.
SECRETS = {
    "AWS_KEY": "AKIA" + "Q3EGR5XBN2LWVT7M", "GITHUB_TOKEN": "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8", "GITLAB_TOKEN": "glpat-" + "x9Yz8Wv7Ut6Sr5Qp4On3",
    "SLACK_TOKEN": "xoxb-" + "123412341234-abcdABCD1234", "GOOGLE_KEY": "AIza" + "SyD4f6G8h1J3k5L7m9N2b4V6c8X0z1A3s5Q", "STRIPE_KEY": "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "MAIL_KEY": "key-" + "3ax6xnjp29jd6fds4gc373sgvjxteol0".translate(str.maketrans("gjlnopqstvwxyz", "0123456789abcd")),
    "BOT_TOKEN": "110201543:" + "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsawX", "PACKAGE_TOKEN": "npm_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "WEB_TOKEN": "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJ" + "zdWIiOiIxMjM0In0" + "." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
}  # fmt: skip


@pytest.mark.parametrize("kind", SECRETS)
def test_keys_with_a_form_go_wherever_they_stand(kind: str) -> None:
    text = f'client = connect("{SECRETS[kind]}")\nprint(client)\n'
    out = secrets.redact(table((text, "Python", "a")), secrets.Redact()).to_pylist()[0]
    assert out == {"text": f'client = connect("<{kind}>")\nprint(client)\n', "secrets": 1}


def test_values_that_look_random_go_and_placeholders_stay() -> None:
    kept = 'password = "change_me_please"\nTOKEN = os.environ["API_TOKEN"]\nsecret = "<your secret>"\napi_key = "YOUR_API_KEY_123"\ntoken_type = "authorization_code"\n'
    url = "db = 'postgres://mill:" + "h4rdT0Guess" + "@db.mill.example/grain'\nsafe = 'postgres://user:password@localhost/x'\n"
    gone = 'DB_PASSWORD = "' + "tR9$kd02LmQz77" + '"\n{"secret": "' + "9f8Jk2LmNq4RsT6v" + '"}\n'
    pem = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA " + "PRIVATE KEY-----"
    out = secrets.redact(table((kept + url + gone + pem, "Python", "a"), (GOOD, "Python", "b")), secrets.Redact()).to_pylist()
    assert out[0]["text"] == (
        kept + "db = 'postgres://mill:<PASSWORD>@db.mill.example/grain'\nsafe = 'postgres://user:password@localhost/x'\n"
        'DB_PASSWORD = "<SECRET>"\n{"secret": "<SECRET>"}\n<PRIVATE_KEY>'
    )  # fmt: skip
    assert [row["secrets"] for row in out] == [4, 0]
    assert out[1]["text"] == GOOD


def test_libraries_that_people_maintain_mostly_stand(shared: Any) -> None:
    import orjson
    import zstandard

    with zstandard.open(shared / "code.jsonl.zst", "rb") as file:
        files = [orjson.loads(line) for line in file.read().splitlines()]
    chosen = [f for f in files if f["repo_kind"].startswith("maintained") and not f["flags"]][:150]
    rows = table(*((f["content"], f["language"], f["path"]) for f in chosen))
    for stage, params in (
        (heuristics.general, heuristics.General()),
        (structure.by_syntax, structure.Syntax()),
        (provenance.by_hand, provenance.Written()),
    ):
        dropped = [reason for reason in stage(rows, params)["drop_reason"].to_pylist() if reason]
        assert len(dropped) < 0.25 * len(chosen), dropped
