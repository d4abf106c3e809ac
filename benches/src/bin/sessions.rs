//! The longest call with a million sessions in memory and, with the feature `redis`, the time of a handshake
//! with sessions on a Redis of this machine. Prints the tables of BENCHMARKS.md.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode, request::Parts};
use nix::time::{ClockId, clock_gettime};
use tower::{Layer, Service};
use tower_ws_guard::{AllowOrigin, ConfigError, Ended, GuardLayer, Permit, Sessions};

const KEYS: u64 = 1_000_000;
const RUNS: usize = 5;

/// Gives the permit to the caller.
#[derive(Clone, Copy)]
struct Claim;

impl Service<Request<()>> for Claim {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<()>) -> Self::Future {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        if let Some(permit) = Permit::claim(request.extensions_mut()) {
            response.extensions_mut().insert(permit);
        }
        ready(Ok(response))
    }
}

fn guard() -> GuardLayer {
    GuardLayer::new(AllowOrigin::same_origin())
}

fn sessions() -> Result<Sessions<u64>, ConfigError> {
    Sessions::per_key(5, |request: &Parts| request.extensions.get::<u64>().copied())
}

fn handshake(key: u64) -> Request<()> {
    Request::get("/ws")
        .header("Host", "app.example.com")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Origin", "https://app.example.com")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .extension(key)
        .body(())
        .expect("a valid request")
}

/// Of this thread, which other programs do not disturb.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the clock of this thread").into()
}

/// The times of many calls.
struct Times(Vec<Duration>);

impl Times {
    fn new() -> Self {
        Self(Vec::with_capacity(KEYS as usize))
    }

    fn measure<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = cpu_time();
        let output = call();
        self.0.push(cpu_time() - start);
        output
    }

    fn row(mut self, name: &str) {
        self.0.sort_unstable();
        let at =
            |part: f64| self.0[((self.0.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
        println!("| {name} | {:.1} | {:.1} | {:.0} |", at(0.5), at(0.999), at(1.0));
    }
}

async fn in_memory() -> Result<(), ConfigError> {
    println!("\n### A million keys in memory: CPU time of a call, {RUNS} runs\n");
    println!("| call | median, µs | 99.9 %, µs | longest, µs |\n|---|--:|--:|--:|");
    for _ in 0..RUNS {
        let mut nothing = Times::new();
        (0..KEYS).for_each(|_| nothing.measure(|| ()));
        nothing.row("nothing");

        let sessions = sessions()?;
        let mut service = guard().sessions(&sessions).layer(Claim);
        let mut permits = Vec::with_capacity(KEYS as usize);
        let mut times = Times::new();
        for key in 0..KEYS {
            let request = handshake(key);
            let start = cpu_time();
            let Ok(response) = service.call(request).await;
            times.0.push(cpu_time() - start);
            permits.push(response);
        }
        assert_eq!((sessions.connections(), sessions.keys()), (KEYS as usize, KEYS as usize));
        times.row("handshake");

        let mut times = Times::new();
        for key in 0..1000 {
            times.measure(|| sessions.list(&key)).await.ok();
            times.measure(|| sessions.keys());
        }
        times.row("`list` and `keys`");

        let mut times = Times::new();
        for key in 0..KEYS / 2 {
            let start = cpu_time();
            let ended = sessions.end(&key, Ended::Revoked).await;
            times.0.push(cpu_time() - start);
            assert_eq!(ended.ok(), Some(1));
        }
        times.row("`end`, of half of them");

        let mut times = Times::new();
        permits.into_iter().for_each(|permit| times.measure(|| drop(permit)));
        times.row("drop of a permit");
        assert_eq!(sessions.keys(), 0);
    }
    Ok(())
}

#[cfg(feature = "redis")]
async fn on_redis() -> Result<(), Box<dyn std::error::Error>> {
    use std::{net::TcpListener, process::Command, time::Instant};

    use tower_ws_guard::Redis;

    const HANDSHAKES: u64 = 20_000;

    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let mut server = Command::new("redis-server")
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"])
        .spawn()?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let redis = Redis::new(&format!("redis://127.0.0.1:{port}"))?;

    println!("\n### Time of a handshake as a service call, one after the other\n");
    println!("| sessions | median, µs | 99.9 %, µs | longest, µs |\n|---|--:|--:|--:|");
    let [memory, shared] = [sessions()?, sessions()?.on_redis(&redis, "bench")?];
    for (name, guard) in [
        ("none", guard()),
        ("in memory", guard().sessions(&memory)),
        ("on a Redis of this machine", guard().sessions(&shared)),
    ] {
        let mut service = guard.layer(Claim);
        let mut times = Times::new();
        for key in 0..HANDSHAKES {
            let request = handshake(key);
            let start = Instant::now();
            let Ok(response) = service.call(request).await;
            times.0.push(start.elapsed());
            assert_eq!(response.status(), 101);
            drop(response);
        }
        times.row(name);
    }
    drop(shared);
    server.kill()?;
    server.wait()?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    in_memory().await?;
    #[cfg(feature = "redis")]
    on_redis().await?;
    Ok(())
}
