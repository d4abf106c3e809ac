//! A Redis server as a separate process.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio, id},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// Stores nothing on disk, and ends with the test.
pub(crate) struct RedisServer {
    process: Child,
    port: u16,
    directory: PathBuf,
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let port = free_port();
        let directory =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("redis-{}-{port}", id()));
        fs::create_dir_all(&directory).unwrap();
        let mut redis = Self { process: spawn(port, &directory, options), port, directory };
        redis.wait_until_ready().await;
        redis
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it, like a crash.
    pub(crate) fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Restarts on the same port, and empty.
    pub(crate) async fn start_again(&mut self) {
        self.start_again_with(&[]).await;
    }

    pub(crate) async fn start_again_with(&mut self, options: &[&str]) {
        self.process = spawn(self.port, &self.directory, options);
        self.wait_until_ready().await;
    }

    /// Stops responding, but still accepts connections.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let command = format!("kill -{signal} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    /// Returns the raw response to a command.
    pub(crate) async fn ask(&self, command: &str) -> Vec<u8> {
        self.try_ask(command).await.expect("Redis responds")
    }

    async fn try_ask(&self, command: &str) -> Option<Vec<u8>> {
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            // `QUIT` makes Redis close the connection after the response.
            stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await?;
            let mut response = Vec::new();
            stream.read_to_end(&mut response).await?;
            Ok::<_, std::io::Error>(response)
        };
        let mut response = timeout(Duration::from_secs(10), exchange).await.ok()?.ok()?;
        response.ends_with(b"+OK\r\n").then(|| response.drain(..response.len() - 5).collect())
    }

    async fn wait_until_ready(&mut self) {
        let ready = async {
            while self.try_ask("PING").await.as_deref() != Some(b"+PONG\r\n") {
                assert!(self.process.try_wait().unwrap().is_none(), "redis-server ended at once");
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), ready).await.expect("redis-server starts in time");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        fs::remove_dir_all(&self.directory).ok();
    }
}

fn spawn(port: u16, directory: &Path, options: &[&str]) -> Child {
    Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
        ])
        .arg(directory)
        .args(options)
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("this test needs redis-server (`apt-get install redis-server`): {error}")
        })
}

/// A port below the ephemeral range: no other connection takes it while Redis is stopped.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(id() % 10_000).unwrap();
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
