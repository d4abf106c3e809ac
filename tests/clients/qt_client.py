"""A script in a page of Qt WebEngine: of a server, or of the application itself by a scheme of its own."""

import json
import os
import sys
from pathlib import Path

os.environ |= {
    "QT_QPA_PLATFORM": "offscreen",
    "QTWEBENGINE_DISABLE_SANDBOX": "1",
    "QTWEBENGINE_CHROMIUM_FLAGS": "--disable-gpu --no-proxy-server",
}

from PyQt6.QtCore import QTimer, QUrl
from PyQt6.QtWebEngineCore import QWebEnginePage, QWebEngineUrlScheme
from PyQt6.QtWidgets import QApplication

TIMEOUT_MS = 20_000
SCRIPT = Path("script.mjs").read_text().replace("export ", "")


def register_scheme(name):
    """As applications register the scheme of their own pages."""
    scheme = QWebEngineUrlScheme(name.encode())
    scheme.setSyntax(QWebEngineUrlScheme.Syntax.Host)
    scheme.setFlags(QWebEngineUrlScheme.Flag.SecureScheme | QWebEngineUrlScheme.Flag.CorsEnabled)
    QWebEngineUrlScheme.registerScheme(scheme)


class Page(QWebEnginePage):
    """Loads the page of a case, connects from it, and calls back with what the script has seen."""

    def __init__(self, case, done):
        super().__init__()
        self.case = case
        self.done = done
        self.loadFinished.connect(self.loaded)
        self.timer = QTimer(self, singleShot=True, interval=TIMEOUT_MS)
        self.timer.timeout.connect(lambda: self.done({"error": f"nothing happened: {case}"}))

    def open(self):
        self.timer.start()
        url = QUrl(self.case["page"])
        if url.scheme() == "http":
            self.load(url)
        else:
            self.setHtml("<title>of the application</title>", url)

    def loaded(self, ok):
        report = "(seen) => console.log(JSON.stringify(seen))"
        self.runJavaScript(f"{SCRIPT}; connect({json.dumps(self.case)}).then({report})")

    def javaScriptConsoleMessage(self, level, message, line, source):
        # Chromium complains of a rejection here, too.
        if message.startswith("{"):
            self.timer.stop()
            self.done(json.loads(message))


register_scheme("vscode-webview")
application = QApplication(sys.argv)
cases = json.load(sys.stdin)
results = []


def done(result):
    results.append(result)
    QTimer.singleShot(0, following)


def following():
    if len(results) == len(cases):
        return application.quit()
    pages[len(results)].open()


pages = [Page(case, done) for case in cases]
following()
application.exec()
print(json.dumps(results))
