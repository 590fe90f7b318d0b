"""Quantities: what they mean, what is refused, and that nothing is lost on the way."""

import re
from typing import Annotated, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, WithJsonSchema

from mcphost.policy.faults import Fault
from mcphost.policy.units import (
    ByteSize,
    CpuMillis,
    Duration,
    Rate,
    RateLimit,
    format_bytes,
    format_cpu,
    format_duration,
    format_rate,
    parse_bytes,
    parse_cpu,
    parse_duration,
    parse_rate,
)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_bytes, "0", 0),
        (parse_bytes, "1024", 1024),
        (parse_bytes, "64Ki", 65_536),
        (parse_bytes, "256Mi", 268_435_456),
        (parse_bytes, "1Gi", 1_073_741_824),
        (parse_bytes, "8M", 8_000_000),
        (parse_bytes, "3k", 3000),
        (parse_cpu, "500m", 500),
        (parse_cpu, "2", 2000),
        (parse_cpu, "0.5", 500),
        (parse_cpu, "1.25", 1250),
        (parse_cpu, "0.001", 1),
        (parse_duration, "500ms", 0.5),
        (parse_duration, "30s", 30.0),
        (parse_duration, "10m", 600.0),
        (parse_duration, "1h", 3600.0),
        (parse_duration, "2d", 172_800.0),
        (parse_duration, "0s", 0.0),
        (parse_rate, "120/min", Rate(120, 60.0)),
        (parse_rate, "10/s", Rate(10, 1.0)),
        (parse_rate, "5000/h", Rate(5000, 3600.0)),
        (parse_rate, "50000/day", Rate(50_000, 86_400.0)),
    ],
)
def test_a_quantity_means_what_it_says(parse, text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (
            parse_bytes,
            ["", "Mi", "-1", "+1", "1.5Gi", "1 Mi", "01", "1mi", "1KB", "1e3", "٣", "1Mi\n", "9999999Ti"],
        ),
        (parse_cpu, ["", "0", "0m", "0.0", "m", "-1", "1.2345", ".5", "5.", "1e3", "0.5m", "99999"]),
        (parse_duration, ["", "5", "s", "-1s", "1.5s", "1h30m", "1 s", "1S", "1min", "400d", "٣s"]),
        (parse_rate, ["", "0/s", "120", "/min", "120/minute", "1.5/s", "120 / min", "120/60s", "-1/s"]),
    ],
)
def test_what_could_be_misread_is_refused(parse, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(Fault):
            parse(text)


@pytest.mark.parametrize(
    ("parse", "text", "suggestion"),
    [
        (parse_bytes, "256MB", "256Mi"),
        (parse_bytes, "64K", "64Ki"),
        (parse_bytes, "8 gib", "8Gi"),
        (parse_bytes, "many", None),
        (parse_duration, "30", "30s"),
        (parse_duration, "soon", None),
    ],
)
def test_an_obvious_meaning_is_suggested_and_not_assumed(parse, text: str, suggestion: str | None) -> None:
    with pytest.raises(Fault) as caught:
        parse(text)
    assert caught.value.suggestion == suggestion


@given(st.integers(0, 2**63 - 1))
def test_bytes_come_back(count: int) -> None:
    if len(format_bytes(count)) <= 18:
        assert parse_bytes(format_bytes(count)) == count


@given(st.integers(1, 4096 * 1000))
def test_cpu_comes_back(millis: int) -> None:
    assert parse_cpu(format_cpu(millis)) == millis


@given(st.integers(0, 366 * 86_400_000))
def test_durations_come_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(1, 99_999_999), st.sampled_from([1.0, 60.0, 3600.0, 86_400.0]))
def test_rates_come_back(permits: int, period: float) -> None:
    rate = Rate(permits, period)
    assert parse_rate(format_rate(rate)) == rate
    assert str(rate) == format_rate(rate)
    assert rate.per_second == permits / period


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "500ms"), (60, "1m"), (90, "90s"), (86_400, "1d"), (0, "0s"), (1.5, "1500ms")]
)
def test_the_shortest_spelling_is_chosen(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("kind", "parse"),
    [(ByteSize, parse_bytes), (CpuMillis, parse_cpu), (Duration, parse_duration), (RateLimit, parse_rate)],
)
@given(data=st.data())
def test_the_schema_allows_no_more_than_the_parser(kind: object, parse, data: st.DataObject) -> None:
    schema = next(part for part in get_args(kind) if isinstance(part, WithJsonSchema)).json_schema
    assert schema
    text = data.draw(st.from_regex(re.compile(schema["pattern"], re.ASCII), fullmatch=True))
    try:
        parse(text)
    except Fault as fault:
        refusal = fault.message
    else:
        refusal = ""
    assert not refusal or "as large as" in refusal or refusal == "no CPU at all"


def test_a_plain_number_in_a_file_is_bytes_or_cores_and_never_a_duration() -> None:
    assert TypeAdapter(ByteSize).validate_python(1024) == 1024
    assert TypeAdapter(CpuMillis).validate_python(2) == 2000
    with pytest.raises(ValueError, match="needs its unit"):
        TypeAdapter(Duration).validate_python(30)
    assert TypeAdapter(Annotated[float, *get_args(Duration)[1:]]).validate_python(1.5) == 1.5
