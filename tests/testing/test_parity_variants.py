"""Recordings of other sizes than the ones that are kept here can be compared as well.

A recording is changed on disk: the language model keeps five of its six layers, two of which look
at the image, the decoder gets a third layer, images have three regions and a long caption.
"""

import json

import pytest
import torch
from transformers import AutoTokenizer

from llmdet.testing.parity import captions
from llmdet.testing.parity.model import preprocess, read_json, read_tensors

VARIANT, TOKENS, IMAGE = "p4p5_dn", 64, -200
SIZES = {"feature_map_size": 3, "use_p4_input": False, "lmm_max_token_length": TOKENS}
ALSO = {"num_region_caption": 3, "use_dn": False}


def five_language_layers(weights):
    """Layers 0 and 2 look at the image instead of 0 and 3; layer 5 is gone."""
    kept = {}
    for name, weight in weights.items():
        if name.startswith("lmm.model.layers.5."):
            continue
        looks = any(part in name for part in (".cross_attn.", ".corss_attn_norm."))
        looks |= ".down_proj." in name and ".mlp." not in name
        looks |= ".up_proj." in name and ".mlp." not in name
        if name.startswith("lmm.model.layers.3.") and looks:
            name = name.replace("layers.3.", "layers.2.")
        kept[name] = weight
    return kept


def three_decoder_layers(weights):
    """Layer 1 twice; the pixels' branches, which stand last, move up by one."""
    more = dict(weights)
    for name, weight in weights.items():
        if name.startswith("decoder.layers.1."):
            more[name.replace(".1.", ".2.", 1)] = weight
        if name.startswith(("bbox_head.cls_branches.2.", "bbox_head.reg_branches.2.")):
            more[name.replace("_branches.2.", "_branches.3.")] = weight
            more[name] = weights[name.replace("_branches.2.", "_branches.1.")]
    return more


def longer_caption(record, tokenizer):
    """The recorded conversation with its answer said many times."""
    ids, labels = record["input_id"], record["label"]
    start = len(ids) - ids[::-1].index(tokenizer.convert_tokens_to_ids("<|im_start|>")) + 2
    answer = tokenizer.decode(ids[start:-2])
    said = tokenizer(" ".join([answer] * 9), add_special_tokens=False).input_ids
    return {
        "input_id": [*ids[:start], *said, *ids[-2:]],
        "label": [*labels[:start], *said, *ids[-2:]],
    }


@pytest.fixture(scope="module")
def folder(root, tmp_path_factory):
    recorded = root / "tests/golden/llmdet/lmm_loss"
    made = tmp_path_factory.mktemp("lmm_loss")
    for name in ("bert", "images_bgr_uint8_hwc.pt"):
        (made / name).symlink_to(recorded / name)
    (made / "lmm").mkdir()
    for file in (recorded / "lmm").iterdir():
        (made / "lmm" / file.name).write_bytes(file.read_bytes())
    settings = read_json(recorded / "lmm/config.json")
    (made / "lmm/config.json").write_text(json.dumps({**settings, "num_hidden_layers": 5}))

    model = read_json(recorded / "model_config.json")[VARIANT]
    model["decoder"]["num_layers"] = 3
    (made / "model_config.json").write_text(json.dumps({VARIANT: {**model, **SIZES, **ALSO}}))
    weights = {k: v.clone() for k, v in read_tensors(recorded / "state_dict.pt").items()}
    weights.pop("image_seperate.weight")
    torch.save(three_decoder_layers(five_language_layers(weights)), made / "state_dict.pt")

    inputs = read_json(recorded / "inputs.json")
    tokenizer = AutoTokenizer.from_pretrained(recorded / "lmm")
    for sample in inputs["processed_samples"]:
        sample["conversations"] = longer_caption(sample["conversations"], tokenizer)
        regions = sample["region_conversations"]
        sample["region_conversations"] = {name: regions[name][:3] for name in regions}
    inputs["variants"] = {VARIANT: {}}
    (made / "inputs.json").write_text(json.dumps(inputs))
    return made


@pytest.fixture(scope="module")
def model(folder):
    return captions.build_llmdet(folder, read_json(folder / "model_config.json")[VARIANT])


def test_region_attention_stops_after_the_recorded_number_of_layers(model):
    layers = model.lmm.causal_lm.get_decoder().layers
    looking = [i for i, layer in enumerate(layers) if hasattr(layer, "region_attention")]
    assert (len(layers), looking) == (5, [0, 2])


def padded(rows, fill):
    """Rows as the original pads and then cuts them, before it inserts visual tokens."""
    length = max(len(row) for row in rows)
    assert length > TOKENS
    return torch.tensor([row + [fill] * (length - len(row)) for row in rows])[:, :TOKENS]


def test_what_the_original_calls_its_losses_and_feeds_its_language_model_is_found(folder, model):
    inputs = read_json(folder / "inputs.json")
    samples = captions.make_samples(model, inputs, {})
    images = read_tensors(folder / "images_bgr_uint8_hwc.pt")
    losses = model.train().loss(preprocess(model, images, samples, True), samples)
    assert sum("loss_lmm_region" in name for name in losses) == 1
    # The last of three layers, which the original counts as the first from the end.
    losses["d1.loss_lmm_region"] = losses.pop("d2.loss_lmm_region")
    values = {name: float(value.detach()) for name, value in losses.items()}
    recorded = {
        "losses": values,
        "total_loss": sum(values.values()),
        "grad_norms": {"d1.loss_lmm_region": {}, "loss_lmm_image": {}, "total": {}},
    }
    (folder / f"expected_{VARIANT}.json").write_text(json.dumps(recorded))
    conversations = [sample["conversations"] for sample in inputs["processed_samples"]]
    ids = padded([c["input_id"] for c in conversations], model.lmm.pad_id)
    assert (ids == IMAGE).sum() == len(ids)
    expected = {
        "image.lmm_in.input_ids": ids,
        "image.lmm_in.labels": padded([c["label"] for c in conversations], -100),
        "image.lmm_in.attention_mask": ids != model.lmm.pad_id,
    }
    torch.save(expected, folder / f"expected_{VARIANT}.pt")
    rows = list(captions.check(folder))
    assert [row for row in rows if not row.passed] == []
    assert len(rows) == len(values) + 1 + len(expected)
