"""How much of an address is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.audit.addresses import shown_address


@pytest.mark.parametrize(
    ("address", "full", "truncated"),
    [
        ("203.0.113.7", "203.0.113.7", "203.0.113.0/24"),
        ("2001:db8:1:2:3::7", "2001:db8:1:2:3::7", "2001:db8:1::/48"),
        ("2001:0DB8:1:0::7", "2001:db8:1::7", "2001:db8:1::/48"),
        ("::ffff:203.0.113.7", "203.0.113.7", "203.0.113.0/24"),
        ("fe80::1%eth0", "fe80::1", "fe80::/48"),
        ("203.0.113.7, 198.51.100.1", None, None),
        ("not an address", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_an_address_is_kept_as_far_as_it_is_wanted(
    address: str | None, full: str | None, truncated: str | None
) -> None:
    assert shown_address(address, "full") == full
    assert shown_address(address, "truncated") == truncated
    assert shown_address(address, "none") is None


@given(st.ip_addresses(v=4), st.integers(0, 255))
def test_addresses_of_one_network_look_the_same(address: object, last: int) -> None:
    other = f"{str(address).rpartition('.')[0]}.{last}"
    assert shown_address(str(address), "truncated") == shown_address(other, "truncated")
