//! The examples as programs, above all the server.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

/// The command of an example.
pub(crate) fn example(name: &str) -> Command {
    // Cargo builds the examples next to the tests: target/debug/examples and target/debug/deps.
    let tests = std::env::current_exe().unwrap();
    let examples = tests.parent().unwrap().parent().unwrap().join("examples");
    Command::new(examples.join(name))
}

/// Ends with the test.
pub(crate) struct Server {
    process: Child,
    pub(crate) scheme: String,
    pub(crate) address: SocketAddr,
    rejections: Receiver<String>,
    /// All other log lines.
    log: Receiver<String>,
}

impl Server {
    pub(crate) fn command(flags: &[&str]) -> Command {
        Self::command_on("127.0.0.1:0", flags)
    }

    fn command_on(listen: &str, flags: &[&str]) -> Command {
        let mut command = example("server");
        command.args(["--listen", listen]).args(flags);
        command
    }

    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_on("127.0.0.1:0", flags)
    }

    pub(crate) fn start_on(listen: &str, flags: &[&str]) -> Self {
        let mut command = Self::command_on(listen, flags);
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`cargo build --example server` was run");

        let (rejected, rejections) = mpsc::channel();
        let (said, log) = mpsc::channel();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The receiver may be gone.
                match line.split_once("tower_ws_guard: rejected: ") {
                    Some((_, rejection)) => drop(rejected.send(rejection.to_owned())),
                    None => {
                        eprintln!("{line}");
                        drop(said.send(line));
                    }
                }
            }
        });

        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim_end().strip_prefix("listening on ").expect("its address");
        let (scheme, address) = url.split_once("://").unwrap();
        Self {
            process,
            scheme: scheme.to_owned(),
            address: address.parse().unwrap(),
            rejections,
            log,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Waits for the exit.
    pub(crate) fn wait(&mut self, longest: Duration) -> ExitStatus {
        let start = Instant::now();
        while self.is_running() && start.elapsed() < longest {
            thread::sleep(Duration::from_millis(5));
        }
        self.process.try_wait().unwrap().expect("it has ended")
    }

    /// Returns the rest of the first log line with this beginning, without `; `.
    pub(crate) fn line(&self, beginning: &str) -> String {
        loop {
            let line =
                self.log.recv_timeout(Duration::from_secs(10)).expect("such a line in the log");
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.trim_start_matches("; ").to_owned();
            }
        }
    }

    /// Returns the log of the next rejected handshake.
    pub(crate) fn rejection(&self) -> String {
        self.rejections.recv_timeout(Duration::from_secs(10)).expect("a rejection in the log")
    }

    /// Returns whether all rejections were taken.
    pub(crate) fn has_no_more_rejections(&self) -> bool {
        self.rejections.try_recv().is_err()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
