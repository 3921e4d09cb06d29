"""What the chat page shows, as Markdown and HTML: who speaks, the token budget, the sources, the emergency banner."""

from html import escape

from helpers.consultation import DISCLAIMER
from helpers.retrieval import first_words

SUBDUED = "font-size:.85em;opacity:.75"
BANNER = (
    '<div role="alert" style="background:#b91c1c;color:#fff;padding:.7em 1em;border-radius:8px;font-size:1.15em">'
    '<b style="color:#fff">先打 <a href="tel:120" style="color:#fff">120</a>，或者现在就去急诊</b>：不要等网页上的回答</div>'
)


def chat_messages(turns: list[dict]) -> list[dict]:
    """Return ``turns`` as the chat shows them: who or what speaks, and the disclaimer once, under the first answer."""
    shown, note = [], f"\n\n<small>{DISCLAIMER}</small>"
    for turn in turns:
        text = escape(turn["content"], quote=False)
        if turn["role"] == "assistant":
            text, note = f"<small>**{turn['by']}{turn.get('note', '')}**</small>\n\n{text}{note}", ""
        shown.append({"role": turn["role"], "content": text})
    return shown


def budget_bar(used: int, forgotten: int, max_length: int) -> str:
    """Return the token budget as HTML: how full the context is, and how many of the oldest questions are forgotten."""
    lost = f"；最早的 {forgotten} 问已经放不下，模型看不到了" if forgotten else ""
    return (
        f'<div style="{SUBDUED}"><progress value="{used}" max="{max_length}" style="width:100%"></progress><br>'
        f"词元预算：模型看得到的对话已用 <b>{used}</b> / {max_length} 个词元{lost}</div>"
    )


def source_cards(found: list[tuple[float, dict]]) -> str:
    """Return the nearest consultations as HTML: department, similarity, the patient's words, the doctor's first reply."""
    cards = "".join(
        '<div style="border:1px solid var(--border-color-primary);border-radius:8px;padding:.6em .8em;margin:.6em 0">'
        f'<span style="{SUBDUED}">{escape(row["department"])} · 字面相似度 {similarity:.2f}</span><br>'
        f"<b>患者</b>：{escape(first_words(row))}<br><b>医生</b>：{escape(first_words(row, 'assistant'))}</div>"
        for similarity, row in found
    )
    return (
        "<b>来源：题库里最像的问诊</b>"
        f'<div style="{SUBDUED}">题库里原样的文字，比模型现编的话可靠；但都是虚构的教学例子，只按字面找，不一定是同一种病。</div>'
        + (cards or f'<div style="{SUBDUED};margin-top:.6em">这里还没有来源。</div>')
    )
