"""Settings that a metric does not have are refused with what to do instead."""

import pytest

from llmdet.errors import ConfigError
from llmdet.registry import METRICS

BOXES = ["CocoMetric", "LVISMetric", "LVISFixedAPMetric"]
WITHOUT_FILES = ["RefExpMetric", "GRefCOCOMetric", "OmniLabelMetric"]
ALL = [*BOXES, *WITHOUT_FILES, "D3Metric", "OVDEvalMetric"]


@pytest.fixture
def build(tmp_path):
    path = tmp_path / "gt.json"
    path.write_text("{}")
    return lambda name, **settings: METRICS.build({"type": name, "ann_file": str(path), **settings})


@pytest.mark.parametrize("name", ALL)
def test_an_unknown_setting_is_refused_with_the_nearest(build, name):
    with pytest.raises(ConfigError, match=f"{name} has no setting 'prefx'; did you mean 'prefix'"):
        build(name, prefx="a")


@pytest.mark.parametrize("name", WITHOUT_FILES)
@pytest.mark.parametrize("setting", ["format_only", "outfile_prefix"])
def test_metrics_that_write_no_results_say_who_does(build, name, setting):
    with pytest.raises(ConfigError, match=f"{setting} is not supported; tools/test.py --out"):
        build(name, **{setting: "x"})


@pytest.mark.parametrize("name", BOXES)
def test_settings_of_mmdet_are_refused_with_the_reason(build, name):
    with pytest.raises(ConfigError, match="use_mp_eval is not supported; evaluation is one"):
        build(name, use_mp_eval=True)


@pytest.mark.parametrize("name", [*BOXES, "D3Metric", "OVDEvalMetric"])
def test_results_need_a_place(build, name, tmp_path):
    build(name, format_only=True, outfile_prefix=str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="outfile_prefix, which is not set"):
        build(name, format_only=True)


@pytest.mark.parametrize("setting", [{"ann_file": "x.json"}, {"backend_args": {}}])
def test_truth_that_comes_with_samples_has_no_file(setting):
    with pytest.raises(ConfigError, match="ground truth comes with the samples"):
        METRICS.build({"type": "Flickr30kMetric", **setting})
