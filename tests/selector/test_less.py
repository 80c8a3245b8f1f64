"""LESS from raw gradients: what the released code made of them."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dsel.arrays import unit_rows
from dsel.errors import ConfigError
from dsel.model.chat import IGNORED
from dsel.model.gradients import adam_steps, per_example, trained
from dsel.selector import less
from dsel.selector.base import Choose
from tests.conftest import GOLDEN, ROOT, shared

SMOLLM2 = ROOT / "models" / "smollm2-135m-instruct"


def adam_step(gradients, first, second, *, eps):
    moments = {"all": {"exp_avg": first, "exp_avg_sq": second}}
    return adam_steps(torch.tensor(gradients), moments, {"all": gradients.shape[1]}, eps=eps).numpy()


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "targets" / "less.npz")


@pytest.fixture(scope="module")
def features(golden):
    """Projected and normalised, of the pool and the targets at both checkpoints."""
    bits = np.load(GOLDEN / "targets" / "less_rademacher_512.npz")["rademacher_bits"]
    signs = np.where(np.unpackbits(bits, axis=1)[:, :512], 1, -1).astype(np.float32)
    pool, targets = [], []
    for i in (1, 2):
        moments = golden[f"m_ckpt{i}"], golden[f"v_ckpt{i}"]
        pool.append(unit_rows(adam_step(golden[f"train_rawgrad_ckpt{i}"], *moments, eps="code") @ signs))
        targets.append(unit_rows(golden[f"tydiqa_rawgrad_ckpt{i}"] @ signs))
    return pool, targets


def test_features_are_the_released_ones(golden, features):
    for i in (1, 2):
        for ours, name in zip(features, ("train", "tydiqa"), strict=True):
            np.testing.assert_allclose(ours[i - 1], golden[f"{name}_projected_normalised_ckpt{i}"], atol=1e-4)


def test_scores_and_choice_are_the_released_ones(golden, features):
    subtasks = np.arange(18).reshape(9, 2)
    scores = less.influence(*features, golden["checkpoint_weights_raw"], subtasks, subtask="mean_cosine")
    np.testing.assert_allclose(scores, golden["influence_score"], atol=1e-4)
    rows = golden["example_rows"][:24]
    np.testing.assert_array_equal(rows[np.argsort(-scores, kind="stable")[:8]], golden["top8_rows"])


def test_influence_against_the_definition():
    rng = np.random.default_rng(0)
    pool, targets = rng.normal(size=(2, 7, 5)), rng.normal(size=(2, 6, 5))
    subtasks, rates = [np.array([0, 1, 2]), np.array([3]), np.array([4, 5])], [3e-5, 1e-5]

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    for reduce, over in (("max", max), ("mean", lambda values: sum(values) / len(values))):
        expected = []
        for i in range(7):
            each = [
                sum(r / 4e-5 * cosine(pool[c, i], targets[c, rows].mean(axis=0)) for c, r in enumerate(rates))
                for rows in subtasks
            ]
            expected.append(over(each))
        ours = less.influence(pool, targets, rates, subtasks, reduce=reduce)
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_adam_step_is_that_of_torch():
    rng = np.random.default_rng(1)
    weight = torch.nn.Parameter(torch.zeros(20))
    optimizer = torch.optim.Adam([weight], lr=1.0)
    for _ in range(3):
        weight.grad = torch.tensor(rng.normal(size=20), dtype=torch.float32)
        optimizer.step()
    state, before = optimizer.state[weight], weight.detach().clone()
    first, second = (state[name].numpy().copy() for name in ("exp_avg", "exp_avg_sq"))
    gradient = rng.normal(size=(1, 20)).astype(np.float32)
    weight.grad = torch.tensor(gradient[0])
    optimizer.step()
    step = (before - weight.detach()).numpy() * (1 - 0.9**4)  # without the correction of the first moment
    corrected = np.sqrt((0.999 * second + 0.001 * gradient[0] ** 2) / (1 - 0.999**4)) + 1e-8
    ours = adam_step(gradient, first, second, eps="paper")[0]
    root = np.sqrt(0.999 * second + 0.001 * gradient[0] ** 2) + 1e-8
    np.testing.assert_allclose(ours * root / corrected, step, rtol=2e-5)


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2.is_dir(), reason=f"needs {SMOLLM2}")
@pytest.mark.parametrize("checkpoint", [1, 2])
def test_gradients_of_smollm2_are_the_released_ones(golden, checkpoint):
    """Of the pool, from which the weights were found, and of the targets, from which they were not."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
    lora = LoraConfig(r=1, lora_alpha=4, target_modules=["q_proj"], layers_to_transform=[8, 24], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(SMOLLM2, dtype=torch.float32), lora)
    weights = np.load(GOLDEN / "targets" / "less_lora.npz")[f"ckpt{checkpoint}"]
    parameters, names = dict(model.named_parameters()), list(map(str, golden["param_names"]))
    for name, values in zip(names, np.split(weights, len(names)), strict=True):
        parameters[name].data.copy_(torch.from_numpy(values).view_as(parameters[name]))

    def encoded(row):
        """In the released code's format, whose response starts where its prompt alone ends."""
        asked = f"<|user|>\n{row['instruction']}" + (f"\n{row['input']}" if row["input"] else "") + "\n<|assistant|>\n"
        ids = tokenizer(f"{asked}{row['output'].strip()}{tokenizer.eos_token}")["input_ids"]
        prompt = len(tokenizer(asked)["input_ids"])
        return ids, [IGNORED] * prompt + ids[prompt:]

    rows = json.loads(shared("data/alpaca_gpt4_999.json").read_text())
    expected = np.concatenate([golden[f"{kind}_rawgrad_ckpt{checkpoint}"] for kind in ("train", "tydiqa")])
    starts = np.split(np.arange(expected.shape[1]), len(names))
    order = np.concatenate([starts[names.index(name)] for name in trained(model)])
    for found, values in per_example(model, [encoded(rows[i]) for i in golden["example_rows"]]):
        left = np.linalg.norm(values.numpy() - expected[found][:, order], axis=1)
        assert (left < 2e-4 * np.linalg.norm(expected[found], axis=1)).all()


@pytest.mark.parametrize("eps", ["paper", "code"])
def test_what_has_no_gradient_takes_no_step(eps):
    gradients = np.array([[0, 0, 0], [0, 0.1, 0]], dtype=np.float32)
    step = adam_step(gradients, np.ones(3), np.ones(3), eps=eps)
    assert not step[0].any() and step[1].all()


@dataclass
class Compared(less.ByGradients):
    """With similarities that are given instead of computed."""

    given: tuple[float, ...] = ()

    def compare(self, study, learner, target, subtasks):
        return np.array(self.given)[:, None]


def test_what_has_no_gradient_is_chosen_last_and_said(caplog):
    """As an example whose response is cut away: it is like no target, and unlike none."""
    target = SimpleNamespace(by_subtask=lambda: [np.arange(2)], pool=None)
    pool, rng = range(5), np.random.default_rng(0)
    study = SimpleNamespace(pool=pool, rng=rng, budget=4, target_or_fail=lambda: target)
    selector = Compared(given=(-0.2, 0.0, 0.3, 0.0, -0.1), checkpoints=2, max_length=64)
    *_, step = selector.steps(study, SimpleNamespace(rate=lambda: 1e-5))
    assert isinstance(step, Choose) and step.selection.indices.tolist() == [2, 4, 0, 1]
    assert "2 examples have no gradient (no response within selector.max_length=64 tokens" in caplog.text


def test_a_warm_up_that_diverged_is_one_line():
    target = SimpleNamespace(by_subtask=lambda: [np.arange(2)], pool=None)
    study = SimpleNamespace(pool=range(2), rng=np.random.default_rng(0), budget=1, target_or_fail=lambda: target)
    selector = Compared(given=(0.1, np.nan), checkpoints=1, max_length=64)
    with pytest.raises(ConfigError, match="checkpoint 1 are not finite: the warm-up has diverged"):
        list(selector.steps(study, SimpleNamespace(rate=lambda: 1e-5)))


def test_targets_without_gradients_are_refused(monkeypatch):
    selector = less.Less(max_length=64)
    monkeypatch.setattr(less.Less, "features", lambda *given, **more: np.zeros((2, 8)))
    with pytest.raises(ConfigError, match="no response within selector.max_length=64 tokens"):
        selector.wanted(SimpleNamespace(), None, None)


@pytest.mark.parametrize("subtask", ["mean_gradient", "mean_cosine"])
def test_targets_without_gradients_do_not_count(subtask):
    """Nor does a subtask that has none: its 0 is not better than what points away from the others."""
    rng = np.random.default_rng(0)
    pool, targets = rng.normal(size=(1, 9, 5)), rng.normal(size=(1, 3, 5))
    more = np.insert(targets, [1, 3, 3], 0, axis=1)  # targets 1, 4 and 5 have no gradient
    given = [np.array([0, 1]), np.array([2])]
    among = [np.array([0, 1, 2]), np.array([3]), np.array([4, 5])]
    for reduce in ("max", "mean"):
        alone = less.influence(pool, targets, [1e-5], given, subtask=subtask, reduce=reduce)
        assert (alone < 0).any()
        found = less.influence(pool, more, [1e-5], among, subtask=subtask, reduce=reduce)
        np.testing.assert_array_equal(found, alone)
