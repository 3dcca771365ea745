"""Numbers that carry their own check: bank accounts (ISO 13616) and payment cards (ISO/IEC 7812)."""

from __future__ import annotations

import re

IBAN_LENGTHS = {
    15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA",
    30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
"""Characters of an IBAN and the countries that use as many (SWIFT's IBAN registry)."""

IBAN = re.compile(
    r"(?<![\w-])(?:"
    + "|".join(f"(?:{'|'.join(countries.split())})[0-9]{{2}}(?: ?[A-Z0-9]){{{n - 4}}}" for n, countries in IBAN_LENGTHS.items())
    + r")(?![\w-])"
)

CARD = re.compile(
    r"(?<![\w.,/+-])(?:[2-6][0-9]{13,18}|[2-6][0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}|3[0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5})"
    r"(?![\w/-]|[.,][0-9])"
)

ISSUERS = re.compile(
    r"4[0-9]{15}(?:[0-9]{3})?"  # Visa
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"  # Mastercard
    r"|3[47][0-9]{13}"  # American Express
    r"|(?:6011|65[0-9]{2}|64[4-9][0-9])[0-9]{12}"  # Discover
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12}"  # JCB
    r"|3(?:0[0-5]|[68][0-9])[0-9]{11}"  # Diners Club
    r"|62[0-9]{14,17}"  # UnionPay
)


def is_iban(text: str) -> bool:
    """Whether the check digits are right: 97 divides the number less one, with letters as 10 to 35 (ISO 7064, MOD 97-10)."""
    plain = text.replace(" ", "")
    digits = "".join(str(int(character, 36)) for character in plain[4:] + plain[:4])
    return int(digits) % 97 == 1


def is_card(text: str) -> bool:
    """Whether the digits are those of an issuer and pass Luhn's check (one random number in ten does)."""
    digits = re.sub(r"[ -]", "", text)
    return ISSUERS.fullmatch(digits) is not None and len(set(digits)) > 1 and luhn(digits)


def luhn(digits: str) -> bool:
    """Luhn's check: from the right, every second digit doubled and its digits added, the sum ends in zero."""
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(sum(divmod(2 * value, 10)) for value in values[1::2])) % 10 == 0
