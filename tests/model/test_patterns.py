"""Patterns of permissions and policies match what Python's do, and take no longer than a name deserves."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.broker.model.rules.patterns import Automaton, _Parser, compile_regex

LONG = "a" * 250

ATOMS = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^a]", "[a-c]", r"\.", r"\d", r"\W", "^", "$", "[]a]", r"[\w-]", "\\n", "-"]
)
QUANTIFIERS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "*?", "{a}"])


def repeated(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    rows = st.lists(st.tuples(parts, QUANTIFIERS).map("".join), max_size=4).map("".join)
    return st.tuples(st.sampled_from(["(", "(?:"]), rows, st.just("|"), rows, st.just(")")).map("".join)


PATTERNS = st.lists(
    st.tuples(st.recursive(ATOMS, repeated, max_leaves=6), QUANTIFIERS).map("".join), max_size=4
).map("".join)


def compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


@given(PATTERNS.filter(compiles), st.text("ab.1-\n", max_size=8))
def test_an_automaton_matches_what_python_matches(pattern: str, text: str) -> None:
    automaton = Automaton(_Parser(pattern).parse())
    assert bool(automaton.search(text)) == bool(re.search(pattern, text)), pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a+)+$",
        "^(a|a)*$",
        "^(a|aa)+$",
        "^a*a*a*a*a*a*$",
        "(.*)*x",
        "^(([a-z])+.)+[A-Z]([a-z])+$",
        "(a?){40}a{40}b",
    ],
)
def test_a_pattern_that_would_take_forever_does_not(pattern: str) -> None:
    compiled = compile_regex(pattern)
    assert isinstance(compiled, Automaton)
    assert not compiled.search(LONG + "!")


@pytest.mark.parametrize(
    "pattern",
    [
        ".*", "", "^$", "^orders", r"^(orders\.|amq\.gen.*)$", "a.*b", ".*a.*", "^(a|b|c)$", "^[a-z]{3}-x",
        "(ab)?c", "^.{3}$",
    ],
)  # fmt: skip
def test_what_people_write_is_left_to_python(pattern: str) -> None:
    assert isinstance(compile_regex(pattern), re.Pattern)


@pytest.mark.parametrize(
    "pattern",
    [r"(a)\1*\1*\1*", "(?=a)(b+)+", "(?i)(a+)+", "(?P<n>a+)+", r"(\ba+)+", "(a{9999}){9999}"],
)
def test_what_an_automaton_cannot_match_is_left_to_python(pattern: str) -> None:
    assert isinstance(compile_regex(pattern), re.Pattern)


def test_a_bad_pattern_is_refused() -> None:
    with pytest.raises(re.error):
        compile_regex("(")
