"""What the court counts with: citations are hidden, and spelt nowhere in a query."""

from benchmarks.scenarios.law import Section, hide, recall


def section(text: str, *cites: str, id: str = "a#1") -> Section:
    return Section(id=id, heading="Fristen", text=text, cites=cites)


def test_a_query_names_no_other_section() -> None:
    text = "Nach § 7 Abs. 2 Satz 1 und den §§ 4, 5 und 6a bis 9 gilt Artikel 3; 14 Tage nach Absatz 10."
    query = section(text).query
    assert query.startswith("Fristen\nNach §")
    assert not any(digit in query.replace("14 Tage", "") for digit in "0123456789")
    assert "14 Tage" in query


def test_a_fifth_of_the_citations_is_hidden_the_same_for_a_seed() -> None:
    sections = [section("", *(f"a#{n}" for n in range(100)), id=f"a#{at}") for at in range(50)]
    hidden = hide(sections, seed=1)
    assert hidden == hide(sections, seed=1) != hide(sections, seed=2)
    assert 900 < sum(map(len, hidden.values())) < 1100
    assert all(cited <= set(sections[0].cites) for cited in hidden.values())


def test_recall_is_the_share_of_the_answers() -> None:
    assert recall(["a", "b"], {"b", "c"}) == 0.5
