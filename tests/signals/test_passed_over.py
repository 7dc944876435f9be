"""What is not read is told by its endings."""

from wsrl.signals.passed_over import LINKED, describe_passed_over, ending


def test_endings_as_they_are_spelled():
    names = ["a.PT", "b/c.ckpt", "x.tar.gz", "README", "d.e\udcff"]
    assert list(map(ending, names)) == [".PT", ".ckpt", ".tar.gz", "no ending", ".e\\udcff"]


def test_told_in_one_line():
    """As asked for in openvinotoolkit/anomalib#3058 and GaParmar/clean-fid#37, where files were left out in silence."""
    assert describe_passed_over({".PT": 1, ".ckpt": 1}) == "2 other files were passed over: .PT, .ckpt"
    assert describe_passed_over({".txt": 1}) == "1 other file was passed over: .txt"
    assert describe_passed_over({LINKED: 1}) == "1 folder that is a link was not entered"
    assert describe_passed_over({}) == ""
    many = describe_passed_over({f".{i:02d}": 1 for i in range(20)})
    assert many.startswith("20 other files") and many.endswith("and 12 other endings")
