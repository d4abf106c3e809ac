//! The examples as programs of their own, above all the server.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

/// An example as a program.
pub fn example(name: &str) -> Command {
    // Cargo builds the examples beside the tests: target/debug/examples and target/debug/deps.
    let tests = std::env::current_exe().unwrap();
    let examples = tests.parent().unwrap().parent().unwrap().join("examples");
    Command::new(examples.join(name))
}

/// It ends with the test.
pub struct Server {
    process: Child,
    pub scheme: String,
    pub address: SocketAddr,
    refusals: Receiver<String>,
}

impl Server {
    pub fn command(flags: &[&str]) -> Command {
        let mut command = example("server");
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        command
    }

    pub fn start(flags: &[&str]) -> Self {
        let mut command = Self::command(flags);
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`cargo build --example server` was run");

        let (sender, refusals) = mpsc::channel();
        let log = BufReader::new(process.stderr.take().unwrap());
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                match line.split_once("tower_ws_guard: refused: ") {
                    // Nobody may be interested.
                    Some((_, refusal)) => drop(sender.send(refusal.to_owned())),
                    None => eprintln!("{line}"),
                }
            }
        });

        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim_end().strip_prefix("listening on ").expect("its address");
        let (scheme, address) = url.split_once("://").unwrap();
        Self { process, scheme: scheme.to_owned(), address: address.parse().unwrap(), refusals }
    }

    /// What the server logged about the next handshake that it refused.
    pub fn refusal(&self) -> String {
        self.refusals.recv_timeout(Duration::from_secs(10)).expect("a refusal in the log")
    }

    /// Whether all refusals were asked for.
    pub fn refused_no_more(&self) -> bool {
        self.refusals.try_recv().is_err()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
