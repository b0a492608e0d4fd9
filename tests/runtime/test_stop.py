"""Stop requests: real signals to this process, and the clock."""

import os
import signal

import pytest

from sslctl.errors import Exit
from sslctl.runtime.stop import StopRequest


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, Exit.STOPPED), (signal.SIGUSR1, Exit.STOPPED), (signal.SIGINT, Exit.INTERRUPTED)],
)
def test_a_signal_sets_the_exit_code_and_says_so(number, code):
    said: list[str] = []
    before = signal.getsignal(number)
    with StopRequest(announce=said.append) as stop:
        assert stop.requested is None
        os.kill(os.getpid(), number)
        assert stop.requested is code
    assert signal.getsignal(number) is before
    assert signal.Signals(number).name in said[0]


def test_a_second_ctrl_c_leaves_at_once():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested is Exit.INTERRUPTED
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_clock_stops_too():
    with StopRequest(max_minutes=0.0) as stop:
        assert stop.requested is Exit.STOPPED
    with StopRequest(max_minutes=60.0) as stop:
        assert stop.requested is None
