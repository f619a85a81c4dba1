"""Answer a question from a folder of documents and pictures, and say where it is written.

answer(llm, "handbook", "Which key opens the shed?"), with any chat model of LangChain
"""

import base64

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage

import triptych


def answer(llm: BaseChatModel, folder: str, question: str) -> tuple[str, list[str]]:
    """Return the answer, and the citations of those sources that it names as [1]."""
    with triptych.open(":memory:") as collection:
        retriever = triptych.Retriever(collection)
        retriever.add(folder)
        context = retriever.context(question, budget=1500)
        content: list[str | dict] = [{"type": "text", "text": f"{context.prompt}\n\n{question}"}]
        for source in context.sources:
            if source.kind == "picture" and (jpeg := collection.thumbnail(source.passages[0])):
                data = base64.b64encode(jpeg).decode()
                content.append({"type": "image", "base64": data, "mime_type": "image/jpeg"})
        said = llm.invoke([HumanMessage(content)]).text
    return said, [str(s.citation) for s in context.sources if f"[{s.number}]" in said]
