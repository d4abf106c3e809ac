//! Handshakes over loopback TCP with servers in processes of their own, in interleaved rounds; and
//! the memory of idle connections. `load [ROUNDS]`.

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use benches::{
    FOREIGN_ORIGIN, ORIGIN, Result, measure,
    server::{self, IDLE, Idle, Server, peer},
    with,
};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::{Method, Request};
use http_body_util::Empty;
use hyper::{client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, time::sleep_until};

const ROUNDS: usize = 11;
const HANDSHAKES: usize = 2000;
const WARM_UP: usize = 2000;
const CLIENTS: usize = 32;
/// Handshakes a second: no server is busy.
const RATE: usize = 1000;

struct Entry {
    name: &'static str,
    command: Vec<PathBuf>,
    /// The name of the server that it is compared with.
    beside: &'static str,
}

const AXUM: &str = "axum's `ws`";
const AXUM_FROM_FN: &str = "axum's `ws`, origin in a `from_fn`";
const FASTWEBSOCKETS: &str = "hyper, fastwebsockets";
const FASTWEBSOCKETS_ORIGIN: &str = "hyper, fastwebsockets, origin compared";

/// All servers on tungstenite, axum's among them, have `read_buffer_size(4096)`, because larger buffers cost more than
/// everything else, and vary.
const ACCEPTING: &[(&str, &str, &str)] = &[
    (AXUM, "axum-4k", AXUM),
    (AXUM_FROM_FN, "axum-4k-from-fn", AXUM),
    ("axum's `ws` behind `GuardLayer`", "axum-4k-guard", AXUM),
    ("axum's `ws` behind `GuardLayer`, limit and drain", "axum-4k-limit-drain", AXUM),
    ("axum, `GuardLayer` that responds, no codec", "axum-handler", AXUM),
    (FASTWEBSOCKETS, "fastwebsockets-open", FASTWEBSOCKETS),
    (FASTWEBSOCKETS_ORIGIN, "fastwebsockets", FASTWEBSOCKETS),
    ("hyper, `GuardLayer`, fastwebsockets", "hyper-guard-fastwebsockets", FASTWEBSOCKETS),
    ("hyper, floor, written by hand, no codec", "hyper-floor", FASTWEBSOCKETS),
    ("hyper, `GuardLayer`, no codec", "hyper-guard", FASTWEBSOCKETS),
    ("hyper-tungstenite", "hyper-tungstenite", FASTWEBSOCKETS),
    ("tokio-tungstenite", "tokio-tungstenite", FASTWEBSOCKETS),
];

const REJECTING: &[(&str, &str, &str)] = &[
    (AXUM_FROM_FN, "axum-4k-from-fn", AXUM_FROM_FN),
    ("axum's `ws` behind `GuardLayer`", "axum-4k-guard", AXUM_FROM_FN),
    (FASTWEBSOCKETS_ORIGIN, "fastwebsockets", FASTWEBSOCKETS_ORIGIN),
    ("hyper, floor, written by hand", "hyper-floor", FASTWEBSOCKETS_ORIGIN),
    ("hyper, `GuardLayer`, fastwebsockets", "hyper-guard-fastwebsockets", FASTWEBSOCKETS_ORIGIN),
    ("hyper-tungstenite", "hyper-tungstenite", FASTWEBSOCKETS_ORIGIN),
    ("tokio-tungstenite", "tokio-tungstenite", FASTWEBSOCKETS_ORIGIN),
];

const HTTP2_ACCEPTING: &[(&str, &str, &str)] = &[
    (AXUM, "axum-4k", AXUM),
    (AXUM_FROM_FN, "axum-4k-from-fn", AXUM),
    ("axum's `ws` behind `GuardLayer`", "axum-4k-guard", AXUM),
    ("axum, `GuardLayer` that responds, no codec", "axum-handler", AXUM),
    ("hyper, `GuardLayer`, no codec", "hyper-guard", AXUM),
];

const HTTP2_REJECTING: &[(&str, &str, &str)] = &[
    (AXUM_FROM_FN, "axum-4k-from-fn", AXUM_FROM_FN),
    ("axum's `ws` behind `GuardLayer`", "axum-4k-guard", AXUM_FROM_FN),
    ("hyper, `GuardLayer`, no codec", "hyper-guard", AXUM_FROM_FN),
];

const IDLING: &[(&str, &str)] = &[
    ("axum's `ws`, its default buffer", "axum"),
    (AXUM, "axum-4k"),
    ("axum's `ws` behind `GuardLayer`", "axum-4k-guard"),
    ("axum's `ws` behind `GuardLayer`, limit and drain, `ended()` raced", "axum-4k-limit-drain"),
    ("axum, `GuardLayer` that responds, no codec", "axum-handler"),
    ("axum, `GuardLayer::on_upgraded`, no codec", "axum-callback"),
    ("hyper, floor, written by hand, no codec", "hyper-floor"),
    ("hyper, `GuardLayer` that responds, no codec", "hyper-guard"),
    ("hyper, `GuardLayer::on_upgraded`, no codec", "hyper-callback"),
    ("hyper, `GuardLayer`, limit and drain, `ended()` raced, no codec", "hyper-limit-drain"),
    ("hyper, `GuardLayer`, fastwebsockets", "hyper-guard-fastwebsockets"),
    (FASTWEBSOCKETS, "fastwebsockets-open"),
    ("hyper-tungstenite", "hyper-tungstenite"),
    ("tokio-tungstenite", "tokio-tungstenite"),
    ("minimal: a constant answer", "minimal"),
];

fn peers(list: &[(&'static str, &str, &'static str)], more: &[&str]) -> Result<Vec<Entry>> {
    let entry = |&(name, program, beside): &(&'static str, &str, &'static str)| {
        let more = more.iter().map(PathBuf::from);
        Ok(Entry { name, command: peer(program)?.into_iter().chain(more).collect(), beside })
    };
    list.iter().map(entry).collect()
}

/// Servers in other languages, if they are installed. All check the origin.
fn others() -> Result<Vec<(&'static str, Vec<PathBuf>)>> {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (servers, clients) = (benches.join("servers"), benches.join("../tests/clients"));
    let python = clients.join("venv/bin/python");
    let gorilla = measure::directory()?.join("gorilla");
    let build = Command::new("go")
        .args(["build", "-o"])
        .args([&gorilla, &servers.join("gorilla.go")])
        .envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode")])
        .status();
    let example = [
        "examples/server",
        "--listen",
        "127.0.0.1:0",
        "--allow-origin",
        "https://app.example.com",
        "--allow-any-host",
        "--mode",
        "guard",
    ];
    let mut example = example.map(PathBuf::from).to_vec();
    example[0] = measure::directory()?.join(&example[0]);

    let mut found = vec![("example server, `--mode guard`", example)];
    for (name, is_there, command, advice) in [
        (
            "Go, gorilla",
            build.is_ok_and(|status| status.success()),
            vec![gorilla],
            "Debian's `golang-go` and `golang-github-gorilla-websocket-dev`",
        ),
        (
            "Node `ws`",
            clients.join("node_modules/ws").exists(),
            vec!["node".into(), servers.join("ws.mjs")],
            "`tests/clients/install`",
        ),
        (
            "Python `websockets`",
            python.exists(),
            vec![python, servers.join("websockets_server.py")],
            "`tests/clients/install`",
        ),
    ] {
        match is_there {
            true => found.push((name, command)),
            false => println!("Not measured: {name}. It needs {advice}.\n"),
        }
    }
    Ok(found)
}

/// Makes handshakes, and drops the connection or the stream.
enum Client {
    Http1 {
        address: SocketAddr,
        head: String,
        status: &'static str,
    },
    /// Streams of a few connections.
    Http2 {
        connections: Vec<http2::SendRequest<Empty<Bytes>>>,
        origin: &'static str,
        status: u16,
    },
}

impl Client {
    async fn new(address: SocketAddr, over_http2: bool, accepted: bool) -> Result<Self> {
        let (origin, http1, http2) = match accepted {
            true => (ORIGIN, "HTTP/1.1 101", 200),
            false => (FOREIGN_ORIGIN, "HTTP/1.1 403", 403),
        };
        if !over_http2 {
            return Ok(Self::Http1 { address, head: with("Origin", origin), status: http1 });
        }
        let connect = (0..CLIENTS).map(|_| async move {
            let stream = TcpStream::connect(address).await?;
            // As browsers do: otherwise a handshake waits for the acknowledgement of the last reset.
            stream.set_nodelay(true)?;
            let (executor, stream) = (TokioExecutor::new(), TokioIo::new(stream));
            let (mut sender, connection) = http2::handshake(executor, stream).await?;
            tokio::spawn(connection);
            // The client may send extended CONNECTs after the settings of the server.
            let ordinary = Request::get("http://app.example.com/").body(Empty::new())?;
            sender.send_request(ordinary).await?;
            Result::Ok(sender)
        });
        let connections = try_join_all(connect).await?;
        Ok(Self::Http2 { connections, origin, status: http2 })
    }

    async fn handshake(&self, index: usize) -> std::result::Result<(), String> {
        match self {
            Self::Http1 { address, head, status } => {
                let stream = server::handshake(*address, head, status).await;
                stream.map(drop).map_err(|error| error.to_string())
            }
            Self::Http2 { connections, origin, status } => {
                let request = Request::builder()
                    .method(Method::CONNECT)
                    .uri("https://app.example.com/ws")
                    .extension(Protocol::from_static("websocket"))
                    .header("origin", *origin)
                    .header("sec-websocket-version", "13")
                    .header("user-agent", "Mozilla/5.0")
                    .header("accept-language", "en-GB,en;q=0.9")
                    .body(Empty::new())
                    .map_err(|error| error.to_string())?;
                let mut connection = connections[index % connections.len()].clone();
                let response = connection.send_request(request).await;
                let response = response.map_err(|error| error.to_string())?;
                assert_eq!(response.status(), *status);
                Ok(())
            }
        }
    }
}

/// As fast as a number of clients can.
async fn at_full_speed(client: &Arc<Client>, count: usize) -> Result<()> {
    let run = |index: usize| {
        let (client, share) = (Arc::clone(client), count.div_ceil(CLIENTS));
        tokio::spawn(async move {
            for _ in 0..share {
                client.handshake(index).await?;
            }
            Ok::<_, String>(())
        })
    };
    for task in (0..CLIENTS).map(run).collect::<Vec<_>>() {
        task.await??;
    }
    Ok(())
}

/// At a fixed rate, whether the server keeps up or not. Returns the times of all handshakes, sorted.
async fn at_fixed_rate(client: &Arc<Client>, count: usize) -> Result<Vec<Duration>> {
    let start = tokio::time::Instant::now();
    let mut tasks = Vec::with_capacity(count);
    for index in 0..count {
        sleep_until(start + Duration::from_secs(1) * index as u32 / RATE as u32).await;
        let client = Arc::clone(client);
        tasks.push(tokio::spawn(async move {
            let start = Instant::now();
            client.handshake(index).await.map(|()| start.elapsed())
        }));
    }
    let mut times = Vec::with_capacity(count);
    for task in tasks {
        times.push(task.await??);
    }
    times.sort_unstable();
    Ok(times)
}

/// Of one round.
struct Figure {
    /// Handshakes a second at full speed.
    rate: f64,
    /// Microseconds of CPU time of a handshake at full speed.
    cpu: f64,
    /// Of the CPU time of the server that it is compared with, in the same round.
    ratio: f64,
    /// Microseconds, at the fixed rate.
    median: f64,
    p99: f64,
}

async fn measure_one(entry: &Entry, over_http2: bool, accepted: bool) -> Result<Figure> {
    // A new process each time: in one process the placement of buffers stays the same.
    let server = Server::start(&entry.command)?;
    let client = Arc::new(Client::new(server.address, over_http2, accepted).await?);
    at_full_speed(&client, WARM_UP).await?;
    let (before, start) = (server.cpu()?, Instant::now());
    at_full_speed(&client, HANDSHAKES).await?;
    let rate = HANDSHAKES as f64 / start.elapsed().as_secs_f64();
    // The work after the end of the connections counts, too.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let cpu = (server.cpu()? - before).as_secs_f64() * 1e6 / HANDSHAKES as f64;
    let times = at_fixed_rate(&client, HANDSHAKES).await?;
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    Ok(Figure { rate, cpu, ratio: f64::NAN, median: at(0.5), p99: at(0.99) })
}

async fn load(servers: &[Entry], over_http2: bool, accepted: bool, rounds: usize) -> Result<()> {
    let mut figures = BTreeMap::<usize, Vec<Figure>>::new();
    for _ in 0..rounds {
        let mut round = Vec::new();
        for entry in servers {
            let figure = measure_one(entry, over_http2, accepted).await;
            round.push(figure.map_err(|error| format!("{}: {error}", entry.name))?);
        }
        for (index, entry) in servers.iter().enumerate() {
            let beside = servers.iter().position(|other| other.name == entry.beside);
            round[index].ratio = round[index].cpu / round[beside.ok_or(entry.beside)?].cpu;
        }
        for (index, figure) in round.into_iter().enumerate() {
            figures.entry(index).or_default().push(figure);
        }
    }

    println!(
        "| server | CPU µs a handshake (min-max) | of the CPU time of | ratio, same round (min-max) | handshakes/s | median µs at {RATE}/s | 99th percentile µs at {RATE}/s (min-max) |\n|---|--:|---|--:|--:|--:|--:|"
    );
    for (Entry { name, beside, .. }, figures) in servers.iter().zip(figures.into_values()) {
        let sorted = |part: fn(&Figure) -> f64| {
            let mut values = figures.iter().map(part).collect::<Vec<_>>();
            values.sort_by(f64::total_cmp);
            [0, rounds / 2, rounds - 1].map(|index| values[index])
        };
        let [low, cpu, high] = sorted(|it| it.cpu);
        let [least, ratio, most] = sorted(|it| it.ratio);
        let ([_, rate, _], [_, median, _]) = (sorted(|it| it.rate), sorted(|it| it.median));
        let [best, p99, worst] = sorted(|it| it.p99);
        println!(
            "| {name} | {cpu:.1} ({low:.1}-{high:.1}) | {beside} | {ratio:.2} ({least:.2}-{most:.2}) | {rate:.0} | {median:.0} | {p99:.0} ({best:.0}-{worst:.0}) |"
        );
    }
    Ok(())
}

async fn memory(others: &[(&'static str, Vec<PathBuf>)]) -> Result<()> {
    println!(
        "| server | RSS before, KiB | RSS with them, KiB | bytes a connection |\n|---|--:|--:|--:|"
    );
    let peers = IDLING.iter().map(|&(name, program)| Ok((name, peer(program)?)));
    let peers = peers.collect::<Result<Vec<_>>>()?;
    for (name, command) in peers.iter().chain(others) {
        let Idle { before, after, bytes } = server::idle(command).await?;
        println!("| {name} | {before} | {after} | {bytes} |");
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let rounds = env::args().nth(1).map_or(Ok(ROUNDS), |rounds| rounds.parse())?;
    server::build()?;
    measure::cargo(&["build", "--release", "--package", "tower-ws-guard", "--example", "server"])?;
    server::many_files()?;
    let others = others()?;
    let and_others = |mut servers: Vec<Entry>, beside: &'static str| {
        let others = others.iter().cloned();
        servers.extend(others.map(|(name, command)| Entry { name, command, beside }));
        servers
    };

    println!("{rounds} rounds; the load average is {}.", server::load_average()?);
    println!("\n### Handshakes over loopback TCP, accepted\n");
    load(&and_others(peers(ACCEPTING, &[])?, AXUM), false, true, rounds).await?;
    println!("\n### Handshakes over loopback TCP, rejected for their origin\n");
    load(&and_others(peers(REJECTING, &[])?, AXUM_FROM_FN), false, false, rounds).await?;
    println!(
        "\n### Handshakes over HTTP/2, accepted: {CLIENTS} connections, a stream for each handshake\n"
    );
    load(&peers(HTTP2_ACCEPTING, &["http2"])?, true, true, rounds).await?;
    println!("\n### Handshakes over HTTP/2, rejected for their origin\n");
    load(&peers(HTTP2_REJECTING, &["http2"])?, true, false, rounds).await?;
    println!("\n### Memory of {IDLE} idle connections\n");
    memory(&others).await
}
