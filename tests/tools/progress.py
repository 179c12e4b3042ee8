"""A line every 25 seconds that says how far the tests are, since one of them may take longer than a row of dots."""

import threading
import time

SECONDS = 25


class Progress:
    """A plugin of the process that prints; with xdist its workers only run."""

    def __init__(self, config, seconds=SECONDS):
        self._config, self._seconds = config, seconds
        self._done, self._over, self._since = 0, threading.Event(), time.monotonic()

    def pytest_sessionstart(self):
        threading.Thread(target=self._tell, daemon=True).start()

    def pytest_runtest_logreport(self, report):
        self._done += report.when == "teardown"

    def pytest_sessionfinish(self):
        self._over.set()

    def _tell(self):
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        while not self._over.wait(self._seconds):
            terminal.write_line(f"\n{self._done} tests done after {time.monotonic() - self._since:.0f} s", flush=True)


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config))
