"""Text, prompt and completion, messages: the three training modes as data, and which tokens get loss."""

import html

from helpers.conversations import check_conversation

IGNORE = -100  # the label that PyTorch's cross entropy skips

# The official ChatML and Llama 3 layouts, with {% generation %} around what the assistant says, its stop
# token included. The markers change no character of the text; they only tell which tokens are supervised.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


def set_chat_template(tokenizer):
    """Give ``tokenizer`` the template with {% generation %} that belongs to its special tokens; return it.

    Raises ValueError for a tokenizer that knows neither ChatML (SmolLM2, Qwen) nor Llama 3 tokens.
    """
    vocabulary = tokenizer.get_vocab()
    if "<|im_start|>" in vocabulary:
        tokenizer.chat_template, tokenizer.eos_token = CHATML, "<|im_end|>"
    elif "<|start_header_id|>" in vocabulary:
        tokenizer.chat_template, tokenizer.eos_token = LLAMA3, "<|eot_id|>"
    else:
        raise ValueError("no chat template for this tokenizer: it has neither <|im_start|> nor <|start_header_id|>")
    return tokenizer


def with_system(messages: list[dict], system: str = "") -> list[dict]:
    """Return ``messages`` with a system message in front if there is none (the slides' step); a new list."""
    if messages and messages[0]["role"] == "system":
        return list(messages)
    return [{"role": "system", "content": system}, *messages]


def prompt_completion(row: dict) -> dict:
    """Return a CodeAlpaca row as ``prompt`` and ``completion``, in the slides' layout for 7.4.

    The space after "### Answer:" belongs to the completion: " Hello" is one token, so a prompt that ended
    in the space would be tokenized differently alone and in front of the answer.
    """
    question = row["instruction"] + (f"\n{row['input']}" if row.get("input") else "")
    return {"prompt": f"### Question: {question}\n ### Answer:", "completion": f" {row['output']}"}


def encode_chat(tokenizer, messages: list[dict], reply: bool = False) -> dict:
    """Return ``input_ids`` and ``labels`` of a conversation, lists of equal length.

    Labels equal the ids where the assistant speaks (its stop token included) and ``IGNORE`` elsewhere.
    With ``reply=True`` the ids end where the assistant is to begin, and there are no labels.
    """
    if reply:
        return {"input_ids": tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]}
    encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    return {"input_ids": list(encoded["input_ids"]), "labels": [i if mask else IGNORE for i, mask in pairs]}


def fit_turns(tokenizer, messages: list[dict], max_length: int, room: int = 0) -> list[dict]:
    """Drop the oldest question-answer pairs until the conversation plus ``room`` fits ``max_length`` tokens.

    The system message and the last question (with its answer, if any) always stay.
    Raises ValueError when even these do not fit.
    """
    head = [m for m in messages[:1] if m["role"] == "system"]
    turns = messages[len(head) :]
    while True:
        length = len(tokenizer.apply_chat_template(head + turns)["input_ids"])
        if length + room <= max_length:
            return head + turns
        if len(turns) <= 2:
            raise ValueError(f"the last turn has {length} tokens and does not fit max_length={max_length}: shorten it")
        turns = turns[2:]


def fit_conversations(tokenizer, rows: list[dict], max_length: int, source: str) -> tuple[list[dict], list[str]]:
    """Return (rows checked and cut to ``max_length`` tokens by whole turns, one report per unusable row).

    ``rows`` may have any shape that :func:`helpers.conversations.to_messages` knows; a missing system message
    becomes an empty one. A row whose last turn alone is too long would be cut in the middle of the answer, or
    before it, so that nothing is supervised: it is left out and reported as "<source>, row <number>: <reason>".
    """
    kept, reports = [], []
    for number, row in enumerate(rows, 1):
        where = f"{source}, row {number}"
        try:
            messages = with_system(check_conversation(row, where)["messages"])
            kept.append({**row, "messages": fit_turns(tokenizer, messages, max_length)})
        except ValueError as error:
            reports.append(f"{where}: {str(error).removeprefix(f'{where}: ')}")
    return kept, reports


def refuse_unsupervised(trainer):
    """Make ``trainer`` stop with a ValueError at a batch in which no token gets loss; return the trainer.

    Without it such a batch trains on nothing and only the loss (0 or nan) tells.
    """
    collate = trainer.data_collator

    def checked(rows):
        batch = collate(rows)
        if bool((batch["labels"][:, 1:] == IGNORE).all()):  # position 0 is never predicted
            start = trainer.processing_class.decode(batch["input_ids"][0, :40])
            raise ValueError(f"no token of this batch is supervised, nothing can be learned from it: {start!r} …")
        return batch

    trainer.data_collator = checked
    return trainer


def token_pieces(tokenizer, input_ids, labels) -> list[tuple[str, bool]]:
    """Return (text, supervised) pieces; ids that are parts of one character (bytes) are joined."""
    pieces, pending = [], []
    for index, (token, label) in enumerate(zip(input_ids, labels, strict=True)):
        pending.append(int(token))
        text = tokenizer.decode(pending)
        last = index + 1 == len(labels) or (int(labels[index + 1]) == IGNORE) != (int(label) == IGNORE)
        if "\ufffd" not in text or last:
            pieces.append((text, int(label) != IGNORE))
            pending = []
    return pieces


def show_supervised(tokenizer, input_ids, labels):
    """Return an HTML view of one row: supervised tokens marked, bold and underlined, stop tokens in ⟦ ⟧.

    ``input_ids`` and ``labels`` are what the trainer's data loader yields (sequences of ints, one row).
    Dotted lines part the tokens. Without colours (print) bold and underline remain; where a page drops every
    style, as GitHub does, the tags ``mark``, ``b`` and ``ins`` and the signs ⟦ ⟧ ↵ still say the same.
    """
    from IPython.display import HTML

    part, cells = "border-right:1px dotted #999", []
    for text, supervised in token_pieces(tokenizer, input_ids, labels):
        shown = html.escape(text).replace("\n", "↵<br>")
        if text == tokenizer.eos_token:
            shown = f'<span style="border:1px solid">⟦{shown}⟧</span>'
        if supervised:
            style = f"background:#ffe08a;color:#000;text-decoration:underline;{part}"
            cells.append(f'<mark style="{style}"><b><ins>{shown}</ins></b></mark>')
        else:
            cells.append(f'<span style="opacity:.65;{part}">{shown}</span>')
    count = sum(int(label) != IGNORE for label in labels)
    return HTML(
        f"<p><b>{count}</b> / {len(input_ids)} 个词元计算损失（粗体、下划线、黄底）；带框的 ⟦ ⟧ = 停止词元，↵ = 换行</p>"
        f'<div style="line-height:1.9">{"".join(cells)}</div>'
    )
