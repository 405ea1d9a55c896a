"""RetrofitCallback: a transformers Trainer with it does what a loop by hand does, also when it was
stopped and resumed."""

import json

import pytest
import torch
import transformers
from dmc.torch import OptionError, RetrofitCallback, RetrofitOptions, retrofit
from dmc.torch.model import clear_decision_channel
from tiny import VOCABULARY, write_model

pytest.importorskip("accelerate")
LENGTH, ROWS, PARTS, STEPS, RATE = 32, 2, 2, 10, 3e-3
OPTIONS = {
    "channel": ("llama", {"method": "dmc", "decisions": "neuron", "window": 6}),
    "adapter": ("qwen3", {"decisions": "adapter", "train_base": True, "delay": 2}),
}


def options(name):
    more = OPTIONS[name][1]
    return RetrofitOptions(cr=8.0, offset=0.5, decision_scale=4.0, head_cap=1e3, **more)


@pytest.fixture(params=OPTIONS)
def kind(request, tmp_path):
    write_model(tmp_path / "model", OPTIONS[request.param][0])
    return request.param


def load(tmp_path):
    return transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float32
    ).train()


def rows():
    generator = torch.Generator().manual_seed(1)
    count = STEPS * PARTS * ROWS
    return torch.randint(0, VOCABULARY, (count, LENGTH), generator=generator)


class InOrder(transformers.Trainer):
    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def trainer(tmp_path, model, callback, **more):
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=ROWS,
        gradient_accumulation_steps=PARTS,
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=1e9,
        logging_steps=1,
        save_steps=6,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **more,
    )
    data = [{"input_ids": row, "labels": row} for row in rows()]
    return InOrder(model, arguments, train_dataset=data, callbacks=[callback])


def by_hand(model, kind, share):
    """What steered it, and the ratio of each step. share: of the language model's loss."""
    decisions = retrofit(model, options(kind), length=LENGTH)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], RATE)
    finetune = STEPS // 2
    zero_out = round(finetune / 7) if kind == "channel" else 0
    stages = [("zero-out", zero_out), ("retrofit", STEPS - finetune - zero_out), ("finetune", finetune)]
    done, ratios = 0, []
    for stage, steps in stages:
        for step in range(steps):
            for part in range(PARTS):
                row = part * ROWS
                x = rows()[done * PARTS * ROWS + row :][:ROWS]
                decisions.begin_step(
                    stage, step, steps, global_step=done, row=row, rows_of_batch=ROWS * PARTS
                )
                loss = share * model(input_ids=x, labels=x).loss + decisions.extra_loss()
                (loss / PARTS).backward()
            optimizer.step()
            optimizer.zero_grad()
            ratios.append(decisions.end_step())
            done += 1
        if stage == "zero-out" and steps:
            clear_decision_channel(model)
    return decisions, ratios


def assert_same(model, other):
    for (name, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-6, msg=name)


def test_is_the_loop_by_hand(kind, tmp_path):
    model, other = load(tmp_path), load(tmp_path)
    callback = RetrofitCallback(model, options(kind), length=LENGTH)
    run = trainer(tmp_path, model, callback)
    run.train()
    # Older Trainers count the first label, too, which is never predicted.
    share = 1.0 if hasattr(run, "_loss_shifts_labels") else (LENGTH - 1) / LENGTH
    decisions, ratios = by_hand(other, kind, share)
    logs = [log for log in run.state.log_history if "loss" in log]
    assert [log["cr"] for log in logs] == pytest.approx(ratios, rel=1e-6)
    assert callback.decisions.weight == pytest.approx(decisions.weight, rel=1e-6)
    assert max(ratios) > 1.05 and decisions.weight != 1.0
    assert_same(model, other)
    # Evaluated as it is served, whatever the last step was.
    x = rows()[:2]
    decisions.begin_step("served", 0, 1, global_step=0)
    with torch.no_grad():
        served = other(input_ids=x, labels=x).loss
        assert model.eval()(input_ids=x, labels=x).loss == pytest.approx(served.item(), rel=1e-5)

    callback.export(tmp_path / "model", tmp_path / "exported")
    config = json.loads((tmp_path / "exported" / "config.json").read_text())["dmc_config"]
    assert config["trained_tokens"] == STEPS * PARTS * ROWS * LENGTH
    assert config["decision_offset"] == pytest.approx(decisions.offset)


def test_goes_on_from_a_checkpoint(kind, tmp_path):
    whole, resumed = load(tmp_path), load(tmp_path)
    callback = RetrofitCallback(whole, options(kind), length=LENGTH)
    trainer(tmp_path, whole, callback).train()
    again = RetrofitCallback(resumed, options(kind), length=LENGTH)
    run = trainer(tmp_path, resumed, again)
    run.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-6"))
    assert again.decisions.weight == callback.decisions.weight
    assert_same(resumed, whole)
    (tmp_path / "out" / "checkpoint-6" / "dmc_decisions.json").write_text("{}")
    lost = RetrofitCallback(load(tmp_path), options(kind), length=LENGTH)
    with pytest.raises(OptionError, match="not what a retrofit leaves"):
        trainer(tmp_path, lost.model, lost).train(
            resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-6")
        )


def test_what_cannot_be_is_refused(tmp_path):
    write_model(tmp_path / "model")
    with pytest.raises(OptionError, match="distill"):
        RetrofitCallback(load(tmp_path), RetrofitOptions(distill="forward"), length=LENGTH)
    callback = RetrofitCallback(load(tmp_path), RetrofitOptions(delay=2), length=LENGTH)
    with pytest.raises(OptionError, match="max_steps: 1 are too few"):
        callback.stages(1)
    assert callback.stages(9) == [("retrofit", 5), ("finetune", 4)]
