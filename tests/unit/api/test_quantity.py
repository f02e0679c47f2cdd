"""Quantities: the table of the reference, and properties over many values."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.api import quantity
from holdfast.api.quantity import Quantity

POWERS = {
    **{suffix: Fraction(10) ** power for suffix, power in quantity._DECIMAL_POWERS.items()},
    **{suffix: Fraction(2) ** power for suffix, power in quantity._BINARY_POWERS.items()},
}


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("0Gi", "0"),
        ("-0", "0"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Gi", "512Mi"),
        ("0.5Ki", "512"),
        ("1.3Ki", "1331200m"),
        ("1Ki", "1Ki"),
        ("1.5", "1500m"),
        (".5", "500m"),
        ("5.", "5."),
        (".", "0"),
        ("+", "0"),
        ("-Gi", "0"),
        ("Ti", "0"),
        ("e3", "0"),
        ("01Gi", "01Gi"),
        ("01024Mi", "1Gi"),
        ("5.Gi", "5.Gi"),
        ("8.Gi", "8Gi"),
        ("1.500", "1.500"),
        ("1.000", "1"),
        ("0.500", "500m"),
        ("+1000k", "1M"),
        ("1E03", "1E03"),
        ("12E2", "1200"),
        ("+999999999999999999", "+999999999999999999"),
        ("+9999999999999999999", "9999999999999999999"),
        ("+99999Gi", "+99999Gi"),
        ("+999999Gi", "999999Gi"),
        ("1000000k", "1G"),
        ("1000E", "1000E"),
        ("1e3", "1e3"),
        ("1E3", "1E3"),
        ("1E", "1E"),
        ("1e0", "1e0"),
        ("1e2", "100"),
        ("1500e-3", "1500e-3"),
        ("10Ei", "9223372036854775807"),
        ("-10Ei", "-9223372036854775807"),
        ("10E", "10E"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1.0000000001", "1000000001n"),
        ("1e-40", "1e-9"),
        ("+5Gi", "+5Gi"),
        ("-1500Mi", "-1500Mi"),
        ("  1Gi ", "1Gi"),
        (1073741824, "1073741824"),
        (1.5, "1500m"),
        (1e22, "10e21"),
    ],
)
def test_canonical_form_is_that_of_the_reference(text: str | float, canonical: str) -> None:
    assert quantity.parse(text).canonical() == canonical
    assert str(quantity.parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", quantity.WRONG_FORMAT),
        ("10GB", quantity.WRONG_FORMAT),
        ("ten", quantity.WRONG_FORMAT),
        ("1.1.1", quantity.WRONG_FORMAT),
        ("1 Gi", quantity.WRONG_FORMAT),
        ("٣Gi", quantity.WRONG_FORMAT),
        (True, quantity.WRONG_FORMAT),
        (float("nan"), quantity.WRONG_FORMAT),
        ("Pi", quantity.WRONG_NUMBER),
        ("e-10", quantity.WRONG_NUMBER),
        ("--1", quantity.WRONG_SUFFIX),
        ("+-1", quantity.WRONG_SUFFIX),
        ("e", quantity.WRONG_SUFFIX),
        ("1" * 300, quantity.WRONG_NUMBER),
        ("10K", quantity.WRONG_SUFFIX),
        ("10mi", quantity.WRONG_SUFFIX),
        ("1e-", quantity.WRONG_SUFFIX),
        ("1e99999999999", quantity.WRONG_SUFFIX),
        ("1-5", quantity.WRONG_SUFFIX),
    ],
)
def test_text_that_is_no_quantity_is_refused(text: str | float, message: str) -> None:
    with pytest.raises(quantity.QuantityError) as caught:
        quantity.parse(text)
    assert caught.value.message == str(caught.value) == message


def test_the_message_is_the_sentence_of_the_api() -> None:
    assert quantity.WRONG_FORMAT == (
        "quantities must match the regular expression "
        "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10GB", '"10GB": use 10G (10^9 bytes) or 10Gi (2^30 bytes)'),
        ("10 gib", '"10 gib": use 10Gi (2^30 bytes)'),
        ("10K", '"10K": use 10k (10^3 bytes) or 10Ki (2^10 bytes)'),
        ("1,5Ti", '"1,5Ti": use 1.5Ti (2^40 bytes)'),
        ("10 bytes", '"10 bytes": use 10 (bytes)'),
        ("ten", '"ten": write a number and a suffix, such as 500Mi, 10Gi or 2T'),
    ],
)
def test_the_hint_says_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(quantity.QuantityError) as caught:
        quantity.parse(text)
    assert caught.value.hint == hint


@settings(max_examples=200)
@given(
    st.integers(-(10**12), 10**12),
    st.integers(0, 999),
    st.sampled_from(sorted(POWERS)),
)
def test_the_amount_is_exact_up_to_nanos_and_survives_its_own_text(
    whole: int, thousandths: int, suffix: str
) -> None:
    parsed = quantity.parse(f"{whole}.{thousandths:03d}{suffix}")
    exact = (Fraction(abs(whole)) + Fraction(thousandths, 1000)) * POWERS[suffix]
    if suffix.endswith("i"):
        exact = min(exact, Fraction(2**63 - 1))
    error = Fraction(abs(parsed.nanos), 10**9) - exact
    assert 0 <= error < Fraction(1, 10**9)
    assert parsed.nanos == 0 or (parsed.nanos < 0) == (whole < 0)
    again = quantity.parse(parsed.canonical())
    assert again == parsed
    assert again.canonical() == parsed.canonical()


@settings(max_examples=100)
@given(st.integers(-(2**60), 2**60), st.integers(-(2**60), 2**60))
def test_order_and_hash_follow_the_amount(left: int, right: int) -> None:
    a, b = Quantity.of_bytes(left), quantity.parse(right)
    assert (a < b, a == b, a >= b) == (left < right, left == right, left >= right)
    assert hash(a) == hash(quantity.parse(left))
    assert a.bytes() == left


def test_binary_and_decimal_forms_compare_exactly() -> None:
    assert quantity.parse("1Gi") == quantity.parse("1024Mi") == quantity.parse(2**30)
    assert quantity.parse("1G") < quantity.parse("1Gi")
    assert quantity.parse("800E") < quantity.parse("950E")
    assert quantity.parse("1") != 1


def test_bytes_round_away_from_zero() -> None:
    assert quantity.parse("100m").bytes() == 1
    assert quantity.parse("-1500m").bytes() == -2
    assert not quantity.parse("100m").is_integer
    assert quantity.parse("2k").is_integer
    assert not quantity.parse("0")


def test_of_bytes_prints_in_binary_form() -> None:
    assert Quantity.of_bytes(10 * 2**30).canonical() == "10Gi"
    assert Quantity.of_bytes(1000).canonical() == "1k"
    assert repr(Quantity.of_bytes(2**20)) == "Quantity('1Mi')"
