//! Handshakes over loopback TCP with servers in separate processes, in interleaved rounds; and the
//! memory of idle connections.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use benches::{
    FOREIGN_ORIGIN, HANDSHAKE, Result, measure,
    server::{self, IDLE, Idle, Server, handshake},
    with,
};

const ROUNDS: usize = 11;
const HANDSHAKES: usize = 2000;
const WARM_UP: usize = 2000;
const CLIENTS: usize = 32;

/// The name, the command, and whether the server checks the origin.
type Entry = (&'static str, Vec<PathBuf>, bool);

fn servers() -> Result<Vec<Entry>> {
    let here = measure::directory()?;
    let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
    let clients = benches.join("../tests/clients");
    let example = |mode: &str| {
        let flags = [
            "--listen",
            "127.0.0.1:0",
            "--allow-origin",
            "https://app.example.com",
            "--mode",
            mode,
        ];
        [here.join("examples/server")].into_iter().chain(flags.map(PathBuf::from)).collect()
    };
    let peer = |name: &str| vec![here.join("peer"), name.into()];
    let mut servers: Vec<Entry> = vec![
        ("axum's `ws`", peer("axum"), false),
        ("axum's `ws`, `read_buffer_size(4096)`", peer("axum-4k"), false),
        ("axum's `ws`, origin in `from_fn`", peer("axum-from-fn"), true),
        ("axum's `ws`, `read_buffer_size(4096)`, behind `GuardLayer`", peer("axum-4k-guard"), true),
        ("axum's `ws` behind `GuardLayer`", peer("axum-guard"), true),
        ("example server, `--mode guard`", example("guard"), true),
        ("example server, `--mode responder`", example("responder"), true),
        ("hyper, guard and responder, no codec", peer("hyper-responder"), true),
        (
            "hyper, guard and responder, fastwebsockets",
            peer("hyper-responder-fastwebsockets"),
            true,
        ),
        ("hyper, fastwebsockets", peer("fastwebsockets"), true),
        ("hyper, hyper-tungstenite", peer("hyper-tungstenite"), true),
        ("tokio-tungstenite", peer("tokio-tungstenite"), true),
        ("minimal: a constant answer", peer("minimal"), false),
    ];
    let node = (["node".into(), benches.join("servers/ws.mjs")], clients.join("node_modules/ws"));
    let python = clients.join("venv/bin/python");
    let python = ([python.clone(), benches.join("servers/websockets_server.py")], python);
    for (name, (command, needed)) in [("Node `ws`", node), ("Python `websockets`", python)] {
        match needed.exists() {
            true => servers.push((name, command.into(), true)),
            false => println!("Not measured: {name}. `tests/clients/install` installs it.\n"),
        }
    }
    Ok(servers)
}

async fn handshakes(
    address: SocketAddr,
    head: &'static str,
    status: &'static str,
    count: usize,
) -> Result<()> {
    let clients = (0..CLIENTS).map(|client| {
        let share = count / CLIENTS + usize::from(client < count % CLIENTS);
        tokio::spawn(async move {
            for _ in 0..share {
                handshake(address, head, status).await?;
            }
            std::io::Result::Ok(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    Ok(())
}

/// Of one round.
struct Figure {
    rate: f64,
    cpu: f64,
    ratio: f64,
}

async fn load(servers: &[&Entry], head: &'static str, status: &'static str) -> Result<()> {
    let mut figures = BTreeMap::<usize, Vec<Figure>>::new();
    for _ in 0..ROUNDS {
        let mut reference = f64::NAN;
        for (index, (_, command, _)) in servers.iter().enumerate() {
            // A new process each time: in one process the placement of large buffers stays the
            // same.
            let server = Server::start(command)?;
            handshakes(server.address, head, status, WARM_UP).await?;
            let (before, start) = (server.cpu()?, Instant::now());
            handshakes(server.address, head, status, HANDSHAKES).await?;
            let rate = HANDSHAKES as f64 / start.elapsed().as_secs_f64();
            // The work after the end of the connections counts, too.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let cpu = (server.cpu()? - before).as_secs_f64() * 1e6 / HANDSHAKES as f64;
            // All servers are compared with the first one.
            if index == 0 {
                reference = cpu;
            }
            figures.entry(index).or_default().push(Figure { rate, cpu, ratio: cpu / reference });
        }
    }

    println!(
        "| server | handshakes/s | CPU µs a handshake (min-max) | of the first row's, same round (min-max) |\n|---|--:|--:|--:|"
    );
    for ((name, ..), figures) in servers.iter().zip(figures.into_values()) {
        let sorted = |part: fn(&Figure) -> f64| {
            let mut values = figures.iter().map(part).collect::<Vec<_>>();
            values.sort_by(f64::total_cmp);
            values
        };
        let (rate, cpu, ratio) = (sorted(|it| it.rate), sorted(|it| it.cpu), sorted(|it| it.ratio));
        let [low, middle, high] = [0, ROUNDS / 2, ROUNDS - 1];
        println!(
            "| {name} | {:.0} | {:.1} ({:.1}-{:.1}) | {:.2} ({:.2}-{:.2}) |",
            rate[middle], cpu[middle], cpu[low], cpu[high], ratio[middle], ratio[low], ratio[high],
        );
    }
    Ok(())
}

async fn memory(servers: &[Entry]) -> Result<()> {
    println!(
        "| server | RSS before, KiB | RSS with them, KiB | bytes a connection |\n|---|--:|--:|--:|"
    );
    for (name, command, _) in servers {
        let Idle { before, after, bytes } = server::idle(command).await?;
        println!("| {name} | {before} | {after} | {bytes} |");
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    server::build()?;
    measure::cargo(&["build", "--release", "--package", "tower-ws-guard", "--example", "server"])?;
    server::many_files()?;

    let servers = servers()?;
    println!("### Handshakes over loopback TCP, accepted\n");
    load(&servers.iter().collect::<Vec<_>>(), HANDSHAKE, "HTTP/1.1 101").await?;
    println!("\n### Handshakes over loopback TCP, rejected for their origin\n");
    let rejecting =
        servers.iter().filter(|(_, _, checks_origin)| *checks_origin).collect::<Vec<_>>();
    let foreign = with("Origin", FOREIGN_ORIGIN).leak();
    load(&rejecting, foreign, "HTTP/1.1 403").await?;
    println!("\n### Memory of {IDLE} idle connections\n");
    memory(&servers).await
}
