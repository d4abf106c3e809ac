//! Starts servers and proxies on free ports.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, KeyPair};

use crate::common::Directory;

/// Node's bundlers take some seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends with the test.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Some leave a process of their own behind when they are killed.
        let group = self.0.id();
        let signal = |name| {
            let mut kill = Command::new("kill");
            kill.args([name, "--", &format!("-{group}")]).stderr(Stdio::null()).status().ok();
        };
        signal("-TERM");
        let start = Instant::now();
        while self.0.try_wait().is_ok_and(|status| status.is_none())
            && start.elapsed() < Duration::from_secs(2)
        {
            thread::sleep(Duration::from_millis(10));
        }
        signal("-KILL");
        self.0.wait().ok();
    }
}

/// A program that listens on a port.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) port: u16,
    _process: Process,
    directory: Directory,
}

impl Running {
    /// Starts the program until it listens: another process may take the port in between.
    fn start(name: &str, command: impl Fn(u16, &Directory) -> Command) -> Self {
        for _ in 0..5 {
            let port =
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let directory = Directory::new(&format!("{name}-{port}"));
            let mut command = command(port, &directory);
            // A group of its own, so that its children end with it.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = command
                .spawn()
                .unwrap_or_else(|error| panic!("`tests/install` was run: {name}: {error}"));
            let mut process = Process(child);
            let start = Instant::now();
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                assert!(start.elapsed() < PATIENCE, "{name} does not listen");
                if process.0.try_wait().unwrap().is_some() {
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
            if process.0.try_wait().unwrap().is_none() {
                return Self { port, _process: process, directory };
            }
        }
        panic!("{name} does not start: run `tests/install`");
    }

    /// The certificate of a proxy behind TLS.
    pub(crate) fn certificate(&self) -> String {
        self.directory.0.join("cert.pem").into_os_string().into_string().unwrap()
    }
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real").join(path)
}

/// A script of `servers`: an echo at `/ws` if it does not say otherwise.
pub(crate) fn server(script: &str) -> Running {
    let interpreter = match script.rsplit_once('.').unwrap().1 {
        "py" => here("venv/bin/python"),
        _ => "node".into(),
    };
    server_by(&interpreter, script)
}

/// `server`, without a WebSocket library for uvicorn.
pub(crate) fn bare_server(script: &str) -> Running {
    server_by(&here("bare/bin/python"), script)
}

fn server_by(interpreter: &Path, script: &str) -> Running {
    Running::start(script, |port, directory| {
        let mut command = Command::new(interpreter);
        command.arg(here("servers").join(script)).arg(port.to_string()).arg(&directory.0);
        command
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Proxy {
    Nginx,
    Apache,
    Haproxy,
    Caddy,
}

impl Proxy {
    /// Starts it with these lines in its configuration, in front of the port. With `tls` it has a certificate for `localhost`.
    pub(crate) fn start(self, upstream: u16, tls: bool, lines: &str) -> Running {
        Running::start(&format!("{self:?}"), |port, directory| {
            let path = directory.0.to_str().unwrap();
            if tls {
                directory.write("cert.pem", identity());
            }
            let fill = |template: &str, listen: &str| {
                let config = template
                    .replace("{LINES}", lines)
                    .replace("{LISTEN}", listen)
                    .replace("{UPSTREAM}", &format!("127.0.0.1:{upstream}"))
                    .replace("{DIR}", path);
                directory.write("config", config)
            };
            let certificate = format!("{path}/cert.pem");
            let (program, arguments, config) = match self {
                Self::Nginx => {
                    let listen = if tls {
                        format!(
                            "listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {certificate};"
                        )
                    } else {
                        format!("listen 127.0.0.1:{port};")
                    };
                    let config = fill(include_str!("proxies/nginx.conf"), &listen);
                    ("nginx", &["-e", "stderr", "-c"][..], config)
                }
                Self::Apache => {
                    let secure = format!("\nSSLEngine On\nSSLCertificateFile {certificate}");
                    let listen = format!("127.0.0.1:{port}{}", if tls { &secure } else { "" });
                    let config = fill(include_str!("proxies/httpd.conf"), &listen);
                    ("apache2", &["-DFOREGROUND", "-f"][..], config)
                }
                Self::Haproxy => {
                    let secure = format!(" ssl crt {certificate} alpn h2,http/1.1");
                    let listen = format!("127.0.0.1:{port}{}", if tls { &secure } else { "" });
                    let config = fill(include_str!("proxies/haproxy.cfg"), &listen);
                    ("haproxy", &["-db", "-q", "-f"][..], config)
                }
                Self::Caddy => {
                    let secure =
                        format!("https://localhost:{port} {{\ntls {certificate} {certificate}\n");
                    let plain = format!("http://:{port} {{\n");
                    let config =
                        fill(include_str!("proxies/Caddyfile"), if tls { &secure } else { &plain });
                    ("caddy", &["run", "--adapter", "caddyfile", "--config"][..], config)
                }
            };
            let mut command = Command::new(program);
            command.args(arguments).arg(config).env("HOME", path);
            command
        })
    }
}

fn identity() -> String {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    certificate.pem() + &key.serialize_pem()
}
