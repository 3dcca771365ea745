import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.clean.numbering import is_card, is_iban, luhn
from stages.clean.pii import RULES, Redact, redact, replace
from stages.contract import TEXT


def redacted(*texts: str | None, **params: object) -> list[str | None]:
    return redact(pa.table({"text": pa.array(texts, TEXT)}), Redact(**params))["text"].to_pylist()  # type: ignore[no-any-return]


FOUND = [
    ("Write to jane.doe+x@mail.example.co.uk!", "Write to <EMAIL>!"),
    ("<jürgen@müller.de>, a_b@c-d.io.", "<<EMAIL>>, <EMAIL>."),
    ("from 81.2.69.142 and 2a00:1450:4001:81b::200e at noon", "from <IP> and <IP> at noon"),
    ("IBAN DE89 3704 0044 0532 0130 00 NEXT, GB82WEST12345698765432", "IBAN <IBAN> NEXT, <IBAN>"),
    ("card 4111 1111 1111 1111, 378282246310005; 5555-5555-5555-4444", "card <CARD>, <CARD>; <CARD>"),
    ("+49 30 901820, +1 (415) 555-2671 or +44 20 7946 0958.", "<PHONE>, <PHONE> or <PHONE>."),
    ("Call (415) 555-2671 or 415-555-2671 or 415.555.2671", "Call <PHONE> or <PHONE> or <PHONE>"),
    ("Tel.: 030/901820-5 Fax 0721 608-0 12", "Tel.: <PHONE> Fax <PHONE>"),
]


@pytest.mark.parametrize(("before", "after"), FOUND)
def test_personal_data_is_replaced(before: str, after: str) -> None:
    assert redacted(before) == [after]


KEPT = [
    "version 10.12.140.11 of 2024-05-01, see section 3.2.1.4 and v81.2.69.142",
    "local 192.168.0.1, 127.0.0.1, 10.0.0.255; not 300.1.2.3 nor 81.2.69.142.7; fe80::1; 2024:05:01",
    "ISBN 978-3-16-148410-0, ISSN 2049-3630, DOI 10.1000/182, +9783161484100",
    "on 12.05.2024 from 10:30:45 to 23:59, years 1998-2004, 2024-11-22T02:40:58",
    "it costs $1,234,567.89 or 1.234.567,89; that is +12.5% or 3.14159265358979",
    "std::vector a::b 3c:5a:b4:9f:12:0e #2563eb @handle icon@2x.png git@github.com:a/b.git someone@example.com",
    "4111 1111 1111 1112 and 1234567890123456 and 0.4111111111111111 and DE88 3704 0044 0532 0130 00",
    "2^10 = 1024; pages 415-555; C++11; tel aviv 2024; 100-200-3000; telephone since 1876, cell 2024-05-01",
    "224.0.0.9, 81.2.69.0/24; @bob@other.social, https://mastodon.social/@bob@other.social, http://localhost@other.com",
    "UPC 036000291452, order 6011-2345, sha 4111111111111111aa",
]


@pytest.mark.parametrize("text", KEPT)
def test_numbers_that_only_look_like_it_stay(text: str) -> None:
    assert redacted(text) == [text]


def test_counts_stand_in_a_column_per_kind_and_rows_keep_their_place() -> None:
    texts = pa.array(["a@b.de c@d.de 81.2.69.142", None, "plain", "+49 30 901820"], TEXT)
    out = redact(pa.table({"text": texts}), Redact(kinds=("email", "phone"), placeholder="[{kind}]"))
    assert out["text"].to_pylist() == ["[EMAIL] [EMAIL] 81.2.69.142", None, "plain", "[PHONE]"]
    assert out["pii_email"].to_pylist() == [2, 0, 0, 0]
    assert out["pii_phone"].to_pylist() == [0, 0, 0, 1]
    assert {f.name: f.type for f in out.schema} == redact.writes_of(Redact(kinds=("email", "phone")))


def test_checksums() -> None:
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert is_iban("FR14 2004 1010 0505 0001 3M02 606")
    assert not is_iban("FR14 2004 1010 0505 0001 3M02 607")
    assert is_card("6011000990139424")
    assert not is_card("6666666666666666")


PARTS = [
    "a@b.de", "x.y@", "+49", "+4", "telephone number: ", "30", "901820", "(415)", "555", "-2671", "415", ".", " ", "-", "tel",
    "Phone: ", "тел", "81.2.69.142", "2a00:", ":1450", "DE89", "3704004405320130", "00", "4111", "1111", "111111", "@", "é", "1",
    "/", "\n", "٣", "GB82WEST12345698765432",
]  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PARTS), max_size=12).map("".join), min_size=1, max_size=30))
def test_the_batch_test_never_hides_a_find(texts: list[str]) -> None:
    expected = texts
    for kind in Redact().kinds:
        alone = redact(pa.table({"text": pa.array(texts, TEXT)}), Redact(kinds=(kind,)))["text"].to_pylist()
        assert alone == [replace(text, kind, f"<{kind.upper()}>")[0] for text in texts]
        expected = [replace(text, kind, f"<{kind.upper()}>")[0] for text in expected]
    assert redacted(*texts) == expected


def test_every_kind_has_a_rule() -> None:
    assert set(RULES) == set(Redact().kinds)
