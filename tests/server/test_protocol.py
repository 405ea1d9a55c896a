"""What `dmc serve` answers, field by field, without any client library."""

import http.client
import json
import socket
import time

import pytest

PROMPT = "def read_file(path):\n"


def events(text):
    assert text.endswith("\n\n")
    parts = [part for part in text.split("\n\n") if part and not part.startswith(":")]
    assert all(part.startswith("data: ") for part in parts)
    assert parts[-1] == "data: [DONE]"
    return [json.loads(part[6:]) for part in parts[:-1]]


def test_a_completion_has_all_fields(server):
    answer = server.complete(prompt=PROMPT, max_tokens=8, temperature=0)
    assert answer["object"] == "text_completion" and answer["id"].startswith("cmpl-")
    (choice,) = answer["choices"]
    assert choice["index"] == 0 and choice["text"] and choice["logprobs"] is None
    assert choice["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert usage["completion_tokens"] <= 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    cache = usage["dmc"]
    assert cache["policy"] == "dms"
    assert cache["compression_ratio"] == pytest.approx(
        cache["tokens_seen"] / cache["slots_kept"], rel=1e-5
    )
    assert cache["cache_bytes"] <= cache["dense_bytes"]


def test_it_is_what_dmc_run_writes(server, dmc):
    done = dmc("run", "-m", "models/builtin-dms", "-p", PROMPT, "-n", 60, "--temperature", 0, "--json")
    expected = json.loads(done.stdout)
    answer = server.complete(prompt=PROMPT, max_tokens=60, temperature=0, return_token_ids=True)
    choice = answer["choices"][0]
    assert choice["text"] == expected["text"]
    ends = [0] if choice["finish_reason"] == "stop" else []
    assert choice["token_ids"] == expected["token_ids"] + ends


def test_streamed_text_is_the_whole_text_and_usage_comes_alone(server):
    body = {"prompt": PROMPT, "max_tokens": 40, "temperature": 0}
    whole = server.complete(**body)["choices"][0]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    status, headers, text = server.ask("/v1/completions", body | options)
    assert status == 200 and headers["Content-Type"] == "text/event-stream"
    chunks = events(text)
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] > 0
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks[:-1]]
    assert "".join(choice["text"] for choice in choices) == whole["text"]
    reasons = [choice["finish_reason"] for choice in choices]
    assert reasons[-1] == whole["finish_reason"] and set(reasons[:-1]) == {None}
    assert len(choices) == chunks[-1]["usage"]["completion_tokens"], "a chunk a token"


def test_the_same_seed_gives_the_same_text_whatever_else_is_served(server):
    body = {"prompt": PROMPT, "max_tokens": 30, "temperature": 1, "seed": 7, "n": 3}
    alone = [choice["text"] for choice in server.complete(**body)["choices"]]
    assert len(set(alone)) == 3
    prompts = ["import os\n", PROMPT, "class Parser:\n    def"]
    crowd = server.complete(**body | {"prompt": prompts})["choices"]
    assert [choice["text"] for choice in crowd if 3 <= choice["index"] < 6] == alone
    assert [choice["index"] for choice in crowd] == list(range(9))


def test_echoed_logprobs_are_four_lists_of_all_tokens(server):
    answer = server.complete(prompt=PROMPT, max_tokens=1, logprobs=2, echo=True, temperature=0)
    choice, usage = answer["choices"][0], answer["usage"]
    logprobs = choice["logprobs"]
    count = usage["prompt_tokens"] + 1
    assert [len(logprobs[key]) for key in sorted(logprobs)] == [count] * 4
    assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
    assert "".join(logprobs["tokens"]) == choice["text"] and choice["text"].startswith(PROMPT)
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"]):
        assert choice["text"][offset:].startswith(token)
    for token, own, top in list(
        zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"])
    )[1:]:
        assert top[token] == own and len(top) <= 3
    assert logprobs["token_logprobs"][-1] == max(logprobs["top_logprobs"][-1].values())


def test_an_end_of_text_token_is_listed_and_counted(server):
    answer = server.complete(
        prompt=PROMPT, max_tokens=5, logprobs=0, logit_bias={"0": 100}, temperature=0
    )
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "stop" and choice["text"] == ""
    assert choice["stop_reason"] is None
    assert choice["logprobs"]["tokens"] == ["<|endoftext|>"]
    assert answer["usage"]["completion_tokens"] == 1


def test_a_prompt_is_scored_without_writing(server):
    answer = server.complete(prompt=[5, 6, 7], max_tokens=0, echo=True, logprobs=1)
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == 3
    answer = server.complete(prompt=[5, 6, 7], max_tokens=1, prompt_logprobs=2)
    rated = answer["choices"][0]["prompt_logprobs"]
    assert rated[0] is None and [str(i) in row for i, row in zip((6, 7), rated[1:])] == [True, True]


def test_stop_strings_cut_the_text(server):
    whole = server.complete(prompt=PROMPT, max_tokens=40, temperature=0)["choices"][0]["text"]
    stop = whole[9:13]
    choice = server.complete(prompt=PROMPT, max_tokens=40, temperature=0, stop=[stop])["choices"][0]
    assert choice["text"] == whole[: whole.index(stop)]
    assert choice["finish_reason"] == "stop" and choice["stop_reason"] == stop
    kept = server.complete(
        prompt=PROMPT, max_tokens=40, temperature=0, stop=stop, include_stop_str_in_output=True
    )
    assert kept["choices"][0]["text"] == whole[: whole.index(stop)] + stop


def test_explicit_null_is_the_default(server):
    plain = server.complete(prompt=PROMPT, max_tokens=5, temperature=0)
    nulls = dict.fromkeys(["logprobs", "stop", "n", "best_of", "seed", "stream", "logit_bias", "user"])
    assert server.complete(prompt=PROMPT, max_tokens=5.0, temperature=0, **nulls)["choices"] == (
        plain["choices"]
    )


def test_the_cache_is_shown_by_layer_and_head(server):
    answer = server.complete(prompt=PROMPT * 40, max_tokens=4, dmc={"slots": True})
    cache = answer["usage"]["dmc"]
    assert [len(row) for row in cache["slots"]] == [2] * 5
    assert cache["compression_ratio"] > 1.2


def test_a_beginning_is_taken_in_once(server):
    prompt = [i % 1000 + 3 for i in range(700)]
    first = server.complete(prompt=prompt, max_tokens=10, temperature=0)
    again = server.complete(prompt=prompt, max_tokens=10, temperature=0)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 512
    assert again["choices"] == first["choices"]


@pytest.mark.parametrize(
    "body, param",
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [2048]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [1e300]}, "prompt"),
        ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "a", "max_tokens": "5"}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 2**63}, "max_tokens"),
        ({"prompt": "a", "n": 1000000}, "n"),
        ({"prompt": ["a"] * 20, "n": 16}, "n"),
        ({"prompt": "a", "n": 2, "best_of": 3}, "best_of"),
        ({"prompt": "a", "temperature": 2.1}, "temperature"),
        ({"prompt": "a", "temperature": True}, "temperature"),
        ({"prompt": "a", "top_p": 0}, "top_p"),
        ({"prompt": "a", "top_k": -2}, "top_k"),
        ({"prompt": "a", "min_p": 1.1}, "min_p"),
        ({"prompt": "a", "repetition_penalty": 0}, "repetition_penalty"),
        ({"prompt": "a", "presence_penalty": 3}, "presence_penalty"),
        ({"prompt": "a", "seed": "x"}, "seed"),
        ({"prompt": "a", "stop": ""}, "stop"),
        ({"prompt": "a", "stop": ["b"] * 17}, "stop"),
        ({"prompt": "a", "stop": "b" * 257}, "stop"),
        ({"prompt": "a", "stop": [1]}, "stop"),
        ({"prompt": "a", "stop_token_ids": "x"}, "stop_token_ids"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "logprobs": "1"}, "logprobs"),
        ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias"),
        ({"prompt": "a", "logit_bias": {"99999": 1}}, "logit_bias"),
        ({"prompt": "a", "logit_bias": {"1": 101}}, "logit_bias"),
        ({"prompt": "a", "stream": 1}, "stream"),
        ({"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
        ({"prompt": "a", "stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
        ({"prompt": "a", "min_tokens": 9, "max_tokens": 3}, "min_tokens"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "use_beam_search": True}, "use_beam_search"),
        ({"prompt": "a", "response_format": {"type": "json_object"}}, "response_format"),
        ({"prompt": "a", "dmc": {"cr": 4}}, "dmc"),
        ({"prompt": "a", "dmc": {"cr": "4"}}, "dmc"),
        ({"prompt": "a", "dmc": []}, "dmc"),
    ],
)
def test_what_is_wrong_is_named(server, body, param):
    status, _, text = server.ask("/v1/completions", body)
    error = json.loads(text)["error"]
    assert (status, error["param"]) == (400, param), text
    assert error["type"] == "invalid_request_error" and error["message"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b'{"prompt": "\xff"}',
        b'{"prompt": NaN}',
        b'{"prompt": "a", "prompt": "b"}',
        b"[" * 100000,
        b'{"prompt":' + b"[" * 60 + b"]" * 60 + b"}",
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "\\ud800"}',
    ],
)
def test_what_is_no_json_object_is_refused(server, raw):
    status, _, text = server.ask("/v1/completions", raw=raw)
    assert status == 400 and json.loads(text)["error"]["message"]


def test_a_prompt_beyond_the_context(server):
    status, _, text = server.ask("/v1/completions", {"prompt": [5] * 2049})
    error = json.loads(text)["error"]
    assert status == 400 and error["code"] == "context_length_exceeded"
    assert error["message"].startswith("This model's maximum context length is 2048 tokens")
    full = server.complete(prompt=[5] * 2047, max_tokens=100, ignore_eos=True)
    assert full["usage"]["completion_tokens"] == 1


def test_chat_needs_a_template(server):
    body = {"messages": [{"role": "user", "content": "hi"}]}
    status, _, text = server.ask("/v1/chat/completions", body)
    assert status == 400 and "no chat template" in text


def test_paths_methods_and_types(server):
    assert server.ask("/nowhere")[0] == 404
    status, headers, _ = server.ask("/v1/completions")
    assert status == 405 and headers["Allow"] == "POST"
    assert server.ask("/v1/models", {}, "POST")[0] == 405
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _, text = server.ask("/v1/completions", {"prompt": "a"}, headers=form)
    assert status == 415 and "Content-Type: application/json" in text
    coded = {"Content-Encoding": "gzip"}
    assert server.ask("/v1/completions", {"prompt": "a"}, headers=coded)[0] == 415
    assert server.ask("/v1/completions", {"prompt": "a", "model": "other"})[0] == 404
    assert server.ask("/health", headers={"Host": "evil.example"})[0] == 403
    assert server.ask("/health", headers={"Host": f"localhost:{server.port}"})[0] == 200
    assert server.ask("/health", method="HEAD")[2] == ""
    assert server.ask("/completions", {"prompt": "a", "max_tokens": 1})[0] == 200, "without /v1"
    assert server.ask("/version", headers={"X-Request-Id": "abc-1"})[1]["X-Request-Id"] == "abc-1"


def test_models_and_tokens(server):
    (model,) = json.loads(server.ask("/v1/models")[2])["data"]
    assert model["id"] == "builtin-dms" and model["max_model_len"] == 2048 and model["root"]
    assert server.ask("/v1/models/builtin-dms")[0] == 200
    assert server.ask("/v1/models/other")[0] == 404
    text = "héllo <|endoftext|> 🙂"
    tokens = json.loads(server.ask("/tokenize", {"prompt": text, "add_special_tokens": False})[2])
    assert 0 in tokens["tokens"] and tokens["count"] == len(tokens["tokens"])
    back = json.loads(server.ask("/detokenize", {"tokens": tokens["tokens"]})[2])
    assert back["prompt"] == text
    assert server.ask("/detokenize", {"tokens": [-1]})[0] == 400
    assert json.loads(server.ask("/tokenizer_info")[2])["eos_token"] == "<|endoftext|>"


POST = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def raw_exchange(server, data, timeout=5):
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


@pytest.mark.parametrize(
    "data, status",
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
        (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /\n\n", 400),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nA: b\0c\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET /livez HTTP/3.0\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"BREW /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip\r\n\r\nGET /livez HTTP/1.1\r\n", 400),
        (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 413),
        (POST + b"Content-Length: 18446744073709551615\r\n\r\n", 413),
        (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
        (POST + b"Content-Length: +5\r\n\r\nabcde", 400),
    ],
)
def test_http_that_is_none(server, data, status):
    assert raw_exchange(server, data).startswith(b"HTTP/1.1 %d " % status)
    assert server.ask("/health")[0] == 200


def test_pipelined_requests_are_answered_in_turn(server):
    body = json.dumps({"prompt": "a", "max_tokens": 4}).encode()
    one = (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = raw_exchange(server, one + one + last, timeout=30)
    assert answer.count(b"HTTP/1.1 200 OK") == 3 and answer.endswith(b'{"status":"ok"}')


def test_expect_100_continue_and_chunked_bodies(server):
    body = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    ask = head + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert b"100 Continue" in raw_exchange(server, ask + body, 30)
    chunked = head + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert raw_exchange(server, chunked, 30).startswith(b"HTTP/1.1 200")


def wait_until(condition, seconds=20):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "does not come to pass"
        time.sleep(0.05)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(server, stream):
    before = server.metric('dmc_texts_total{outcome="cancelled"}')
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    body = {"prompt": "a", "max_tokens": 2000, "ignore_eos": True, "stream": stream}
    connection.request(
        "POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"}
    )
    wait_until(lambda: server.metric("dmc_requests_running") > 0)
    connection.sock.close()
    wait_until(lambda: server.metric('dmc_texts_total{outcome="cancelled"}') == before + 1)
    assert server.metric("dmc_requests_running") == 0
