"""Fork, exit and signals: errors instead of hangs, and a clean end with objects alive."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

SETUP = """
    model = nextn.Model(DEMO)
    context = nextn.Context(model, n_ctx=4096, n_batch=4096, n_ubatch=16, n_threads=2)
    context.decode([1, 2, 3])
"""


class TestFork:
    def test_use_in_the_child_is_an_error(self, run_python):
        run_python(
            SETUP
            + """
    view = context.logits_view()
    pid = os.fork()
    if pid == 0:
        uses = [lambda: context.decode([1]), context.logits, lambda: model.tokenize("x"), lambda: model.n_embd,
                lambda: context.n_ctx, context.abort, context.seq_pos_max]
        for use in uses:
            try:
                use()
            except nextn.NextnError as e:
                assert "before the process forked" in str(e) and "spawn" in str(e), e
            else:
                os._exit(1)
        try:
            nextn.Context(nextn.Model(DEMO), n_ctx=256)
        except nextn.NextnError as e:
            assert "forked from one that had used nextn" in str(e), e
        else:
            os._exit(2)
        view[0, 0]
        context.close(); model.close()
        del context, model, view
        sys.exit(0)  # the whole way out
    assert os.waitpid(pid, 0)[1] == 0
    del view
    assert context.decode([1]) == 1  # the parent goes on
"""
        )

    def test_objects_left_to_the_child(self, run_python):
        """Ending the child frees nothing that is the parent's, and does not hang."""
        run_python(
            SETUP
            + """
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert context.decode([1]) == 1
"""
        )

    def test_fork_before_use(self, run_python):
        """A parent that only imported nextn gives children that can compute."""
        run_python("""
            pids = []
            for _ in range(2):
                pid = os.fork()
                if pid == 0:
                    context = nextn.Context(nextn.Model(DEMO), n_ctx=256)
                    sys.exit(0 if context.decode([1, 2]) == 2 else 1)
                pids.append(pid)
            assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
            nextn.Context(nextn.Model(DEMO), n_ctx=256).decode([1])
        """)

    def test_spawn(self, run_python, tmp_path):
        script = tmp_path / "spawn.py"
        script.write_text(
            "import multiprocessing, sys, nextn\n"
            "def work(path):\n"
            "    with nextn.Model(path) as m, nextn.Context(m, n_ctx=256) as c:\n"
            "        return c.decode([1, 2, 3])\n"
            "if __name__ == '__main__':\n"
            "    path = sys.argv[1]\n"
            "    work(path)\n"
            "    with multiprocessing.get_context('spawn').Pool(2) as pool:\n"
            "        assert pool.map(work, [path] * 4) == [3] * 4\n"
        )
        run_python(f"import subprocess\nsubprocess.run([sys.executable, {str(script)!r}, DEMO], check=True)")


class TestExit:
    @pytest.mark.parametrize("alive", ["context", "view", "pair", "module attribute", "cycle"])
    def test_with_live_objects(self, run_python, alive):
        run_python(
            SETUP
            + {
                "context": "",
                "view": "    view = context.logits_view()\n",
                "pair": "    d = nextn.Context(model, n_ctx=256, nextn_draft=True)\n    context.pair(d)\n",
                "module attribute": "    os.kept = (context, context.logits_view(), model)\n",
                "cycle": "    class A: pass\n    a = A(); a.a = a; a.c = context; a.v = context.hidden_view()\n",
            }[alive]
        )

    def test_with_a_daemon_thread_that_decodes(self, run_python):
        """Its decode is cancelled, it is not torn out of the engine."""
        start = time.monotonic()
        run_python(
            SETUP
            + """
    def work():
        while True:
            try:
                context.decode([5] * 4000, outputs="none")
            except nextn.NextnError:
                pass
    threading.Thread(target=work, daemon=True).start()
    time.sleep(0.1)
"""
        )
        assert time.monotonic() - start < 60

    def test_with_daemon_threads_in_short_calls(self, run_python):
        run_python(
            SETUP
            + """
    def work():
        while True:
            try:
                context.seq_pos_max(); model.tokenize("some text"); context.logits()
            except nextn.NextnError:
                pass
    for _ in range(4):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(0.1)
"""
        )

    def test_with_a_daemon_thread_that_loads(self, run_python):
        run_python("""
            def work():
                while True:
                    nextn.Model(DEMO, progress=lambda share: time.sleep(0.01))
            threading.excepthook = lambda args: None
            threading.Thread(target=work, daemon=True).start()
            time.sleep(0.1)
        """)

    def test_handlers_that_run_late_may_use_it(self, demo_path, tmp_path):
        """Registered before nextn was imported, so called after nextn's own."""
        script = tmp_path / "late.py"
        script.write_text(
            "import atexit, os, sys\n"
            "atexit.register(lambda: print(os.context.decode([1])))\n"
            "import nextn\n"
            "os.context = nextn.Context(nextn.Model(sys.argv[1]), n_ctx=256)\n"
        )
        done = subprocess.run([sys.executable, script, demo_path], capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("1\n", "")


class TestSignals:
    @pytest.mark.parametrize("what", ["decode", "load"])
    def test_control_c(self, demo_path, what):
        """Ctrl-C ends a long call at once, as KeyboardInterrupt."""
        work = {
            "decode": "context.decode([5] * 16000, outputs='none')",
            "load": "nextn.Model(DEMO, progress=lambda share: time.sleep(0.2))",
        }[what]
        code = (
            f"import sys, time, nextn\nDEMO = {str(demo_path)!r}\nmodel = nextn.Model(DEMO)\n"
            "context = nextn.Context(model, n_ctx=16384, n_batch=16384, n_ubatch=8, n_threads=1)\n"
            "context.decode([1])\nprint('ready', flush=True)\n"
            f"try:\n    {work}\nexcept KeyboardInterrupt:\n"
            "    print('interrupted', context.seq_pos_max(), flush=True)\n    context.decode([1])\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        wanted = {"decode": "interrupted -1\n", "load": "interrupted 0\n"}[what]
        assert process.stdout.readline() == wanted
        assert process.wait(30) == 0
        process.stdout.close()
