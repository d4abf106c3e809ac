//! A flood of handshakes: slow verifiers, slow clients and rejected ones, with ordinary requests beside them.
//!
//! The server is a separate process, so that its memory can be measured. The default flood is small; this runs ten
//! thousand handshakes in flight for five minutes:
//! `FLOOD_HANDSHAKES=10000 FLOOD_SECONDS=300 cargo test --release --all-features --test stress -- flood:: --nocapture`
//! It needs 12,000 open files for each process (`ulimit -n`), and prints its measurements. Latency is not asserted.

use std::{
    convert::Infallible,
    env, fs,
    io::{self, BufRead, BufReader, ErrorKind},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    runtime::Handle,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{ServiceBuilder, service_fn};
use tower_ws_guard::{
    AllowOrigin, ConnectionLimit, Drain, GuardLayer, Rejection, RejectionKind, ResponderLayer,
    Token, TokenPolicy, Upgraded, Verified,
};

use crate::common::{Body, Raw, handshake, plain, send};

/// Turns this test into the server of another one.
const SERVE: &str = "FLOOD_SERVE";
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

static IN_VERIFICATION: AtomicU64 = AtomicU64::new(0);

/// Verifies slowly.
async fn verify(token: Token) -> Result<Verified<()>, Rejection> {
    let milliseconds = token.expose().trim_start_matches("bad-").parse().unwrap();
    IN_VERIFICATION.fetch_add(1, Ordering::Relaxed);
    sleep(Duration::from_millis(milliseconds)).await;
    IN_VERIFICATION.fetch_sub(1, Ordering::Relaxed);
    match token.expose().starts_with("bad-") {
        true => Err(RejectionKind::TokenInvalid.into()),
        false => Ok(().into()),
    }
}

/// Serves until its standard input closes. The response to an ordinary request tells what is alive.
async fn serve() -> Infallible {
    let limit = ConnectionLimit::total(100_000).unwrap();
    let drain = Drain::new();
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .token(TokenPolicy::bearer(verify))
        .unwrap()
        .limit(limit.clone())
        .drain(&drain);
    let responder = ResponderLayer::on_upgraded(async |mut socket: Upgraded| {
        let mut byte = [0];
        while let Ok(1) = socket.read(&mut byte).await {
            if socket.write_all(&byte).await.is_err() {
                break;
            }
        }
    });
    let ordinary = service_fn(move |_: Request<Incoming>| {
        let alive = format!(
            "{} in verification, {} tasks, {} of the limit, {} of the drain.",
            IN_VERIFICATION.load(Ordering::Relaxed),
            Handle::current().metrics().num_alive_tasks(),
            limit.connections(),
            drain.connections(),
        );
        async { Ok::<_, Infallible>(Response::new(Body::from(alive))) }
    });
    let service = ServiceBuilder::new().layer(guard).layer(responder).service(ordinary);

    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(4096).unwrap();
    println!("\nlistening on {}", listener.local_addr().unwrap());
    thread::spawn(|| {
        io::copy(&mut io::stdin(), &mut io::sink()).ok();
        std::process::exit(0);
    });
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            server.serve_connection_with_upgrades(TokioIo::new(stream), service).await.ok();
        });
    }
}

fn start() -> (Child, SocketAddr) {
    let mut server = Command::new(env::current_exe().unwrap())
        .args(["--exact", "flood::flood_of_handshakes_is_survived", "--nocapture"])
        .env(SERVE, "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(server.stdout.as_mut().unwrap()).lines();
    let address = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("listening on ")?.parse().ok());
    (server, address.expect("the server's address"))
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    unauthorized: AtomicU64,
    forbidden: AtomicU64,
    cut_off: AtomicU64,
    ordinary: AtomicU64,
}

/// Connects from one of many addresses, because each has only so many ports.
async fn connect(address: SocketAddr, random: &mut fastrand::Rng) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 1, random.u8(1..250)), 0).into())?;
    socket.connect(address).await
}

async fn status(stream: &mut TcpStream, request: &Raw) -> io::Result<u16> {
    stream.write_all(&request.bytes()).await?;
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(std::str::from_utf8(&head[9..12]).unwrap().parse().unwrap())
}

/// A handshake that takes one to three times the pace, in milliseconds; if it is accepted, one byte is echoed.
async fn verified(
    address: SocketAddr,
    pace: u32,
    random: &mut fastrand::Rng,
    counts: &Counts,
) -> io::Result<()> {
    let bad = if random.u8(..4) == 0 { "bad-" } else { "" };
    let request =
        handshake().and("Authorization", format!("Bearer {bad}{}", random.u32(pace..3 * pace)));
    let mut stream = connect(address, random).await?;
    match status(&mut stream, &request).await? {
        101 if bad.is_empty() => {
            stream.write_all(b"x").await?;
            assert_eq!(stream.read_u8().await?, b'x');
            counts.accepted.fetch_add(1, Ordering::Relaxed);
        }
        401 if !bad.is_empty() => _ = counts.unauthorized.fetch_add(1, Ordering::Relaxed),
        status => panic!("{status} for `{bad}`"),
    }
    Ok(())
}

async fn rejected(
    address: SocketAddr,
    random: &mut fastrand::Rng,
    counts: &Counts,
) -> io::Result<()> {
    let mut stream = connect(address, random).await?;
    let foreign = handshake().with("Origin", "https://evil.example");
    assert_eq!(status(&mut stream, &foreign).await?, 403);
    counts.forbidden.fetch_add(1, Ordering::Relaxed);
    sleep(Duration::from_millis(random.u64(100..500))).await;
    Ok(())
}

/// Sends one byte per second, until the server closes.
async fn slow(address: SocketAddr, random: &mut fastrand::Rng, counts: &Counts) -> io::Result<()> {
    let mut stream = connect(address, random).await?;
    for byte in handshake().bytes() {
        let mut response = Vec::new();
        let written = stream.write_all(&[byte]).await;
        let read = timeout(Duration::from_secs(1), stream.read_to_end(&mut response)).await;
        // The connection was closed or reset.
        if written.is_err() || read.is_ok() {
            counts.cut_off.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
    }
    panic!("a whole head at a byte a second");
}

/// Measures ordinary requests over one connection.
async fn probe(address: SocketAddr, latencies: Arc<Mutex<Vec<Duration>>>, counts: Arc<Counts>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut response = Vec::new();
    loop {
        sleep(Duration::from_millis(10)).await;
        let start = Instant::now();
        stream.write_all(&plain().bytes()).await.unwrap();
        response.clear();
        while !response.ends_with(b"drain.") {
            assert!(
                stream.read_buf(&mut response).await.unwrap() > 0,
                "an ordinary connection was closed"
            );
        }
        latencies.lock().unwrap().push(start.elapsed());
        counts.ordinary.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns what the server reports as alive.
async fn alive(address: SocketAddr) -> String {
    send(address, &plain().and("Connection", "close").bytes()).await.read_rest().await
}

fn resident_kilobytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn quantiles(latencies: &Mutex<Vec<Duration>>) -> String {
    let mut latencies = std::mem::take(&mut *latencies.lock().unwrap());
    latencies.sort_unstable();
    let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize];
    format!("median {:?}, 99 % {:?}, of {}", at(0.5), at(0.99), latencies.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_of_handshakes_is_survived() {
    if env::var_os(SERVE).is_some() {
        match serve().await {}
    }
    let number =
        |name, otherwise| env::var(name).map_or(otherwise, |number| number.parse::<u64>().unwrap());
    let (in_flight, seconds) = (number("FLOOD_HANDSHAKES", 300), number("FLOOD_SECONDS", 5).max(5));
    let pace = if seconds < 12 { 500 } else { 2000 };
    let (foreign, hesitant) = (in_flight / 50, in_flight / 20);
    let (mut server, address) = start();

    let before = alive(address).await;
    let counts = Arc::new(Counts::default());
    let latencies = Arc::default();
    let probe = tokio::spawn(probe(address, Arc::clone(&latencies), Arc::clone(&counts)));
    sleep(Duration::from_secs(1)).await;
    println!("ordinary requests alone: {}", quantiles(&latencies));

    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for seed in 0..in_flight + foreign + hesitant {
        let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
        clients.spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            sleep(Duration::from_millis(random.u64(..u64::from(pace) * 5 / 2))).await;
            while !stop.load(Ordering::Relaxed) {
                match seed {
                    seed if seed < in_flight => verified(address, pace, &mut random, &counts).await,
                    seed if seed < in_flight + foreign => {
                        rejected(address, &mut random, &counts).await
                    }
                    _ => slow(address, &mut random, &counts).await,
                }
                .unwrap_or_else(|error| panic!("client {seed}: {error}"));
            }
        });
    }
    let (mut resident, mut in_verification) = (Vec::new(), 0);
    for second in 1..=seconds {
        sleep(Duration::from_secs(1)).await;
        let alive = alive(address).await;
        resident.push(resident_kilobytes(server.id()));
        in_verification = in_verification.max(alive.split(' ').next().unwrap().parse().unwrap());
        if second % 10 == 0 {
            println!("{second} s: {} kB resident, {alive}", resident[resident.len() - 1]);
        }
    }
    println!("ordinary requests beside: {}", quantiles(&latencies));
    stop.store(true, Ordering::Relaxed);
    while let Some(client) =
        timeout(LONG, clients.join_next()).await.expect("the clients come to an end")
    {
        client.unwrap();
    }
    let all = [
        &counts.accepted,
        &counts.unauthorized,
        &counts.forbidden,
        &counts.cut_off,
        &counts.ordinary,
    ];
    let all = all.map(|count| count.load(Ordering::Relaxed));
    println!(
        "accepted {}, 401 {}, 403 {}, slow and cut off {}, ordinary {}",
        all[0], all[1], all[2], all[3], all[4]
    );
    assert!(all.iter().all(|&count| count > 0));

    assert!(in_verification > in_flight / 2, "{in_verification} at once");
    // Memory does not grow after all clients are connected.
    let [early, late] = [resident[resident.len() / 2], resident[resident.len() - 1]];
    assert!(late < early + early / 4, "{resident:?}");
    probe.abort();
    let gone = async {
        while alive(address).await != before {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, gone).await.expect("nothing is left");
    println!("afterwards: {} kB resident, {before}", resident_kilobytes(server.id()));
    drop(server.stdin.take());
    assert!(server.wait().unwrap().success());
}
