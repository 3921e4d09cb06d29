"""Templates and masks: the same token ids everywhere, one BOS, whole turns, and no silent training on nothing."""

import re

import pytest
from datasets import Dataset
from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer, chat_template_utils

from helpers.datasets import bundled
from helpers.formatting import (
    IGNORE,
    LLAMA3,
    encode_chat,
    fit_conversations,
    fit_turns,
    prompt_completion,
    refuse_unsupervised,
    set_chat_template,
    show_supervised,
    token_pieces,
    with_system,
)
from helpers.models import load_tokenizer
from helpers.sizes import SMOLLM2, trainer_hardware

# where Llama 3 cuts text before BPE; it keeps "\n\n" whole in front of text, SmolLM2's own rule does not
LLAMA3_WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATS = [with_system(row["messages"]) for row in bundled("chats")]
SLIDE = [
    {"role": "user", "content": "What is your name?"},
    {"role": "assistant", "content": "My name is john."},
    {"role": "user", "content": "How old are you?"},
    {"role": "assistant", "content": "I am six years old."},
]


def chatml():
    """SmolLM2's tokenizer with our ChatML."""
    return set_chat_template(load_tokenizer(SMOLLM2))


def llama_style():
    """A tokenizer with Llama 3's special tokens, which puts a BOS in front of every text as Llama's does."""
    tokenizer = load_tokenizer(SMOLLM2)
    names = ["<|start_header_id|>", "<|end_header_id|>"]
    tokenizer.add_special_tokens(
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "additional_special_tokens": names}
    )
    words = Split(LLAMA3_WORDS, behavior="isolated")
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence([words, ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A",
        pair="<|begin_of_text|> $A $B",
        special_tokens=[("<|begin_of_text|>", tokenizer.bos_token_id)],
    )
    tokenizer.chat_template = LLAMA3
    return tokenizer


TOKENIZERS = pytest.mark.parametrize("make", [chatml, llama_style])


def trainer_of(tokenizer, rows, folder, **options):
    """An SFTTrainer around a model of a few thousand parameters; its data preparation is the real one."""
    shape = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape))
    settings = dict(assistant_only_loss=True, max_length=None, **trainer_hardware())
    config = SFTConfig(output_dir=str(folder), save_strategy="no", disable_tqdm=True, **{**settings, **options})
    return SFTTrainer(model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


@TOKENIZERS
def test_training_evaluation_chat_and_export_see_the_same_ids(make, tmp_path):
    """Most fine-tunes that answer as the user or never stop were trained and used with different layouts."""
    tokenizer = make()
    trained = trainer_of(tokenizer, [{"messages": chat} for chat in CHATS], tmp_path).train_dataset
    tokenizer.save_pretrained(tmp_path / "export")
    exported = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert len(trained) == len(CHATS)
    for chat, row in zip(CHATS, trained, strict=True):
        evaluated = encode_chat(tokenizer, chat)
        assert evaluated == {"input_ids": row["input_ids"], "labels": row["labels"]}
        assert encode_chat(exported, chat) == evaluated
        learned = []
        for turn, message in enumerate(chat):
            if message["role"] == "assistant":  # what the chat page sends, then what the model is to say
                asked = encode_chat(exported, chat[:turn], reply=True)["input_ids"]
                assert row["input_ids"][: len(asked)] == asked
                end = row["input_ids"].index(tokenizer.eos_token_id, len(asked))
                learned += range(len(asked), end + 1)
        assert [i for i, label in enumerate(row["labels"]) if label != IGNORE] == learned
        assert [row["labels"][i] for i in learned] == [row["input_ids"][i] for i in learned]


@TOKENIZERS
def test_exported_tokenizer_keeps_stop_and_pad_token(make, tmp_path):
    tokenizer = make()
    tokenizer.save_pretrained(tmp_path)
    exported = AutoTokenizer.from_pretrained(tmp_path)
    assert (exported.eos_token, exported.pad_token) == (tokenizer.eos_token, tokenizer.pad_token)
    assert exported.chat_template == tokenizer.chat_template
    assert exported.pad_token != exported.eos_token


def test_exactly_one_bos(tmp_path):
    """Template and tokenizer both add one; the text route ends up with two (double BOS, a known trap)."""
    tokenizer = llama_style()
    assert tokenizer("hello")["input_ids"][0] == tokenizer.bos_token_id
    trained = trainer_of(tokenizer, [{"messages": chat} for chat in CHATS], tmp_path).train_dataset
    for chat, row in zip(CHATS, trained, strict=True):
        for ids in (row["input_ids"], encode_chat(tokenizer, chat[:-1], reply=True)["input_ids"]):
            assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    text = tokenizer.apply_chat_template(SLIDE, tokenize=False)
    assert tokenizer(text)["input_ids"].count(tokenizer.bos_token_id) == 2


def masks(tokenizer, chat, template):
    """Return (ids, assistant mask) under ``template``."""
    options = dict(chat_template=template, return_dict=True, return_assistant_tokens_mask=True)
    encoded = tokenizer.apply_chat_template(chat, **options)
    return encoded["input_ids"], encoded["assistant_masks"]


def test_llama3_mask_is_that_of_trl():
    tokenizer = llama_style()
    for chat in CHATS:
        ours = masks(tokenizer, chat, LLAMA3)
        assert ours == masks(tokenizer, chat, chat_template_utils.llama3_training_chat_template)
        official = tokenizer.apply_chat_template(chat, chat_template=chat_template_utils.llama3_chat_template)
        assert ours[0] == official["input_ids"]


def test_chatml_mask_is_that_of_trl_but_for_the_newlines_of_the_layout():
    """TRL's Qwen 2.5 template also counts the line break before and after each answer."""
    tokenizer = chatml()
    for chat in CHATS:
        ids, ours = masks(tokenizer, chat, tokenizer.chat_template)
        same_ids, theirs = masks(tokenizer, chat, chat_template_utils.qwen2_5_training_chat_template)
        assert ids == same_ids
        different = [tokenizer.decode(i) for i, a, b in zip(ids, ours, theirs, strict=True) if a != b]
        assert different == ["\n"] * (2 * sum(m["role"] == "assistant" for m in chat))


def test_system_message_is_added_once_and_the_row_is_left_alone():
    before = [dict(message) for message in SLIDE]
    assert with_system(SLIDE)[0] == {"role": "system", "content": ""} and SLIDE == before
    assert with_system(with_system(SLIDE)) == with_system(SLIDE)


def test_unknown_tokenizer_gets_no_template():
    class Other:
        def get_vocab(self):
            return {"a": 0}

    with pytest.raises(ValueError, match="neither <|im_start|>".replace("|", r"\|")):
        set_chat_template(Other())


def test_long_conversation_is_cut_by_whole_turns():
    tokenizer = chatml()
    chat = with_system(SLIDE * 5)
    for limit in range(60, 300, 17):
        cut = fit_turns(tokenizer, chat, limit)
        assert len(encode_chat(tokenizer, cut)["input_ids"]) <= limit
        assert cut[0] == chat[0] and cut[1:] == chat[len(chat) - len(cut) + 1 :]  # system and the newest turns
        assert [m["role"] for m in cut[1:]] == ["user", "assistant"] * ((len(cut) - 1) // 2)
    question = fit_turns(tokenizer, chat[:-1], 60)  # a question that waits for its answer
    assert question[1]["role"] == question[-1]["role"] == "user"


def test_row_whose_answer_would_be_cut_away_is_reported_with_file_and_row():
    tokenizer = chatml()
    too_long = {"messages": [{"role": "user", "content": "long " * 100}, SLIDE[1]]}
    rows = [{"messages": SLIDE[:1]}, {"id": 2, "messages": SLIDE}, too_long]
    kept, reports = fit_conversations(tokenizer, rows, 80, "my.jsonl")
    assert kept == [{"id": 2, "messages": with_system(SLIDE)}] and len(reports) == 2
    assert reports[0].startswith("my.jsonl, row 1: ") and reports[0].count("row 1") == 1
    assert re.match(r"my.jsonl, row 3: the last turn has \d+ tokens", reports[1])


def test_batch_without_supervised_tokens_never_trains_silently(tmp_path):
    """The rows come with labels already, as from one's own preparation; SFTTrainer takes them as they are."""
    row = encode_chat(chatml(), SLIDE)
    nothing = {**row, "labels": [IGNORE] * len(row["labels"])}
    options = dict(assistant_only_loss=False, max_steps=1, per_device_train_batch_size=2)
    with pytest.raises(ValueError, match="no token of this batch is supervised.*What is your name"):
        refuse_unsupervised(trainer_of(chatml(), [nothing, nothing], tmp_path, **options)).train()
    refuse_unsupervised(trainer_of(chatml(), [row, nothing], tmp_path, **options)).train()


def test_template_without_generation_markers_is_refused(tmp_path):
    """SmolLM2's own template has none; TRL replaces only templates that it knows letter by letter."""
    with pytest.raises(ValueError, match="generation"):
        trainer_of(load_tokenizer(SMOLLM2), [{"messages": SLIDE}], tmp_path)


def test_stop_token_survives_in_the_labels_even_when_padding_equals_it(tmp_path):
    tokenizer = chatml()
    tokenizer.pad_token = tokenizer.eos_token
    rows = [{"messages": SLIDE}, {"messages": SLIDE[:2]}]
    batch = next(iter(trainer_of(tokenizer, rows, tmp_path).get_train_dataloader()))
    assert int((batch["labels"] == tokenizer.eos_token_id).sum()) == 3


def test_prompt_and_completion_join_without_a_seam():
    tokenizer = load_tokenizer(SMOLLM2)
    for row in bundled("code_instructions")[:50]:
        pair = prompt_completion(row)
        whole = tokenizer(pair["prompt"] + pair["completion"])["input_ids"]
        prompt = tokenizer(pair["prompt"])["input_ids"]
        assert whole[: len(prompt)] == prompt


def test_pieces_keep_every_character_and_never_split_one():
    """A Chinese character is often two or three tokens; half a character must not be shown as a black square."""
    tokenizer = chatml()
    for chat in CHATS[:40]:
        row = encode_chat(tokenizer, chat)
        pieces = token_pieces(tokenizer, row["input_ids"], row["labels"])
        assert "".join(text for text, _ in pieces) == tokenizer.decode(row["input_ids"])
        assert not any("\ufffd" in text for text, _ in pieces)
        learned = [text for text, supervised in pieces if supervised]
        assert "".join(learned) == "".join(m["content"] + "<|im_end|>" for m in chat if m["role"] == "assistant")


def test_view_says_the_same_without_colours_and_without_any_style():
    """GitHub drops style attributes and tags that it does not know (u among them)."""
    tokenizer = chatml()
    chat = [{"role": "user", "content": "<b>1 < 2?</b>"}, {"role": "assistant", "content": "Yes"}]
    row = encode_chat(tokenizer, chat)
    page = show_supervised(tokenizer, row["input_ids"], row["labels"]).data
    bare = re.sub(r' style="[^"]*"', "", page)
    assert set(re.findall(r"</?([a-z]+)", bare)) <= {"p", "b", "div", "mark", "ins", "span", "br"}
    supervised = re.findall(r"<mark><b><ins>(.*?)</ins></b></mark>", bare)
    assert supervised == ["Yes", "<span>⟦&lt;|im_end|&gt;⟧</span>"]
    assert "<p><b>2</b> / " in bare and "&lt;b&gt;" in bare.replace("</span><span>", "")
    assert bare.count("⟦") == 3 and "text-decoration:underline" in page  # legend, user's stop, assistant's stop
