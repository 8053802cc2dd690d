"""Where the head comes from, and what it costs in memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import nextn
import pytest
from nextn.options import DraftParams

from .conftest import complete, drafted

OPTIONS = {"n_ctx": 512, "n_threads": 1}


def n_mapped(spec_type: str, *args: str) -> int:
    """How often a server that drafts has the bundled model's file in its memory."""
    draft = DraftParams(n_max=1, adaptive=False)
    with nextn.Server(spec_type=spec_type, extra_args=args, draft=draft, **OPTIONS) as server:
        with server.client() as client:
            complete(client, "Hello", 16, ignore_eos=True)
        maps = Path(f"/proc/{server.pid}/maps").read_text().splitlines()
    return sum(line.endswith(str(nextn.bundled_model().resolve())) for line in maps)


def test_the_same_file_as_draft_model_is_not_loaded_again(tmp_path) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(nextn.bundled_model())
    assert n_mapped("nextn") == n_mapped("nextn", "-md", str(link)) == 1
    assert n_mapped("draft-mtp", "-md", str(link)) == 2  # or nothing is seen here


@pytest.mark.parametrize("part", ["head", "legacy-head"])
def test_a_file_with_the_head_alone(tiny_model, part: str) -> None:
    shape = {"tied": False, "agreement": 0.92}
    trunk, head = tiny_model(part="trunk", **shape), tiny_model(part=part, **shape)
    draft = DraftParams(n_max=2, adaptive=False)
    with nextn.Server(trunk, draft_model=head, draft=draft, **OPTIONS) as server, server.client() as client:
        assert server.spec_type == "nextn"
        prompt = [5, 9, 200, 31]
        found = complete(client, prompt, 64, ignore_eos=True)
        plain = complete(client, prompt, 64, ignore_eos=True, speculative={"type": "none"})
    assert found["tokens"] == plain["tokens"]
    assert drafted(found)[1] > 0


def test_old_names_of_the_options(tmp_path) -> None:
    args = ["--draft-max", "2", "--draft-min", "2", "--draft-p-min", "0.0", "--no-spec-draft-adaptive"]
    with nextn.Server(spec_type="nextn", extra_args=args, **OPTIONS) as server, server.client() as client:
        timings = complete(client, "Once upon a time", 40, ignore_eos=True)["timings"]
    first, second = timings["drafted_per_position"]
    assert first == second > 0


def test_a_model_without_a_head_is_served_plainly(tiny_model) -> None:
    with nextn.Server(tiny_model(part="trunk"), **OPTIONS) as server, server.client() as client:
        assert server.spec_type == "none"
        assert complete(client, [5, 9], 8, ignore_eos=True)["tokens"]


def test_the_binary_refuses_a_model_without_a_head(tiny_model, tmp_path) -> None:
    model = tmp_path / "trunk.gguf"
    shutil.copy(tiny_model(part="trunk"), model)
    server = nextn.Server(model, spec_type="none", extra_args=["--spec-type", "nextn"], **OPTIONS)
    with pytest.raises(nextn.ServerError, match="NextN"), server:
        pass


def test_limits_that_the_engine_does_not_have() -> None:
    for args in (["--draft-max", "17"], ["--spec-type", "nextn,draft-mtp"], ["--draft-p-min", "2"]):
        server = nextn.Server(spec_type="nextn", extra_args=args, **OPTIONS)
        with pytest.raises(nextn.ServerError, match="--spec-type"), server:
            pass
    with nextn.Server(spec_type="nextn", extra_args=["--draft-max", "0"], **OPTIONS) as server:
        assert server.health() == {"status": "ok"}
