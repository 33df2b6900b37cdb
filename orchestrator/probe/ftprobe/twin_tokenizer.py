"""A small tokenizer with a family's real special tokens, trained on the smoke corpus.

Only the ``tokenizers`` library is imported: transformers costs seconds and adds nothing here.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .errors import ProbeError
from .families import Family

VOCABULARY = 1536
MAX_LENGTH = 2048
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
SPACE = "▁"

# How the byte-level families cut text before merging. Digits go in groups of up to three in the
# Llama-3 vocabulary and singly in Qwen's.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def strings(value: object) -> Iterator[str]:
    """Every string inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key in value:
            yield from strings(value[key])
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def corpus_lines(files: Iterable[Path]) -> Iterator[str]:
    """The text of the corpus: JSON Lines values, or plain lines of any other file."""
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            if path.suffix == ".jsonl":
                yield from strings(json.loads(line))
            elif line:
                yield line


def train_metaspace(family: Family, lines: list[str]) -> Any:
    """A SentencePiece-like BPE: spaces become a visible mark, unknown characters become bytes.

    The byte tokens go into the vocabulary after training: named as special tokens they would match
    literal ``<0x41>`` in a text and be dropped when decoding.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(SPACE), pre_tokenizers.Digits(individual_digits=True)]
    )
    room = VOCABULARY - len(BYTES) - len(family.leading) - len(family.trailing)
    learner.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=room, show_progress=False, special_tokens=[])
    )
    learnt = json.loads(learner.to_str())["model"]
    pieces = sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)
    vocabulary = dict.fromkeys((*family.leading, *BYTES, SPACE, *pieces))
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(vocabulary)},
            merges=[tuple(pair) for pair in learnt["merges"]],
            unk_token=family.unk,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    scheme = "first" if family.prefix_space else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=False)
    tail = [decoders.Strip(" ", left=1)] if family.prefix_space else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *tail]
    )
    return tokenizer


def train_bytelevel(family: Family, lines: list[str]) -> Any:
    """A GPT-2-like BPE over bytes: nothing can be unknown."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    digits = "{1,3}" if family.model_type == "llama" else ""
    tokenizer = Tokenizer(models.BPE())
    if family.model_type.startswith("qwen"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS % digits), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    room = VOCABULARY - len(family.trailing) - len(family.plain)
    tokenizer.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=room,
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    return tokenizer


def add_special_tokens(tokenizer: Any, family: Family) -> None:
    """Declare the family's control tokens and make encoding add BOS where the real one does."""
    from tokenizers import AddedToken, processors

    special = [*family.leading, *family.trailing]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in family.plain])
    steps: list[Any] = []
    if family.splitting == "bytelevel":
        steps.append(processors.ByteLevel(trim_offsets=False))
    if family.adds_bos and family.bos is not None:
        steps.append(
            processors.TemplateProcessing(
                single=f"{family.bos} $A",
                pair=f"{family.bos} $A {family.bos}:1 $B:1",
                special_tokens=[(family.bos, tokenizer.token_to_id(family.bos))],
            )
        )
    if steps:
        tokenizer.post_processor = steps[0] if len(steps) == 1 else processors.Sequence(steps)


def write_tokenizer(family: Family, corpus: list[Path], directory: Path) -> dict[str, int]:
    """Train and save the tokenizer; return the id of every token."""
    lines = list(corpus_lines(corpus))
    if not lines:
        raise ProbeError(
            "The corpus for the twin's tokenizer is empty.",
            hint="Name at least one file with text in it.",
        )
    train = train_metaspace if family.splitting == "metaspace" else train_bytelevel
    tokenizer = train(family, lines)
    add_special_tokens(tokenizer, family)
    tokenizer.save(str(directory / "tokenizer.json"))
    # PreTrainedTokenizerFast takes tokenizer.json as it is. The family's own class would rebuild
    # the splitting rules from its own code (transformers 5: LlamaTokenizer, Qwen2Tokenizer).
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_LENGTH,
        "clean_up_tokenization_spaces": False,
        "bos_token": family.bos,
        "eos_token": family.eos,
        "pad_token": family.pad,
        "unk_token": family.unk,
    }
    (directory / "tokenizer_config.json").write_text(
        json.dumps({key: value for key, value in settings.items() if value is not None}, indent=2)
        + "\n",
        encoding="utf-8",
    )
    (directory / "chat_template.jinja").write_text(family.chat_template, encoding="utf-8")
    ids: dict[str, int] = tokenizer.get_vocab()
    return ids
