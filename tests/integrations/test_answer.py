"""The example answers over a folder with pictures, with citations; its language model is a fake."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from PIL import Image

import triptych
from triptych.integrations.langchain import TriptychPassages

ROOT = Path(__file__).parent.parent.parent


class FakeModel(BaseChatModel):
    """Answers with the source that has the word, as a model that reads would."""

    word: str
    seen: list[Any] = []  # noqa: RUF012  (pydantic copies it)

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        self.seen.extend(messages[0].content)
        prompt = messages[0].content[0]["text"]
        sources = re.findall(
            r"<source \w+ \[(\d+)\] .*?>\n(.*?)\n</source", prompt, flags=re.DOTALL
        )
        number = next(number for number, text in sources if self.word in text)
        message = AIMessage(f"It says {self.word} [{number}].")
        return ChatResult(generations=[ChatGeneration(message=message)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "handbook"
    folder.mkdir()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(folder / "key.png")
    text = "# The shed\n\nThe shed is opened with the crimson key.\n\n![The crimson key](key.png)\n"
    (folder / "shed.md").write_text(text)
    (folder / "boat.md").write_text("# The boat\n\nThe boat lies at the northern pier.\n")
    return folder


def test_the_example_answers_with_citations_and_pictures(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRIPTYCH_DATA", str(tmp_path / "data"))
    spec = importlib.util.spec_from_file_location("answer", ROOT / "examples" / "answer.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    model = FakeModel(word="crimson key.")
    said, citations = example.answer(model, str(folder), "Which key opens the shed?")
    assert said.startswith("It says crimson key.")
    assert len(citations) == 1 and citations[0].startswith("shed.md, characters ")
    assert "image" in {block["type"] for block in model.seen}


@pytest.mark.anyio
async def test_passages_come_with_citations(folder: Path) -> None:
    with triptych.open(":memory:", model="hashing:64") as collection:
        retriever = triptych.Retriever(collection)
        retriever.add(folder)
        chain = TriptychPassages(passages=retriever, k=5)
        found = chain.invoke("Where does the boat lie?")
        assert {"passage", "picture"} == {one.metadata["kind"] for one in found}
        first = found[0]
        assert "northern pier" in first.page_content
        assert first.metadata["citation"].startswith("boat.md, characters ")
        assert await chain.ainvoke("Where does the boat lie?") == found
        assert len(chain.invoke("boat", k=1, words=1.0, expand=0.0)) == 1
