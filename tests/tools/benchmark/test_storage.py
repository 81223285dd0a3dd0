"""The benchmark of pictures."""

from llmdet.testing.programs import load_program


def test_pictures_are_timed_in_this_process_and_in_workers(root, photos, capsys):
    tool = load_program(root / "tools/benchmark/storage.py")
    paths = [str(path) for path in photos.iterdir()]
    for workers in (0, 1):
        tool.decode_all(paths, None, workers, "files")
    for line in capsys.readouterr().out.splitlines():
        assert float(line.split()[-2]) > 0
