"""The engine's log lines: silent by default, whole lines with levels when an application asks."""

from __future__ import annotations

import logging

import nextn
import pytest


def test_quiet_by_default(run_python):
    """Nothing on stderr (run_python checks that) nor on stdout, warnings and errors included."""
    out = run_python("""
        model = nextn.Model(DEMO)
        nextn.Context(model, n_ctx=4096).decode([1, 2])  # longer than trained: the engine warns
        try:
            nextn.Model(__file__ if "__file__" in globals() else "/proc/self/status")
        except nextn.ModelFileError:
            pass
    """)
    assert out == ""


def test_generation_is_quiet(run_python):
    """Drafting, chatting, cancelling, a full context: whatever the fork has to say goes to logging alone."""
    out = run_python("""
        with nextn.Speculator(DEMO, n_ctx=64) as speculator:
            speculator.generate("def f(x):", max_tokens=40, temperature=0.8, seed=1)
            for chunk in speculator.stream_chat([{"role": "user", "content": "Hi"}], grammar='root ::= "a" | "b"'):
                pass
            next(speculator.stream("def f(x):")).text
            try:
                speculator.generate("word " * 100)
            except nextn.ContextOverflowError:
                pass
            speculator.generate("def")
        with nextn.Speculator(DEMO, draft=None, n_ctx=64) as plain:
            plain.generate("def f(x):", max_tokens=20)
    """)
    assert out == ""


def test_quiet_when_an_application_logs_its_own(run_python):
    out = run_python("""
        import logging
        logging.basicConfig(level=logging.INFO, stream=sys.stdout)
        nextn.Context(nextn.Model(DEMO), n_ctx=512).decode([1, 2])
    """)
    assert out == ""


def test_lines_reach_logging(demo_path, caplog):
    with caplog.at_level(logging.DEBUG, "nextn"), nextn.Model(demo_path) as model:
        nextn.Context(model, n_ctx=4096).close()
    lines = [(record.name, record.levelno, record.getMessage()) for record in caplog.records]
    assert len(lines) > 50
    assert {name for name, _, _ in lines} == {"nextn"}
    assert all(text.strip() and "\n" not in text for _, _, text in lines)
    assert any("general.architecture" in text for _, _, text in lines)
    warnings = [text for _, level, text in lines if level == logging.WARNING]
    assert any("n_ctx_seq (4096) > n_ctx_train (2048)" in text for text in warnings)


def test_a_percent_sign_is_no_format(demo_path, tmp_path, caplog):
    path = tmp_path / "100%s %d.gguf"
    path.symlink_to(demo_path)
    with caplog.at_level(logging.DEBUG, "nextn"):
        nextn.Model(path).close()
    assert any("100%s %d.gguf" in record.getMessage() for record in caplog.records)


def test_errors_of_a_failed_load(tmp_path, demo_path, caplog):
    path = tmp_path / "cut.gguf"
    path.write_bytes(demo_path.read_bytes().replace(b"blk.0.ssm_a", b"blk.0.ssm_x"))  # the engine misses it
    with pytest.raises(nextn.ModelFileError):
        nextn.Model(path)
    assert any(record.levelno == logging.ERROR for record in caplog.records)


def test_lines_of_other_threads(demo, tokens, caplog):
    import threading

    with caplog.at_level(logging.DEBUG, "nextn"):
        threads = [threading.Thread(target=lambda: nextn.Context(demo, n_ctx=512).close()) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert sum("n_seq_max" in record.getMessage() for record in caplog.records) >= 4


def test_a_handler_that_raises(demo, run_python):
    """It is reported as unraisable; the call is not disturbed."""
    run_python("""
        import logging
        seen = []
        sys.unraisablehook = seen.append
        class Bad(logging.Handler):
            def emit(self, record):
                raise RuntimeError("bad handler")
        logging.getLogger("nextn").addHandler(Bad())
        logging.getLogger("nextn").setLevel(logging.DEBUG)
        context = nextn.Context(nextn.Model(DEMO), n_ctx=512)
        assert context.decode([1, 2]) == 2
        assert seen and isinstance(seen[0].exc_value, RuntimeError)
    """)
