"""API drift: every name and keyword of the libraries that helpers and notebooks use exists in what is installed.

The sources are read, not run: imports and what hangs on them (``bnb.nn.Linear4bit``) are looked up, the keywords of
calls are compared with the signature. Where a function takes ``**kwargs``, a keyword must be documented, there or where
it is handed on. Spreads (``**options``) are skipped. What the documentation calls deprecated is a problem, too.
"""

import ast
import dataclasses
import functools
import importlib
import inspect
import json
import re
import warnings

import pytest

from helpers import colab

LIBRARIES = ("transformers", "trl", "peft", "datasets", "bitsandbytes", "gradio")
FILES = sorted([*colab.ROOT.glob("helpers/*.py"), *colab.NOTEBOOKS.glob("7.*.ipynb")])
METHODS = {  # of objects whose class the source does not show; only names that mean one thing in the course
    "apply_chat_template": "transformers.PreTrainedTokenizerBase.apply_chat_template",
    "generate": "transformers.GenerationMixin.generate",
    "launch": "gradio.Blocks.launch",
    "merge_and_unload": "peft.tuners.tuners_utils.BaseTuner.merge_and_unload",
    "save_pretrained": "transformers.PreTrainedModel.save_pretrained",
    "train_test_split": "datasets.Dataset.train_test_split",
}
BEHIND = {  # where the keywords that a function hands on are documented
    "TextIteratorStreamer": ("transformers.PreTrainedTokenizerBase.decode",),
    "from_config": ("transformers.PreTrainedModel.from_pretrained",),
    "from_pretrained": (
        "transformers.PreTrainedModel.from_pretrained",
        "transformers.PreTrainedTokenizerBase.from_pretrained",
    ),
    "generate": ("transformers.GenerationConfig", "transformers.LlamaForCausalLM.forward"),
    "pipeline": ("transformers.TextGenerationPipeline.__call__", "transformers.GenerationConfig"),
}


def tree_of(path):
    """Return the syntax tree of a Python file, or of a notebook's code cells as one module without magics."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        text = re.sub(r"^[%!].*$", "", "\n".join("".join(cell["source"]) for cell in cells), flags=re.M)
    return ast.parse(text)


@functools.cache
def look_up(dotted):
    """Return the object called ``dotted``; raise AttributeError or ImportError if it does not exist."""
    first, *rest = dotted.split(".")
    item = importlib.import_module(first)
    for name in rest:
        if inspect.ismodule(item) and not hasattr(item, name):
            item = importlib.import_module(f"{item.__name__}.{name}")
        else:
            item = getattr(item, name)
    return item


def described(item):
    """Return {parameter: first words of its description} of a function or class; a base class's deprecation counts."""
    texts = {}
    for place in inspect.getmro(item) if inspect.isclass(item) else [item]:
        entries = re.split(r"^[ \t]*(\w+) \(.*\n", place.__doc__ or "", flags=re.M)
        pairs = list(zip(entries[1::2], entries[2::2], strict=True))
        if dataclasses.is_dataclass(place):
            pairs += [(field.name, field.metadata.get("help", "")) for field in dataclasses.fields(place)]
        for name, text in pairs:
            if name not in texts or text.strip().startswith("Deprecated"):
                texts[name] = text.strip()[:40]
    return texts


@functools.cache
def keywords_of(item):
    """Return {keyword that ``item`` accepts: first words of its description}."""
    parameters, texts = inspect.signature(item).parameters, described(item)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for behind in map(look_up, BEHIND.get(item.__name__, ())):
            texts = dict.fromkeys(inspect.signature(behind).parameters, "") | described(behind) | texts
        return dict.fromkeys(parameters, "") | texts
    return {name: texts.get(name, "") for name in parameters}


def uses(tree):
    """Yield (line, dotted library name, keywords or None) of every import, attribute and call in source order."""
    aliases = {}

    def dotted(node):
        if isinstance(node, ast.Attribute):
            head = dotted(node.value)
            return head and f"{head}.{node.attr}"
        return aliases.get(node.id) if isinstance(node, ast.Name) else None

    for node in sorted((n for n in ast.walk(tree) if hasattr(n, "lineno")), key=lambda n: n.lineno):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for name in node.names:
                full = module + name.name
                local = name.asname or name.name.split(".")[0]
                aliases.pop(local, None)
                if full.split(".")[0] in LIBRARIES:
                    aliases[local] = full if module or name.asname else local
                    yield node.lineno, full, None
        elif isinstance(node, ast.Attribute) and dotted(node):
            yield node.lineno, dotted(node), None
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name is None and isinstance(node.func, ast.Attribute):
                name = METHODS.get(node.func.attr)
            if name:
                yield node.lineno, name, [keyword.arg for keyword in node.keywords if keyword.arg]


def problems(tree):
    """Return one sentence for each name that is not there and each keyword that is unknown or deprecated."""
    found = []
    for line, name, keywords in uses(tree):
        try:
            item = look_up(name)
        except (AttributeError, ImportError) as error:
            found.append(f"line {line}: {name} does not exist ({error})")
            continue
        for keyword in keywords or ():
            known = keywords_of(item)
            if keyword not in known:
                found.append(f"line {line}: {name} has no keyword {keyword}")
            elif known[keyword].startswith("Deprecated"):
                found.append(f"line {line}: {name}: {keyword} is deprecated")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_names_and_keywords_exist(path):
    assert problems(tree_of(path)) == []


def test_the_reader_sees_what_the_course_uses():
    seen = [use for path in FILES for use in uses(tree_of(path))]
    assert {name.split(".")[0] for _, name, _ in seen} == set(LIBRARIES)
    called = {name.rsplit(".", 1)[-1] for _, name, keywords in seen if keywords}
    wanted = {"SFTConfig", "SFTTrainer", "LoraConfig", "BitsAndBytesConfig", "from_pretrained", "Chatbot"}
    assert wanted <= called, wanted - called


BAD = {
    "from trl import DataCollatorForCompletionOnlyLM": "does not exist",
    "import bitsandbytes as bnb\nbnb.nn.Linear3bit": "does not exist",
    "import transformers.no_such_module": "does not exist",
    "from trl import SFTConfig\nSFTConfig(max_seq_length=8)": "no keyword max_seq_length",
    "from trl import SFTConfig\nSFTConfig(pad_token='x')": "pad_token is deprecated",
    "from trl import SFTTrainer as T\nT(tokenizer=1)": "no keyword tokenizer",
    "from transformers import TrainingArguments\nTrainingArguments(evaluation_strategy='no')": "no keyword",
    "from peft import LoraConfig\nLoraConfig(rank=8)": "no keyword rank",
    "from transformers import BitsAndBytesConfig\nBitsAndBytesConfig(load_4bit=True)": "no keyword",
    "from transformers import AutoModelForCausalLM as A\nA.from_pretrained('x', torch_dtype=1)": "no keyword",
    "import gradio\ngradio.ChatInterface(print, type='messages')": "no keyword type",
    "model.generate(max_tokens=3)": "no keyword max_tokens",
}


@pytest.mark.parametrize("source", BAD)
def test_drift_is_noticed(source):
    found = problems(ast.parse(source))
    assert len(found) == 1 and BAD[source] in found[0], found


def test_spreads_and_documented_keywords_pass():
    source = (
        "from transformers import AutoModelForCausalLM as A\nA.from_pretrained('x', dtype='auto', device_map=0, **o)"
    )
    assert problems(ast.parse(source)) == []


def deprecations(path):
    """Return the lines of a notebook's kept outputs in which a library calls our own call deprecated."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", [])]
    return [line for text in texts for line in text.splitlines() if re.search(r"[Dd]eprecat|FutureWarning", line)]


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".ipynb"], ids=lambda path: path.name)
def test_outputs_hold_no_deprecation(path):
    assert deprecations(path) == []


@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning])
def test_a_deprecation_warning_that_helpers_cause_fails_a_test(category):
    with pytest.raises(category):
        warnings.warn_explicit("old", category, "models.py", 1, module="helpers.models")
