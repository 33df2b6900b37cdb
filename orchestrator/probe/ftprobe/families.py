"""What makes each model family itself, as far as a twin needs it: tokens, template, shape.

The chat templates are written here, shorter than the published ones: they cover system, user and
assistant turns with text content, and render the same text as the published template for those
(compared on 62 conversations with axolotl 0.19.0's copies, which have mistral, llama3, qwen2, qwen3
and gemma; its qwen3 alone opens a thought in the generation prompt). Tool calls and images are left
out.

Which published model each family follows: mistral = Mistral-7B-Instruct-v0.3, llama2 =
Llama-2-7b-chat, llama3 = Meta-Llama-3-8B-Instruct (the 3.1 template writes today's date, which a
deterministic twin must not), qwen2 = Qwen2.5-7B-Instruct, qwen3 = Qwen3-8B, gemma = gemma-7b-it,
gemma2 = gemma-2-9b-it, phi3 = Phi-3-mini-4k-instruct.
"""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Family:
    """One model family.

    ``leading`` tokens get the lowest ids, ``trailing`` ones the highest, as in the real
    vocabularies. ``plain`` tokens are added but not special: decoding keeps them.
    """

    architecture: str
    model_type: str
    splitting: Literal["bytelevel", "metaspace"]
    leading: tuple[str, ...]
    trailing: tuple[str, ...]
    bos: str | None
    eos: str
    pad: str | None
    unk: str | None
    adds_bos: bool
    stops: tuple[str, ...]
    chat_template: str
    plain: tuple[str, ...] = ()
    prefix_space: bool = True
    config: dict[str, Any] = field(default_factory=dict)


# The published template repeats the system text in the last user turn only, so it vanishes from a
# conversation that ends with the assistant. That is how the real model's data is rendered, too.
MISTRAL = """\
{%- set ns = namespace(system='') -%}
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{%- set ns.system = message.content + '\\n\\n' -%}
{%- elif message.role == 'user' -%}
{{- '[INST] ' + (ns.system if loop.last else '') + message.content + '[/INST]' -}}
{%- elif message.role == 'assistant' -%}
{{- ' ' + message.content | trim + eos_token -}}
{%- else -%}
{{- raise_exception('unsupported role ' + message.role) -}}
{%- endif -%}
{%- endfor -%}
"""

LLAMA2 = """\
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{%- set ns.system = '<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' -%}
{%- elif message.role == 'user' -%}
{{- bos_token + '[INST] ' + (ns.system + message.content) | trim + ' [/INST]' -}}
{%- set ns.system = '' -%}
{%- elif message.role == 'assistant' -%}
{{- ' ' + message.content | trim + ' ' + eos_token -}}
{%- else -%}
{{- raise_exception('unsupported role ' + message.role) -}}
{%- endif -%}
{%- endfor -%}
"""

LLAMA3 = """\
{%- for message in messages -%}
{{- bos_token if loop.first else '' -}}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' -}}
{{- message.content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

QWEN2 = """\
{%- if messages[0].role != 'system' -%}
{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. \
You are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

# Thinking is shown for the turns after the last question: always (empty if there is none) in the
# very last turn, elsewhere only where there is some. Earlier turns lose theirs.
QWEN3 = """\
{%- set ns = namespace(question=messages | length - 1) -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{%- set ns.question = loop.index0 -%}
{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'assistant' -%}
{%- set thought, answer = '', message.content -%}
{%- if message.reasoning_content is string -%}
{%- set thought = message.reasoning_content -%}
{%- elif '</think>' in answer -%}
{%- set thought = answer.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') -%}
{%- set answer = answer.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{%- if loop.index0 > ns.question and (loop.last or thought) -%}
{{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + answer.lstrip('\\n') -}}
{%- else -%}
{{- answer -}}
{%- endif -%}
{%- else -%}
{{- message.content -}}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}
"""

GEMMA = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{{- raise_exception('System role not supported') -}}
{%- endif -%}
{%- set role = 'model' if message.role == 'assistant' else message.role -%}
{{- '<start_of_turn>' + role + '\\n' + message.content | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<start_of_turn>model\\n' -}}
{%- endif -%}
"""

PHI3 = """\
{%- for message in messages -%}
{{- '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' -}}
{%- endfor -%}
{{- '<|assistant|>\\n' if add_generation_prompt else eos_token -}}
"""

LLAMA3_TRAILING = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|finetune_right_pad_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
QWEN_TRAILING = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
GEMMA_LEADING = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    "<start_of_turn>",
    "<end_of_turn>",
)
GEMMA_TOKENS: dict[str, Any] = {
    "leading": GEMMA_LEADING,
    "trailing": (),
    "bos": "<bos>",
    "eos": "<eos>",
    "pad": "<pad>",
    "unk": "<unk>",
    "adds_bos": True,
    "stops": ("<eos>", "<end_of_turn>"),
    "chat_template": GEMMA,
    "prefix_space": False,
}

FAMILIES: dict[str, Family] = {
    "mistral": Family(
        architecture="MistralForCausalLM",
        model_type="mistral",
        splitting="metaspace",
        leading=("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
        trailing=(),
        bos="<s>",
        eos="</s>",
        pad=None,
        unk="<unk>",
        adds_bos=True,
        stops=("</s>",),
        chat_template=MISTRAL,
        config={"rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "sliding_window": None},
    ),
    "llama2": Family(
        architecture="LlamaForCausalLM",
        model_type="llama",
        splitting="metaspace",
        leading=("<unk>", "<s>", "</s>"),
        trailing=(),
        bos="<s>",
        eos="</s>",
        pad=None,
        unk="<unk>",
        adds_bos=True,
        stops=("</s>",),
        chat_template=LLAMA2,
        config={"rms_norm_eps": 1e-5, "rope_theta": 10000.0},
    ),
    "llama3": Family(
        architecture="LlamaForCausalLM",
        model_type="llama",
        splitting="bytelevel",
        leading=(),
        trailing=LLAMA3_TRAILING,
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        pad=None,
        unk=None,
        adds_bos=True,
        stops=("<|end_of_text|>", "<|eot_id|>"),
        chat_template=LLAMA3,
        config={"rms_norm_eps": 1e-5, "rope_theta": 500000.0},
    ),
    "qwen2": Family(
        architecture="Qwen2ForCausalLM",
        model_type="qwen2",
        splitting="bytelevel",
        leading=(),
        trailing=QWEN_TRAILING,
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        unk=None,
        adds_bos=False,
        stops=("<|im_end|>", "<|endoftext|>"),
        chat_template=QWEN2,
        config={"rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "use_sliding_window": False},
    ),
    "qwen3": Family(
        architecture="Qwen3ForCausalLM",
        model_type="qwen3",
        splitting="bytelevel",
        leading=(),
        trailing=QWEN_TRAILING,
        plain=("<think>", "</think>"),
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        unk=None,
        adds_bos=False,
        stops=("<|im_end|>", "<|endoftext|>"),
        chat_template=QWEN3,
        config={
            "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0,
            "use_sliding_window": False,
            "attention_bias": False,
        },
    ),
    "gemma": Family(
        architecture="GemmaForCausalLM",
        model_type="gemma",
        splitting="metaspace",
        config={
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_act": "gelu_pytorch_tanh",
            "tie_word_embeddings": True,
        },
        **GEMMA_TOKENS,
    ),
    "gemma2": Family(
        architecture="Gemma2ForCausalLM",
        model_type="gemma2",
        splitting="metaspace",
        config={
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": 32,
            "sliding_window": 1024,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "tie_word_embeddings": True,
        },
        **GEMMA_TOKENS,
    ),
    "phi3": Family(
        architecture="Phi3ForCausalLM",
        model_type="phi3",
        splitting="metaspace",
        leading=("<unk>", "<s>", "</s>"),
        trailing=("<|endoftext|>", "<|assistant|>", "<|end|>", "<|system|>", "<|user|>"),
        bos="<s>",
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        unk="<unk>",
        adds_bos=False,
        stops=("<|endoftext|>", "<|assistant|>", "<|end|>"),
        chat_template=PHI3,
        config={
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "original_max_position_embeddings": 2048,
        },
    ),
}
