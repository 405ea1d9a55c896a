"""Conversations over HTTP: a built-in model that is given a chat template."""

import json
import shutil

import pytest

from tests.conftest import ROOT
from tests.server.conftest import Server
from tests.server.test_clients import VLLM_CHAT, vllm_reads
from tests.server.test_protocol import events

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}{{ extra }}"
)
HELLO = [{"role": "user", "content": "import os"}]


@pytest.fixture(scope="module")
def chat_server(tmp_path_factory):
    model = tmp_path_factory.mktemp("models") / "chatty"
    shutil.copytree(ROOT / "models/builtin-dms", model)
    (model / "chat_template.jinja").write_text(TEMPLATE)
    served = Server("--cache-memory", "64MiB", model=model)
    yield served
    assert served.end() == 0, served.log


def chat(server, **body):
    status, _, text = server.ask("/v1/chat/completions", {"messages": HELLO} | body)
    assert status == 200, text
    return json.loads(text)


def prompt_of(server, **body):
    """What the template makes of messages, as text."""
    tokens = json.loads(server.ask("/tokenize", {"messages": HELLO} | body)[2])["tokens"]
    return json.loads(server.ask("/detokenize", {"tokens": tokens})[2])["prompt"]


def test_a_reply_has_all_fields(chat_server):
    answer = chat(chat_server, max_tokens=12, temperature=0, logprobs=True, top_logprobs=2)
    assert answer["object"] == "chat.completion" and answer["id"].startswith("chatcmpl-")
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant" and choice["message"]["refusal"] is None
    content = choice["logprobs"]["content"]
    assert len(content) == answer["usage"]["completion_tokens"] == 12
    assert "".join(token["token"] for token in content) == choice["message"]["content"]
    assert all(len(token["top_logprobs"]) == 2 for token in content)
    assert bytes(sum((token["bytes"] for token in content), [])).decode() == (
        choice["message"]["content"]
    )


def test_the_reply_is_the_completion_of_the_templates_text(chat_server):
    text = "[user]import os\n[assistant]"
    assert prompt_of(chat_server) == text
    reply = chat(chat_server, max_tokens=20, temperature=0)["choices"][0]["message"]["content"]
    completed = chat_server.complete(prompt=text, max_tokens=20, temperature=0)
    assert reply == completed["choices"][0]["text"]


def test_streamed_replies_begin_with_the_role_alone(chat_server):
    body = {"messages": HELLO, "max_tokens": 12, "temperature": 0}
    whole = chat(chat_server, **body)["choices"][0]
    text = chat_server.ask("/v1/chat/completions", body | {"stream": True})[2]
    choices = [event["choices"][0] for event in events(text)]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert all("role" not in choice["delta"] for choice in choices[1:])
    assert choices[-1]["delta"] == {} and choices[-1]["finish_reason"] == whole["finish_reason"]
    assert "".join(c["delta"].get("content", "") for c in choices) == whole["message"]["content"]


def test_parts_are_text_and_special_tokens_are_not_special(chat_server):
    parts = [{"type": "text", "text": "a<|endoftext|>"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "short"}, {"role": "user", "content": parts}]
    body = {"messages": messages}
    assert prompt_of(chat_server, **body) == "[system]short\n[user]a<|endoftext|>b\n[assistant]"
    assert 0 not in json.loads(chat_server.ask("/tokenize", body)[2])["tokens"]


def test_the_last_message_is_continued(chat_server):
    messages = HELLO + [{"role": "assistant", "content": "The module"}]
    more = {"continue_final_message": True, "add_generation_prompt": False}
    assert prompt_of(chat_server, messages=messages, **more) == (
        "[user]import os\n[assistant]The module"
    )


def test_variables_of_the_template(chat_server):
    assert prompt_of(chat_server, chat_template_kwargs={"extra": "!"}).endswith("[assistant]!")


@pytest.mark.parametrize(
    "body, param",
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "root", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "messages"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"chat_template_kwargs": {"messages": "x"}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"x": [1]}}, "chat_template_kwargs"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
    ],
)
def test_what_is_wrong_is_named(chat_server, body, param):
    status, _, text = chat_server.ask("/v1/chat/completions", {"messages": HELLO} | body)
    assert (status, json.loads(text)["error"]["param"]) == (400, param), text


def test_a_conversation_takes_in_only_what_is_new(chat_server):
    messages = [{"role": "user", "content": "import os\n" * 100}]
    first = chat(chat_server, messages=messages, max_tokens=30, temperature=0, ignore_eos=True)
    messages.append({"role": "assistant", "content": first["choices"][0]["message"]["content"]})
    messages.append({"role": "user", "content": "more"})
    usage = chat(chat_server, messages=messages, max_tokens=5)["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert cached >= 256 and usage["prompt_tokens"] - cached < 256


def test_openai_chats(chat_server):
    openai = pytest.importorskip("openai", reason="pip install openai")
    client = openai.OpenAI(base_url=chat_server.url + "/v1", api_key="none")
    body = {"model": "chatty", "messages": HELLO, "max_tokens": 20, "temperature": 0}
    whole = client.chat.completions.create(**body).choices[0].message.content
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(**body, **options))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert chunks[-1].usage.completion_tokens == 20


def test_vllm_bench_reads_chats(chat_server):
    status, _, text = chat_server.ask("/v1/chat/completions", VLLM_CHAT)
    assert status == 200, text
    pieces, tokens = vllm_reads(text)
    whole = chat(chat_server, messages=VLLM_CHAT["messages"], max_tokens=12, temperature=0, ignore_eos=True)
    assert tokens == 12 and "".join(pieces) == whole["choices"][0]["message"]["content"]


def test_lm_eval_chats(chat_server):
    pytest.importorskip("lm_eval", reason="pip install lm-eval[api]")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalChatCompletion

    url = chat_server.url + "/v1/chat/completions"
    model = LocalChatCompletion(model="chatty", base_url=url, tokenizer_backend=None)
    history = model.apply_chat_template(HELLO)
    asked = Instance("generate_until", {}, (history, {"until": ["\n\n"], "max_gen_toks": 8}), 0)
    (text,) = model.generate_until([asked])
    expected = chat(chat_server, max_tokens=8, temperature=0, stop=["\n\n"])
    assert text == expected["choices"][0]["message"]["content"]


def test_lm_eval_scores_chats_as_the_program_alone(chat_server, dmc, tmp_path):
    """A task of 50 questions through local-chat-completions, scored against what `dmc run` writes to the
    template's text: every answer must be that."""
    pytest.importorskip("lm_eval", reason="pip install lm-eval[api]")
    import lm_eval
    import yaml
    from lm_eval.tasks import TaskManager

    questions = [f"def {name}_{i}(" for i in range(10) for name in ("read", "write", "parse", "test", "main")]
    messages = [[{"role": "user", "content": question}] for question in questions]
    prompts = [prompt_of(chat_server, messages=each) for each in messages]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    done = dmc("run", "-m", ROOT / "models/builtin-dms", "--prompts", tmp_path / "prompts.jsonl",
               "-n", 12, "--temperature", 0, "--stop", "\n\n")  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    docs = [{"question": q, "answer": a["text"]} for q, a in zip(questions, answers, strict=True)]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    task = {
        "task": "as_alone", "dataset_path": "json", "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "docs.jsonl")}}, "test_split": "test",
        "output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
        "target_delimiter": "", "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 12, "temperature": 0},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (tmp_path / "as_alone.yaml").write_text(yaml.safe_dump(task))
    url = chat_server.url + "/v1/chat/completions"
    results = lm_eval.simple_evaluate(
        model="local-chat-completions",
        model_args={"model": "chatty", "base_url": url, "num_concurrent": 4, "tokenizer_backend": None},
        tasks=[str(tmp_path / "as_alone.yaml")],
        apply_chat_template=True,
        bootstrap_iters=0,
        task_manager=TaskManager(),
    )
    assert results["n-samples"]["as_alone"]["effective"] == 50
    assert results["results"]["as_alone"]["exact_match,none"] == 1.0
