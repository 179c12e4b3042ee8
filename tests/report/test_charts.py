"""The wrapping of the library of charts."""

import json

import pytest

from nasjax.report import charts


def test_embedded_json_cannot_leave_its_script():
    text = charts.embedded({"name": "</script><!--&\u2028", "x": 0.5})
    assert not set("<&\u2028") & set(text) and json.loads(text)["name"] == "</script><!--&\u2028"
    with pytest.raises(ValueError, match="not JSON compliant"):
        charts.embedded({"x": float("nan")})


@pytest.mark.slow
def test_the_library_is_packed_once_per_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    charts.library.cache_clear()
    try:
        text = charts.library()
        assert "window.vegaEmbed" in text and "</script" not in text and len(text) < 1_200_000
        (kept,) = (tmp_path / ".cache" / "nasjax").iterdir()
        kept.write_text("// kept")
        charts.library.cache_clear()
        assert charts.library() == "// kept"
    finally:
        charts.library.cache_clear()


@pytest.mark.slow
def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / ".cache").write_text("a file, not a folder")
    monkeypatch.setenv("HOME", str(tmp_path))
    charts.library.cache_clear()
    try:
        assert "window.vegaEmbed" in charts.library()
    finally:
        charts.library.cache_clear()


@pytest.mark.parametrize(("many", "kept"), [(0, 0), (10, 10), (300, 300), (301, 151), (3000, 301)])
def test_too_many_points_are_thinned(many, kept):
    found = charts.thin(range(many))
    assert len(found) == kept and (not many or (found[0], found[-1]) == (0, many - 1))


def test_colours_are_those_of_the_names_and_a_legend_is_for_several():
    two = charts.colours(["a", "b"], ["#111", "#222"])
    assert two["scale"] == {"domain": ["a", "b"], "range": ["#111", "#222"]} and two["legend"]["columns"] > 1
    assert charts.colours(["a"])["legend"] is None
    assert charts.colours(["a" * 60, "b"])["legend"]["columns"] == 1
    assert len(charts.colours([str(n) for n in range(20)])["scale"]["range"]) == 20
