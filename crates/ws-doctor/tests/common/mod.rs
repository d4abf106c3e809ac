//! The program, and what it reports.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

/// No run takes longer: the default of `--max-time` is 15 s.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ws-doctor"));
    for name in [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
        "NO_PROXY",
        "no_proxy",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs the program until it exits.
pub(crate) fn run(mut command: Command) -> Output {
    let (sender, output) = mpsc::channel();
    thread::spawn(move || sender.send(command.output()));
    output.recv_timeout(PATIENCE).expect("it ends").unwrap()
}

/// Codes of errors that only say what came, and blame nothing: they may stand behind any other.
const PLAIN: &[&str] =
    &["closed-at-once", "connection-reset", "forbidden", "not-found", "rejected", "unauthorized"];

/// What a report must have: exit code, codes, and words of the first finding's explanation or fix, in any case.
///
/// The first code is that of the first finding. No other error that blames something may be in the report; remarks may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) exit: i32,
    pub(crate) codes: &'a [&'a str],
    pub(crate) words: &'a [&'a str],
}

/// The output of `--json`.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) json: Value,
    exit: Option<i32>,
}

impl Report {
    pub(crate) fn of<S: AsRef<str>>(arguments: &[S]) -> Self {
        let mut command = program();
        command.args(arguments.iter().map(AsRef::as_ref)).arg("--json");
        let output = run(command);
        let json = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self { json, exit: output.status.code() }
    }

    fn findings(&self) -> &[Value] {
        self.json["findings"].as_array().unwrap()
    }

    fn text(&self, finding: usize) -> String {
        let finding = &self.findings()[finding];
        ["explanation", "fix"].map(|name| finding[name].as_str().unwrap()).join("; ")
    }

    /// Returns what is not as expected.
    pub(crate) fn differences(&self, expected: Expected<'_>) -> Vec<String> {
        let Expected { exit, codes, words } = expected;
        let seen: Vec<_> =
            self.findings().iter().map(|finding| finding["code"].as_str().unwrap()).collect();
        let mut differences = Vec::new();
        if self.exit != Some(exit) {
            differences.push(format!("exit {:?}, not {exit}", self.exit));
        }
        let mut blamed = self
            .findings()
            .iter()
            .zip(&seen)
            .filter(|(finding, code)| finding["level"] == "error" && !PLAIN.contains(code));
        let unexpected = blamed.any(|(_, code)| !codes.contains(code));
        let missing = codes.iter().any(|code| !seen.contains(code));
        // A remark is not the first if there are others.
        let first = exit != 0 && codes.first().is_some_and(|code| seen.first() != Some(code));
        if unexpected || missing || first {
            differences.push(format!("codes {seen:?}, not {codes:?}"));
        }
        // The words are those of the finding that was looked for.
        if let Some(place) =
            codes.first().and_then(|code| seen.iter().position(|seen| seen == code))
        {
            let text = self.text(place);
            let lower = text.to_lowercase();
            for word in words.iter().filter(|word| !lower.contains(&word.to_lowercase())) {
                differences.push(format!("no {word:?} in {text:?}"));
            }
        }
        differences
    }
}

/// Fails with all that is not as expected.
pub(crate) fn assert_none(failed: &[String]) {
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// Ends with the test.
#[derive(Debug)]
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path.into_os_string().into_string().unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
