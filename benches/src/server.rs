//! Servers in processes of their own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{HANDSHAKE, Result, measure};

pub const IDLE: usize = 10_000;

/// It ends with this.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    pub fn start(command: &[PathBuf]) -> Result<Self> {
        let (program, arguments) = command.split_first().ok_or("no command")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().ok_or("no output")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on http://").map(str::parse);
        let mut server = Self { child, address: ([127, 0, 0, 1], 0).into() };
        server.address =
            address.ok_or_else(|| format!("{} does not listen", program.display()))??;
        Ok(server)
    }

    /// The CPU time of all threads, including the kernel.
    pub fn cpu(&self) -> Result<Duration> {
        let mut time = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let schedule = fs::read_to_string(thread?.path().join("schedstat"))?;
            time += schedule.split(' ').next().ok_or("no time")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(time))
    }

    /// Resident, in KiB.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no memory")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

/// The command of a server in `src/bin/peer.rs`.
pub fn peer(name: &str) -> Result<Vec<PathBuf>> {
    Ok(vec![measure::directory()?.join("peer"), name.into()])
}

pub fn build() -> Result<()> {
    measure::cargo(&["build", "--release", "--package", "benches", "--bin", "peer"])?;
    Ok(())
}

/// Servers inherit it.
pub fn many_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

pub async fn handshake(
    address: SocketAddr,
    head: &str,
    status: &str,
) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(head.as_bytes()).await?;
    let (mut answer, mut length) = ([0; 4096], 0);
    while !answer[..length].windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut answer[length..]).await? {
            0 => break,
            read => length += read,
        }
    }
    assert!(answer.starts_with(status.as_bytes()), "{}", answer[..length].escape_ascii());
    Ok(stream)
}

/// Of the last 1, 5 and 15 minutes: other work disturbs.
pub fn load_average() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(", "))
}

/// The resident memory of [`IDLE`] connections.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// In KiB.
    pub before: u64,
    /// In KiB.
    pub after: u64,
    /// Of one connection.
    pub bytes: u64,
}

pub async fn idle(command: &[PathBuf]) -> Result<Idle> {
    let server = Server::start(command)?;
    drop(handshake(server.address, HANDSHAKE, "HTTP/1.1 101").await?);
    let before = server.memory()?;
    let mut connections = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        connections.push(handshake(server.address, HANDSHAKE, "HTTP/1.1 101").await?);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = server.memory()?;
    Ok(Idle { before, after, bytes: after.saturating_sub(before) * 1024 / IDLE as u64 })
}
