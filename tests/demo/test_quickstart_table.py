"""The closing table of the quickstart."""

import json

from llmdet.testing.programs import load_program


def test_the_table_shows_percentages_and_what_was_said_about_the_pictures(root, tmp_path, capsys):
    table = load_program(root / "demo" / "quickstart_table.py")
    coco = {"AP50": 0.95, "AP": 0.8, "novel_ap50": 0.876, "novel_ap": 0.654}
    for split in ("val_seen", "val_unseen"):
        (tmp_path / f"{split}_coco.json").write_text(json.dumps({"values": coco}))
        fixed = {"values": {"AP": 0.71, "APr": 0.5}}
        (tmp_path / f"{split}_lvis-fixed-ap.json").write_text(json.dumps(fixed))
    for folder in ("vis", "preds"):
        (tmp_path / "pictures" / folder).mkdir(parents=True)
    (tmp_path / "pictures" / "vis" / "a.jpg").touch()
    (tmp_path / "pictures" / "preds" / "a.json").write_text('{"description": "A red ring."}')
    table.main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["seen", "in", "training", "95.0", "80.0", "71.0"]
    assert lines[2].split() == ["never", "seen", "87.6", "65.4", "50.0"]
    assert lines[-2] == f"picture:    {tmp_path}/pictures/vis/a.jpg"
    assert lines[-1].strip() == "A red ring."
