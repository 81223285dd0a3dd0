"""Metrics by name: options, reports, and what their files may look like."""

import gzip
import json
import shutil

import numpy as np
import pytest

from llmdet.errors import ConfigError, DataError
from llmdet.evaluation.prediction_writer import PredictionWriter
from llmdet.evaluation.predictions import PredictionHeader, prediction_row
from llmdet.evaluation.suite import (
    RUNNERS,
    MetricReport,
    describe_file,
    flatten,
    option_types,
    parse_options,
    protocol_note,
    run_metric,
)
from llmdet.testing.golden import LOCAL

LVIS = LOCAL / "lvis" / "syn_edge"
TRUTH = LVIS / "gt.json.gz"


def test_the_metrics_of_the_help_are_those_that_run():
    assert len(RUNNERS) == 21
    for name in RUNNERS:
        assert all(
            default is not None or key in ("class_split", "embeddings", "text_encoder")
            for key, (_, default) in option_types(name).items()
        )


def test_options_are_converted_to_the_types_of_the_signature():
    options = parse_options("lvis-fixed-ap", ["topk=600", "cut_order=federated", "classwise=true"])
    assert options == {"topk": 600, "cut_order": "federated", "classwise": True, "partial": False}


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("coco", "limits=many", "one of coco, mmdet"),
        ("coco", "limit=coco", "no option 'limit'; it has: limits"),
        ("pope", "a=b", "it has: none"),
        ("lvis", "max_dets=ten", "must be a number"),
        ("ovdeval", "nms=maybe", "true or false"),
        ("coco", "classwise", "NAME=VALUE"),
    ],
)
def test_wrong_options_are_answered_with_the_right_ones(name, setting, message):
    with pytest.raises(ConfigError, match=message):
        parse_options(name, [setting])


def test_classes_are_named_and_those_of_one_name_numbered(tmp_path):
    classes = [(1, "cat"), (2, "bat"), (3, "bat")]
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": number, "name": name} for number, name in classes],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}]
    (tmp_path / "p.json").write_text(json.dumps(found))
    report = run_metric("coco", tmp_path / "gt.json", tmp_path / "p.json", ["classwise=true"])
    assert report.values["per_category"] == {
        "cat": pytest.approx(1),
        "bat (id 2)": -1,
        "bat (id 3)": -1,
    }


@pytest.mark.parametrize("metric", ["lvis", "lvis-fixed-ap"])
def test_plain_coco_annotations_are_sent_to_the_metric_for_them(tmp_path, metric):
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "cat"}], "annotations": []}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    with pytest.raises(DataError, match=r"no annotations of LVIS; .*use the metric coco"):
        run_metric(metric, tmp_path / "gt.json", tmp_path / "p.json")


def test_an_unknown_metric_names_its_nearest():
    with pytest.raises(ConfigError, match="did you mean 'lvis-fixed-ap'"):
        run_metric("lvis_fixed_ap", "gt", "pred")


def test_predictions_may_be_left_out_only_where_the_annotations_hold_them():
    with pytest.raises(ConfigError, match="needs --pred"):
        run_metric("coco", "gt.json", None)
    data = LOCAL / "res_seg" / "syn" / "data.json.gz"
    assert run_metric("res", data, None).values["cIoU"] > 0


def test_the_report_traces_a_number_to_model_weights_prompts_and_protocol(tmp_path):
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81}
        ],
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    header = PredictionHeader(
        "swin_t", "w", ("cat",), chunk_size=40, score_threshold=0.01, protocol={"tta": False}
    )
    with PredictionWriter(tmp_path / "p.jsonl", header) as writer:
        writer.write(prediction_row(1, np.asarray([[0, 0, 9, 9]]), [0.5], [0]))
    report = run_metric("coco", tmp_path / "gt.json", tmp_path / "p.jsonl", ["limits=mmdet"])
    report.write(tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["values"]["AP"] == pytest.approx(1)
    assert written["options"]["limits"] == "mmdet"
    kept = written["predictions"]["header"]
    assert (kept["model"], kept["weights_hash"], kept["classes"]) == ("swin_t", "w", ["cat"])
    assert (kept["chunk_size"], kept["score_threshold"]) == (40, 0.01)
    assert kept["protocol"] == {"tta": False}
    assert "concatenated, up to 40 in each prompt" in written["prompts"]
    assert len(written["ground_truth"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("chunk_size", "words"),
    [(1, "one class name or description in each"), (-1, "concatenated, as many as fit in each")],
)
def test_a_report_says_whether_descriptions_were_asked_one_by_one(tmp_path, chunk_size, words):
    folder = tmp_path / "preds"  # of a benchmark of several sets
    for name in ("a", "b"):
        header = PredictionHeader("swin_t", chunk_size=chunk_size)
        PredictionWriter(folder / f"{name}.jsonl", header).close()
    report = MetricReport("ovdeval", {}, {}, {}, describe_file(folder))
    assert words in report.prompts
    assert ";" not in report.prompts
    assert MetricReport("res", {}, {}, {}, {"path": "x"}).prompts is None


def test_gzip_is_recognised_by_content_and_coco_results_are_read(tmp_path):
    plain = gzip.decompress((LVIS / "gt.json.gz").read_bytes())
    (tmp_path / "gt.json").write_bytes(plain)
    with np.load(LVIS / "preds.npz") as archive:
        rows = {name: archive[name].astype(float) for name in archive.files}
    boxes = rows["bbox_xyxy"]
    boxes[:, 2:] -= boxes[:, :2]
    results = [
        {"image_id": int(i), "category_id": int(c), "bbox": b, "score": s}
        for i, c, b, s in zip(
            rows["image_id"],
            rows["category_id"],
            boxes.tolist(),
            rows["score"].tolist(),
            strict=True,
        )
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    shutil.copy(LVIS / "preds.npz", tmp_path)
    partial = ["partial=true"]  # some images have no boxes
    one = run_metric("lvis", tmp_path / "gt.json", tmp_path / "results.json", partial)
    two = run_metric("lvis", LVIS / "gt.json.gz", tmp_path / "preds.npz", partial)
    assert one.values == two.values


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        (b"{", "not valid JSON"),
        (b'{"a": 1}', "must be a JSON list"),
        (b"\x1f\x8bjunk", "damaged gzip"),
    ],
)
def test_unreadable_predictions_are_named(tmp_path, content, message):
    path = tmp_path / "pred.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        run_metric("lvis", LVIS / "gt.json.gz", path)
    assert "pred.json" in str(error.value)


def test_pickles_in_npz_files_are_refused(tmp_path):
    np.savez(tmp_path / "p.npz", image_id=np.asarray([{}], object))
    with pytest.raises(DataError):
        run_metric("lvis", LVIS / "gt.json.gz", tmp_path / "p.npz")


def test_an_npz_without_scores_says_what_it_has(tmp_path):
    np.savez(tmp_path / "p.npz", image_id=np.zeros(1))
    with pytest.raises(
        DataError, match="no array category_id, bbox_xyxy, score; it holds image_id"
    ):
        run_metric("lvis", LVIS / "gt.json.gz", tmp_path / "p.npz")


@pytest.mark.parametrize("limit_per", ["image", "chunk"])
def test_fixed_ap_refuses_a_file_whose_images_were_cut_and_other_metrics_do_not(
    tmp_path, limit_per
):
    partial = ["partial=true"]  # one image is enough here
    truth = json.loads(gzip.decompress(TRUTH.read_bytes()))
    names = tuple(category["name"] for category in truth["categories"])
    header = PredictionHeader("m", classes=names, limit_per=limit_per, max_per_image=1)
    with PredictionWriter(tmp_path / "p.jsonl", header) as writer:
        writer.write(prediction_row(truth["images"][0]["id"], [[0, 0, 9, 9]], [0.5], [0]))
    assert "AP" in run_metric("lvis", TRUTH, tmp_path / "p.jsonl", partial).values
    if limit_per == "image":
        with pytest.raises(DataError, match=r"p\.jsonl: 1 images have 1 boxes"):
            run_metric("lvis-fixed-ap", TRUTH, tmp_path / "p.jsonl", partial)
    else:
        values = run_metric("lvis-fixed-ap", TRUTH, tmp_path / "p.jsonl", partial).values
        assert "AP" in values


def odinw_folder(tmp_path, names):
    from llmdet.testing.benchmarks import write_miniature

    write_miniature("odinw13", tmp_path)
    (tmp_path / "preds").mkdir()
    for name in names:
        box = {"image_id": 1, "category_id": 1, "bbox": [4, 4, 16, 12], "score": 0.9}
        (tmp_path / "preds" / f"{name}.json").write_text(json.dumps([box]))
    return tmp_path / "data" / "odinw", tmp_path / "preds"


def test_odinw_averages_the_sets_that_have_predictions_if_asked(tmp_path):
    gt, pred = odinw_folder(tmp_path, ["Aquarium", "pothole"])
    values = run_metric("odinw", gt, pred, ["sets=present"]).values
    assert set(values["sets"]) == {"Aquarium", "pothole"}
    assert values["mean"] == pytest.approx(sum(values["sets"].values()) / 2)


def test_odinw_names_the_sets_without_predictions(tmp_path):
    gt, pred = odinw_folder(tmp_path, ["Aquarium"])
    with pytest.raises(DataError, match="12 of 13 sets: AerialMaritimeDrone_large"):
        run_metric("odinw", gt, pred)


def test_phrases_of_a_prediction_file_are_judged_by_the_json_of_the_data_set(tmp_path):
    from llmdet.testing.benchmarks import write_miniature

    answers = write_miniature("flickr30k", tmp_path)
    gt = tmp_path / "data" / "flickr30k_entities" / "final_flickr_separateGT_test.json"
    found = [(image, boxes) for (name, image), boxes in answers.items() if name == "test"]
    wrong = [0.0, 0.0, 1.0, 1.0]
    with PredictionWriter(tmp_path / "p.jsonl", PredictionHeader("m")) as writer:
        for image, right in found:
            boxes, labels = zip(*right, strict=True)
            row = ([*boxes, *[wrong] * len(boxes)], [0.5] * len(boxes) + [0.9] * len(boxes))
            writer.write(prediction_row(image, *row, [*labels, *labels]))
    values = run_metric("flickr30k", gt, tmp_path / "p.jsonl").values
    assert values["Recall@1_all"] == 0
    assert values["Recall@5_all"] == values["Upper_bound_all"] == 1
    entities = LOCAL / "flickr30k" / "syn_entities" / "gt_simple.jsonl.gz"
    with pytest.raises(DataError, match="final_flickr_separateGT"):
        run_metric("flickr30k", entities, tmp_path / "p.jsonl")


def test_groups_of_numbers_become_one_list():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}


def test_answers_about_regions_say_what_was_asked_of():
    header = {"protocol": {"asked_of": {"regions": "masks", "window": True}}}
    assert protocol_note({"header": header}) == "regions=masks; window=True"
    candidates = {"file": "c.jsonl", "model": "tiny", "weights_hash": "0123456789abcdef"}
    header = {"protocol": {"asked_of": {"add_truth": True}, "candidates": candidates}}
    note = "candidates of our detector tiny, weights 0123456789ab: c.jsonl; add_truth=True"
    assert protocol_note({"header": header}) == note
    header["protocol"]["candidates"] = {"file": "c.json"}
    assert protocol_note({"header": header}).startswith("candidates of a file: c.json; ")
    assert protocol_note({"path": "p.npz"}) is None
