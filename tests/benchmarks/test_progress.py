"""What is told of a measurement."""

import io

from softfeed.benchmarks.progress import Progress


def test_a_log_hears_what_is_done_now_and_then(monkeypatch):
    now = 0.0
    monkeypatch.setattr("softfeed.benchmarks.progress.time.perf_counter", lambda: now)
    stream = io.StringIO()
    progress = Progress(stream)
    progress.stage("opening")
    for now in range(1, 13):
        progress.turn(f"turn {now}")
        if now == 7:
            progress.line("repeat")
    assert stream.getvalue().splitlines() == ["opening", "turn 5", "repeat", "turn 12"]
