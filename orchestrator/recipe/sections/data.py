"""What is trained on: sources, their shape, the prompt around them."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, Strict

from orchestrator.recipe.sections.base import (
    IntPair,
    Numbers,
    Options,
    Positive,
    Real,
    Section,
    Text,
    Texts,
)

DataFormat = Literal[
    "alpaca", "messages", "sharegpt", "text", "preference", "kto", "pieces", "registered", "custom"
]
ColumnRole = Literal[
    "system", "instruction", "input", "output", "history", "messages", "role", "content", "text",
    "prompt", "completion", "chosen", "rejected", "label", "tools", "images", "videos", "audios",
    "thinking", "train", "train_detail",
]  # fmt: skip
Role = Literal["user", "assistant", "system", "tool", "function"]
TrainOn = Literal["all", "turn", "last", "none"]


class Prompt(Section):
    """The prompt around an instruction row, spelled out."""

    text: Text | None = Field(None, description="with {instruction} and {input}")
    text_without_input: Text | None = Field(None, description="for rows without input")
    system: str | None = Field(None, description="system prompt")
    system_text: Text | None = Field(None, description="with {system}")


class SourceNative(Section):
    """A backend's own options of one source, on top of what is rendered; null removes one."""

    axolotl: Options = Field(default_factory=dict, description="keys of a `datasets` entry")
    llamafactory: Options = Field(default_factory=dict, description="keys in dataset_info.json")


class Source(Section):
    """One data set."""

    path: Text = Field(description="file, folder or hub id; registered: its name")
    format: DataFormat = Field(description="what a row looks like")
    columns: dict[ColumnRole, Text | None] = Field(
        default_factory=dict,
        description="the format's columns by the names that the data uses; null: there is none",
    )
    roles: dict[Role, Text | Texts] = Field(
        default_factory=dict, description="role names that the data uses (messages, sharegpt)"
    )
    subset: Text | None = Field(None, description="configuration name on the hub")
    split: Text = Field("train", description="split to train on")
    revision: Text | None = Field(None, description="branch, tag or commit on the hub")
    samples: Positive | None = Field(None, description="use only the first N rows")
    handler: Text | None = Field(
        None, description="custom: the backend's own name of what reads the rows"
    )
    files: Text | Texts | None = Field(None, description="which files of the data set")
    file_type: Text | None = Field(None, description="json, csv, parquet, ..., if no suffix tells")
    chat_template: Text | None = Field(None, description="another template for this source")
    prompt: Prompt | None = Field(None, description="another prompt for instruction rows")
    train_roles: Texts | None = Field(None, description="roles that are trained")
    train_eos: TrainOn | None = Field(None, description="which ends of text are trained")
    train_eot: TrainOn | None = Field(None, description="which ends of turns are trained")
    drop_system: bool | None = Field(None, description="leave the template's system prompt out")
    split_thinking: bool | None = Field(None, description="take thoughts out of the answers")
    thinking_key: Text | None = Field(None, description="name of the thoughts in the template")
    shards: Positive | None = Field(None, description="cut into shards, and use one")
    trust_remote_code: bool | None = Field(None, description="run the data set's own code")
    skip: int | None = Field(None, description="leave the first N rows out (streaming)")
    native: SourceNative = Field(default_factory=SourceNative, description="a backend's own keys")


class Media(Section):
    """Images, videos and sound."""

    image_size: int | IntPair | None = Field(None, description="images are scaled to this size")
    image_resize: Text | int | None = Field(None, description="how images are scaled")
    image_max_pixels: Positive | None = Field(None, description="larger images are scaled down")
    image_min_pixels: Positive | None = Field(None, description="smaller images are scaled up")
    image_crop_patches: bool | None = Field(None, description="cut images into patches")
    image_pan_scan: bool | None = Field(None, description="crops of wide images")
    video_max_pixels: Positive | None = Field(None, description="larger frames are scaled down")
    video_min_pixels: Positive | None = Field(None, description="smaller frames are scaled up")
    video_fps: Real | None = Field(None, description="frames per second")
    video_max_frames: Positive | None = Field(None, description="frames at most")
    video_audio: bool | None = Field(None, description="use a video's sound")
    audio_rate: Positive | None = Field(None, description="audio samples per second")
    folder: Text | None = Field(None, description="folder of images, videos and sound")
    processor_options: Options | None = Field(
        None, description="further arguments of the processor"
    )


class Data(Section):
    """What is trained on."""

    sources: Annotated[tuple[Source, ...], Strict(False), Field(min_length=1)] = Field(
        description="the training data"
    )
    registry: Text = Field(
        "data", description="registered sources: folder of LLaMA-Factory's dataset_info.json"
    )
    validation: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0, description="held out for evaluation: a share below 1, or a number of rows"
    )
    validation_sources: Annotated[tuple[Source, ...], Strict(False)] = Field(
        (), description="data sets to evaluate on, instead of a share of the training data"
    )
    sequence_length: Annotated[int, Field(ge=16)] = Field(2048, description="tokens per sequence")
    overlong: Literal["backend", "drop", "truncate", "error"] = Field(
        "backend",
        description="rows longer than sequence_length; backend: axolotl drops, llamafactory cuts",
    )
    packing: bool = Field(False, description="several rows in one sequence, attention kept apart")
    packing_mixes: bool = Field(
        False, description="packed rows see each other (LLaMA-Factory's plain packing)"
    )
    packing_evaluation: bool | None = Field(False, description="pack the evaluation data too")
    pad: bool | None = Field(None, description="pad to sequence_length; default: with packing only")
    chat_template: Text = Field(
        "tokenizer",
        description="template by name, `tokenizer` for the model's own, "
        "`alpaca` for the Alpaca prompt, or a .jinja file",
    )
    tokenization: Literal["common", "backend"] = Field(
        "common",
        description="common: the same tokens and labels on either backend; "
        "backend: as llamafactory does it by itself",
    )
    stop_tokens: Texts | None = Field(
        (), description="tokens that end a turn, if the template has others; null: no list at all"
    )
    default_system: Text | None = Field(None, description="system prompt of rows without one")
    train_on: Literal["assistant", "last_assistant", "all"] = Field(
        "assistant", description="which text the loss is computed on"
    )
    shuffle: bool | None = Field(None, description="mix the rows of all sources")
    workers: Positive | None = Field(None, description="processes for preprocessing")
    prepared: Text | None = Field(
        "prepared",
        description="folder of tokenized data in files of `ft recipe render`; a run has its own",
    )
    samples: Positive | None = Field(None, description="use only the first N rows of each source")
    shuffle_sources: bool | None = Field(None, description="shuffle each source by itself")
    deduplicate: bool | None = Field(None, description="drop rows that occur twice")
    streaming: bool | None = Field(None, description="read while training; needs steps")
    stream_buffer: Positive | None = Field(
        None, description="rows that a stream shuffles or packs at once"
    )
    mixing: Text | None = Field(None, description="how sources are mixed")
    weights: Numbers | None = Field(None, description="share of each source")
    curriculum: bool | None = Field(None, description="keep the order of the rows")
    batch_rows: Positive | None = Field(None, description="rows per preprocessing batch")
    rebuild: bool | None = Field(None, description="preprocess anew")
    in_memory: bool | None = Field(None, description="hold the data in memory")
    shared_files: bool | None = Field(None, description="nodes share their files")
    skip_preparation: bool | None = Field(
        None, description="tokenize while training (multimodal data)"
    )
    remove_unused_columns: bool | None = Field(
        None, description="drop columns that the model does not take"
    )
    tool_format: Text | None = Field(None, description="how tools are written into prompts")
    thinking: bool | None = Field(None, description="reasoning templates think")
    keep_thinking: bool | None = Field(None, description="keep the thoughts of earlier turns")
    template_options: Options | None = Field(None, description="variables of the chat template")
    ignore_padding: bool | None = Field(None, description="no loss on padding")
    min_length: Positive | None = Field(None, description="shorter rows are dropped")
    eval_sequence_length: Positive | None = Field(
        None, description="tokens per sequence of evaluation"
    )
    pad_to_multiple: Positive | None = Field(None, description="pad to a multiple of this")
    packing_in_order: bool | None = Field(None, description="pack rows in their order")
    packing_bin_size: Positive | None = Field(None, description="rows in a pack at most")
    packing_group_size: Positive | None = Field(None, description="rows that are packed at once")
    packing_batches: bool | None = Field(
        None, description="batches of packs instead of one long pack"
    )
    packing_estimate: Real | None = Field(None, description="how full packs are")
    batch_flattening: bool | Text | None = Field(
        None, description="concatenate a batch instead of padding it"
    )
    pretrain_separation: bool | None = Field(
        None, description="packed pretraining rows do not see each other"
    )
    evaluate_each: bool | None = Field(None, description="evaluate each source by itself")
    hub_token: bool | None = Field(None, description="use the hub's token for data")
    push_to: Text | None = Field(None, description="upload the prepared data")
    media: Media | None = Field(None, description="images, videos and sound")

    def all_sources(self) -> Iterator[tuple[str, Source]]:
        """Every source, to train and to validate on, with its dotted field."""
        for group in ("sources", "validation_sources"):
            for index, source in enumerate(getattr(self, group)):
                yield f"data.{group}[{index}]", source
