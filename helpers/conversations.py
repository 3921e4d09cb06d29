"""Conversations: the shapes they come in, brought into ``messages`` and checked before anything is trained."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "user", "assistant"]
    content: str


class Conversation(BaseModel):
    """A conversation to learn from: optional system message, then user and assistant in turn, assistant last."""

    messages: list[Message]

    @field_validator("messages")
    @classmethod
    def _in_turn(cls, messages):
        turns = [m for i, m in enumerate(messages) if not (i == 0 and m.role == "system")]
        if len(turns) < 2:
            raise ValueError("the conversation is empty: it needs a user turn and an assistant turn")
        for index, message in enumerate(turns):
            wanted = "assistant" if index % 2 else "user"
            if message.role != wanted:
                raise ValueError(f"turn {index + 1} is {message.role!r} but user and assistant must alternate")
            if not message.content.strip():
                raise ValueError(f"turn {index + 1} ({message.role}) is empty")
        if turns[-1].role != "assistant":
            raise ValueError("the last turn must be the assistant's, or there is nothing to learn from it")
        return messages


def to_messages(row: dict) -> list[dict]:
    """Return the ``messages`` of a row in any of the common shapes.

    Known: ``messages`` (OpenAI), ``conversations`` with from/value (ShareGPT), ``history`` of
    question-answer pairs (CMtMedQA; the closing turn of thanks is left out), instruction/input/output
    (Alpaca), question/answer, and ``data``, a list of alternating strings "问：…", "答：…" (HuatuoGPT).
    Raises ValueError when no shape fits or a role is unknown.
    """
    if row.get("messages"):
        return [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
    if row.get("conversations"):
        messages = []
        for turn in row["conversations"]:
            if turn.get("from") not in _ROLES:
                raise ValueError(f"unknown role {turn.get('from')!r}: use human, gpt or system")
            messages.append({"role": _ROLES[turn["from"]], "content": turn["value"]})
        return messages
    if row.get("history"):
        pairs = row["history"]
    elif row.get("instruction") and row.get("output"):
        pairs = [(row["instruction"] + (f"\n{row['input']}" if row.get("input") else ""), row["output"])]
    elif row.get("question") and row.get("answer"):
        pairs = [(row["question"], row["answer"])]
    elif isinstance(row.get("data"), list):
        turns = [text.removeprefix("问：").removeprefix("答：") for text in row["data"]]
        pairs = list(zip(turns[::2], turns[1::2], strict=True))
    else:
        raise ValueError(
            f"no conversation in the columns {sorted(row)}: use messages, conversations, history, "
            "instruction/output or question/answer"
        )
    return [
        {"role": role, "content": text.strip()}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def check_conversation(row: dict, where: str) -> dict:
    """Return ``row`` with checked ``messages``; raise ValueError starting with ``where`` if it is unusable."""
    try:
        messages = Conversation(messages=to_messages(row)).model_dump()["messages"]
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        got = f", not {problem['input']!r}" if problem["type"] == "literal_error" else ""
        reason = problem["msg"].removeprefix("Value error, ")
        raise ValueError(f"{where}: {place}: {reason}{got}; repair or delete this row") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: {error}; repair or delete this row") from error
    return {**row, "messages": messages}


def usable_conversations(rows: list[dict], source: str | Path) -> tuple[list[dict], list[str]]:
    """Return (checked rows, one report "<source>, row <number>: <reason>" per row that cannot be used)."""
    good, reports = [], []
    for number, row in enumerate(rows, 1):
        try:
            good.append(check_conversation(row, f"{source}, row {number}"))
        except ValueError as error:
            reports.append(str(error))
    return good, reports
