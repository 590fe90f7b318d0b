"""What may be reached: names and ports as listed, and addresses that everybody may reach."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import Egress, EgressRule, SpecInvalid, parse_network, parse_rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("api.example.com:443", EgressRule("api.example.com", 443)),
        ("API.Example.COM.:443", EgressRule("api.example.com", 443)),
        ("*.example.com:8443", EgressRule("example.com", 8443, below=True)),
        ("bücher.example:443", EgressRule("xn--bcher-kva.example", 443)),
        ("1.1.1.1:443", EgressRule("1.1.1.1", 443)),
        ("[2606:4700:0:0::1111]:853", EgressRule("2606:4700::1111", 853)),
        ("localhost:443", EgressRule("localhost", 443)),
    ],
)
def test_an_entry_is_read_into_one_form(text, rule):
    assert parse_rule(text) == rule
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    "text",
    [
        "", ":443", "example.com", "example.com:", "example.com:0", "example.com:65536", "example.com:https",
        "*:443", "*.com:443", "a.*.com:443", "*a.example.com:443", "*.1.1.1.1:443", "**.example.com:443",
        "127.1:443", "0x7f000001:443", "2130706433:443", "017700000001:443", "1.2.3.4.5:443", "1.2.3.4.:443",
        "::1:443", "[example.com]:443", "[fe80::1%eth0]:443", "[1.1.1.1]:443",
        "exa mple.com:443", "exa\nmple.com:443", "-a.example:443", "a-.example:443", "a..example:443", "a_b.example:443",
        "https://example.com:443", "user@example.com:443", "straße.example:443", f"{'a' * 64}.example:443",
        f"{'a.' * 127}aa:443",
    ],
)  # fmt: skip
def test_what_means_nothing_or_several_things_is_no_entry(text):
    with pytest.raises(SpecInvalid):
        parse_rule(text)


@pytest.mark.parametrize(
    ("host", "port", "allowed"),
    [
        ("api.example.com", 443, True),
        ("api.example.com", 80, False),
        ("www.api.example.com", 443, False),
        ("xapi.example.com", 443, False),
        ("a.wild.example", 443, True),
        ("a.b.wild.example", 443, True),
        ("wild.example", 443, False),
        ("notwild.example", 443, False),
        ("wild.example.evil", 443, False),
    ],
)
def test_a_name_is_matched_as_a_whole_and_a_wildcard_by_whole_labels(host, port, allowed):
    egress = Egress((parse_rule("api.example.com:443"), parse_rule("*.wild.example:443")))
    assert egress.allows(host, port) is allowed


REFUSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "168.63.129.16", "100.100.100.200",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b::7f00:1",
    "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1",
    "2001:10::1", "2001:db8::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254",
    "fd20:ce::254", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1", "4000::1", "e000::1",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_an_address_that_is_not_public_is_refused(text):
    assert Egress(()).refuses(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text",
    ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"],
)
def test_a_public_address_is_not(text):
    assert Egress(()).refuses(ipaddress.ip_address(text)) is None


def test_only_a_listed_range_is_allowed_beside_public_addresses():
    egress = Egress((), (parse_network("10.77.0.0/24"), parse_network("fd00::/8")))
    refused = {
        text: egress.refuses(ipaddress.ip_address(text)) is not None
        for text in ("10.77.0.9", "10.77.1.9", "fd12::1", "fd00:ec2::254", "fd20:ce::254", "127.0.0.1", "169.254.169.254")
    }  # fmt: skip
    assert [text for text, no in refused.items() if not no] == ["10.77.0.9", "fd12::1"]


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.0/8", "127.0.0.1", "0.0.0.0/0", "169.254.0.0/16", "169.254.169.254/32", "128.0.0.0/1", "224.0.0.0/8", "::/0",
        "::1/128", "fe80::/64", "::ffff:10.0.0.0/104", "64:ff9b::/96", "2002:a00::/24", "10.77.0.1/24", "10.77", "x", "",
    ],
)  # fmt: skip
def test_this_machine_its_link_and_metadata_cannot_be_listed(text):
    with pytest.raises(SpecInvalid):
        parse_network(text)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_nothing_is_called_public_that_the_standard_library_does_not_call_so(address):
    if Egress(()).refuses(address) is None:
        assert address.is_global
        assert not (address.is_multicast)
        assert not (address.is_private)
        assert not (address.is_loopback)
        assert not (address.is_link_local)


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_can_be_had_through_an_ipv6_one(inner):
    number = int(inner)
    for carrier in (number, 0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80):
        assert Egress(()).refuses(ipaddress.IPv6Address(carrier))


@given(st.text(max_size=40) | st.from_regex(r"[a-z0-9.*\[\]:-]{1,30}:[0-9]{1,5}", fullmatch=True))
def test_any_text_is_an_entry_that_reads_as_itself_or_is_refused(text):
    try:
        rule = parse_rule(text)
    except SpecInvalid:
        return
    assert parse_rule(str(rule)) == rule
