"""Which pages may use a server, and what can be said of that at its start."""

import pytest

from triptych.api.errors import ApiError
from triptych.api.origin import OriginCheck
from triptych.errors import InvalidInput


def refused(check: OriginCheck, host: str, origin: str | None = None, **more: str) -> str | None:
    """Return the code of a refusal, None where the request may pass."""
    headers = {b"host": host.encode("latin-1")}
    if origin is not None:
        headers[b"origin"] = origin.encode("latin-1")
    headers |= {name.replace("_", "-").encode(): value.encode() for name, value in more.items()}
    try:
        check.check(headers)
    except ApiError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "", "localhost.evil.example", "localhost@evil.example", "evil.example#localhost",
        "evil.example/localhost", "evil.example\\localhost", "localhost, evil.example", "127.0.0.1.nip.io",
        "127.1", "0x7f000001", "2130706433", "0.0.0.0", "[::ffff:127.0.0.1]", "localhost:x", "localhost:99999",
        "\xb9\xb2\xb7.0.0.1", "localhost.", " localhost", "[::1", "*", "[::1].evil.example",
    ],
)  # fmt: skip
def test_odd_hosts_are_not_this_machine(host: str) -> None:
    assert refused(OriginCheck(any_host=False), host) == "wrong_host"


@pytest.mark.parametrize(
    "origin",
    [
        "null", "NULL", "", "http://localhost", "http://localhost:3000", "http://localhost:8000.evil.example",
        "http://evil.example", "http://user@localhost:8000", "localhost:8000", "http:///localhost:8000",
        "http://localhost:8000 http://evil.example", "http://127.0.0.1:8000", "http://[::1]:8000", "http://[",
        "data:", "file://", "chrome-extension://abc", "http://evil.example?localhost:8000",
    ],
)  # fmt: skip
@pytest.mark.parametrize("any_host", [False, True])
def test_odd_origins_are_of_others(origin: str, any_host: bool) -> None:
    assert refused(OriginCheck(any_host=any_host), "localhost:8000", origin) == "wrong_origin"


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("Photos.Example", "photos.example:8000"),
        ("192.168.1.7", "192.168.1.7"),
        ("fd00::1", "[fd00::1]:8000"),
        ("[fd00:0::1]", "[fd00::1]"),
        (" my_host ", "my_host"),
    ],
)
def test_a_host_that_is_allowed_passes(given: str, host: str) -> None:
    assert refused(OriginCheck(any_host=False), host) == "wrong_host"
    assert refused(OriginCheck(any_host=False, hosts=(given,)), host) is None


@pytest.mark.parametrize(
    "given", ["*", "*.example", "http://photos.example", "photos.example:8000", "a/b", "", "a b", "ü.example"]
)  # fmt: skip
def test_a_host_that_no_request_names_is_refused_at_the_start(given: str) -> None:
    with pytest.raises(InvalidInput, match="host to allow"):
        OriginCheck(any_host=False, hosts=(given,))


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://Page.Example/", "https://page.example"),
        ("https://page.example:443", "https://page.example"),
        ("http://page.example:80", "http://page.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("null", "null"),
    ],
)
def test_an_origin_that_is_allowed_passes(given: str, origin: str) -> None:
    assert refused(OriginCheck(any_host=False), "localhost:8000", origin) == "wrong_origin"
    check = OriginCheck(any_host=False, origins=(given,))
    assert refused(check, "localhost:8000", origin, sec_fetch_site="cross-site") is None


@pytest.mark.parametrize(
    "given", ["*", "page.example", "https://*.example", "https://page.example/app", "https://", "//a", ""]
)  # fmt: skip
def test_an_origin_that_no_page_has_is_refused_at_the_start(given: str) -> None:
    with pytest.raises(InvalidInput, match="origin to allow"):
        OriginCheck(any_host=False, origins=(given,))
