"""What is taken for a secret, and what is not."""

import tomllib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treering.text.secrets import Redactor

CASES = tomllib.loads((Path(__file__).parent.parent / "cases" / "secrets.toml").read_text("utf-8"))["secret"]
TOLD = [case["line"].replace("{}", "".join(case["value"])) for case in CASES]

ORDINARY = r"""
password = getpass()
password = getpass("Password: ")
token = request.headers["x"]
token = request.headers.get("X-Auth-Token")
secret_key = os.environ["K"]
SECRET_KEY = os.environ["DJANGO_SECRET_KEY_2"]
SECRET_KEY = os.environ.get("SECRET_KEY", "changeme")
password: str
password: Optional[str] = None
def login(user: str, password: str = "") -> Token:
<password>
<password>${db.password}</password>
--password <password>
PASSWORD=${DB_PASSWORD}
export TOKEN=$(cat /run/secrets/token)
password: ${{ secrets.PYPI_PASSWORD }}
password: "{{ vault_password }}"
password = "changeme"
password = "your-password-here"
password = 'xxxxxxxx'
password = '********'
password = "test1234"
api_key = "YOUR_API_KEY"
api_key = "<your api key>"
api_key = "sk-..."
if password == "secret":
assert user.check_password("password")
author_email="a@b.c"
commit 8bdf2a2d1f0c3d5e6a7b8c9d0e1f2a3b4c5d6e7f
revert "8bdf2a2d1f0c3d5e6a7b8c9d0e1f2a3b4c5d6e7f"
"integrity": "sha512-9pBdH7Dk1Yv4z0Ff3mQwXcVbNmLkJhGfDsAqWeRtYuIoPzXcVbNm1234567890AsDfGhJkLqWeRtYuIoPzXcVb=="
<script src="a.js" integrity="sha384-oqVuAfXRKap7fdgcCY5uykM6+R9GqQ8K/uxy9rx7HNQlGYl1kPzQho1wx4JwY8wC"></script>
checksum = "d5b4f0a2c3e1968778695a4b3c2d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d"
{ hash = "sha256:d5b4f0a2c3e1968778695a4b3c2d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d" }
github.com/pkg/errors v0.9.1 h1:FEBLx1zS214owpjy7qsBeixbURkuhQAwrK5UwLGTwt4=
id = "3b241101-e2bb-4255-8caf-4136c566a962"
<img src="data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ">
color: #ff00aa;
"background": "#1a2b3c4d"
getUserAuthenticationTokenFromRequestHeaders()
"getUserAuthenticationTokenFromRequestHeaders2"
from app.security.token_factory2 import make_token
import secrets
import { tokenStorage2 } from "../auth/token-storage-v2.js";
https://example.com/a/b?page=2&token=
https://user:password@host/path
https://user:<password>@host
postgres://user:pass@localhost/db
http://localhost:8080/@scope/package
http://127.0.0.1:8000/a@b
git@github.com:owner/repo.git
ssh://git@github.com/owner/repo.git
version = "1.0.0-rc.1+build.20240131"
tokenizers = ">=0.23.1rc1,<0.24"
tokenizers==0.23.1rc1
"jsonwebtoken": "^9.0.2",
"js-tokens": "^4.0.0"
max_tokens=4096
"token_url": "https://login.example.com/oauth2/v2.0/token"
auth_url = "https://auth0.example.com/v2"
private_key_path = "/etc/ssl/private/key2.pem"
key_file: ./certs/server2.key.pem
secret_name = "database-credentials"
token = self.next_token()
tokens = tokenizer2.encode(text1)
token_type: Base64String;
let secret = utf8_decode(v2_bytes)
"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
if "-----BEGIN PRIVATE KEY-----" in text and text.endswith("-----END PRIVATE KEY-----"):
return text.startswith("-----BEGIN RSA PRIVATE KEY-----") or raise_error(text)
Authorization: Bearer <token>
headers = {"Authorization": f"Bearer {token}"}
Authorization: Basic Auth
curl -u user:password https://example.com
curl -u "$USER:$TOKEN" https://example.com
Passwords must have at least 8 characters, 1 digit and 1 capital.
The token is: passed in the header
fix: password reset (#1234)
Merge pull request #77 from a/password-reset-2
""".strip().splitlines()


def redacted(text: str) -> str:
    return Redactor()(text, Counter())


@pytest.mark.parametrize("line", ORDINARY)
def test_ordinary_text_is_left_as_it_is(line: str) -> None:
    assert redacted(line) == line
    hunk = f"@@ -3,2 +3,3 @@ def read(self):\n     pass\n+{line}\n     return 1\n"
    assert redacted(hunk) == hunk


@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{case['kind']}" for number, case in enumerate(CASES)])
def test_a_planted_secret_is_taken_out_and_the_line_around_it_is_not(case: dict[str, str]) -> None:
    value = "".join(case["value"])
    text = f"Keep this.\n{case['line'].replace('{}', value)}\nAnd this.\n"
    found: Counter[str] = Counter()
    cleaned = Redactor()(text, found)
    assert value.strip() not in cleaned
    assert cleaned.startswith("Keep this.\n")
    assert cleaned.endswith("And this.\n")
    assert found.total() == cleaned.count("[redacted:") > 0


def test_a_whole_key_is_one_secret() -> None:
    rsa = "".join(next(case["value"] for case in CASES if case["kind"] == "private-key-rsa"))
    found: Counter[str] = Counter()
    assert Redactor()(f"a\n{rsa}b\n", found) == "a\n[redacted:private-key]\nb\n"
    assert found == {"private-key": 1}


def test_base64_at_the_top_of_a_new_file_is_no_key() -> None:
    body = "".join(next(case["value"] for case in CASES if case["kind"] == "private-key-pkcs8")[2:-2])
    hunk = "@@ -0,0 +1,9 @@\n" + "".join(f"+{line}\n" for line in body.splitlines())
    assert redacted(hunk) == hunk


def test_an_allowed_value_is_no_secret() -> None:
    line = "password = 's7rong-Horse-42'"
    assert redacted(line) == "password = '[redacted:password]'"
    assert Redactor(("s7rong-*",))(line, Counter()) == line
    assert Redactor(("other",))(line, Counter()) != line


def test_the_name_of_a_rule_is_no_name_of_a_secret() -> None:
    line = '["[redacted:private-key]", "user1234abcd5"], [redacted:secret]: "user1234abcd5"'
    assert redacted(line) == line


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(TOLD),
            st.sampled_from(ORDINARY),
            st.sampled_from(
                ["password", "secret", "token = ", ": ", "'", '"', "\n", "@@ -9 +9 @@ ", "[redacted:secret]"]
            ),
            st.sampled_from([" ", "\n+", "\n"]),
            st.text(max_size=30),
        ),
        max_size=6,
    )
)
def test_redacting_twice_is_redacting_once(pieces: list[str]) -> None:
    once = redacted("".join(pieces))
    found: Counter[str] = Counter()
    assert Redactor()(once, found) == once
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "a" * 32_000, "1" * 32_000, " " * 32_000, "\n" * 32_000, '"' * 32_000, "=" * 32_000, "-" * 32_000,
        "\\" * 32_000, "password" * 4_000, 'password"' * 3_500, "password='" * 3_200, "password: " * 3_200,
        "token " * 5_000, "password:" + " a" * 16_000, "<password" * 3_500, "secret[" * 4_500, "--token-" * 4_000,
        "curl -u " * 4_000,
        "-----BEGIN PRIVATE KEY-----" * 1_000, "-----BEGIN PRIVATE KEY----------END PRIVATE KEY-----" * 600,
        "-----BEGIN PRIVATE KEY-----" + "+" * 32_000, "-----BEGIN PRIVATE KEY-----\n" + "+ab\n" * 8_000,
        ("A1b" * 21 + "a\n") * 500 + "-----END", "@@ -1 @@ " * 3_000, "@@ -9 +9 @@\n" + " \n" * 9_000,
        'variable "password" {' * 1_500, "a://" * 8_000, "https://a:" * 3_000, "eyJaaaaaaaa." * 2_600, "a." * 16_000,
        "aws_key" * 4_500, "aws" * 1_000 + "password" * 3_000, ("a1" * 16 + "-") * 900, "#define " * 4_000,
    ],
    ids=lambda text: repr(text[:24]),
)  # fmt: skip
def test_hostile_text_is_read_in_a_moment(text: str) -> None:
    assert len(redacted(text)) > 0


def test_letters_that_are_only_nearly_ascii_are_no_secret_and_no_error() -> None:
    text = "Basic kullan\u0131c\u0131 ad\u0131 gerekli, Basic \u017fecret\u212aelvin"
    assert Redactor()(text, Counter()) == text
