"""Files of a part are held to what its release keeps of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from validation.file_digests import digests_of
from validation.manifest import Part
from validation.part_files import mend_for, unlike_released


@pytest.mark.parametrize(("kept", "said"), [(True, ["weights.bin is another file"]), (False, [])])
def test_a_part_without_digests_is_taken_on_trust(tmp_path: Path, kept: bool, said: list[str]) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_text("learned")
    part = Part(model="pixie", version=2, files=digests_of(tmp_path) if kept else None)
    assert unlike_released(part, tmp_path) == []
    weights.write_text("others")
    assert unlike_released(part, tmp_path) == said


@pytest.mark.parametrize(
    ("model", "anew"),
    [
        ("pixie", "`corkboard train --model pixie --force` and `corkboard release`"),
        ("homefeed", "`corkboard release`"),
    ],
)
def test_the_mend_names_the_folder_and_the_commands(tmp_path: Path, model: str, anew: str) -> None:
    said = mend_for(model, tmp_path)
    assert f"put back the files in {tmp_path}" in said and said.endswith(f"or run {anew}")
    assert "if the home was moved" not in said
    assert "run `corkboard status` if the home was moved, " in mend_for(model, tmp_path / "gone")
