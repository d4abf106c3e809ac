//! Connections dropped at any point leave nothing behind.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response, request::Parts};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::{ServiceBuilder, service_fn};
use tower_ws_guard::{
    AllowOrigin, ConnectionLimit, Drain, GuardLayer, Rejection, ResponderLayer, Sessions, Token,
    TokenPolicy, Upgraded,
};

use crate::common::{self, handshake, serve};

const CONNECTIONS: u64 = 10_000;

/// The point at which a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    AtOnce,
    InTheHead,
    WhileBeingVerified,
    AfterTheResponse,
    InAFrame,
    Closing,
}

const ALL: [Leaves; 6] = [
    Leaves::AtOnce,
    Leaves::InTheHead,
    Leaves::WhileBeingVerified,
    Leaves::AfterTheResponse,
    Leaves::InAFrame,
    Leaves::Closing,
];

async fn client(address: SocketAddr, seed: u64) -> std::io::Result<Leaves> {
    let mut random = fastrand::Rng::with_seed(seed);
    let leaves = random.choice(ALL).expect("there are some");
    let request = handshake().and("Authorization", format!("Bearer {}", random.u8(..20))).bytes();
    let mut stream = TcpStream::connect(address).await?;
    let sent = match leaves {
        Leaves::AtOnce => 0,
        Leaves::InTheHead => random.usize(1..request.len()),
        _ => request.len(),
    };
    stream.write_all(&request[..sent]).await?;
    match leaves {
        Leaves::AtOnce | Leaves::InTheHead => {}
        Leaves::WhileBeingVerified => sleep(Duration::from_millis(random.u64(..10))).await,
        Leaves::AfterTheResponse | Leaves::InAFrame | Leaves::Closing => {
            let mut response = Vec::new();
            while !response.windows(4).any(|end| end == b"\r\n\r\n")
                && stream.read_buf(&mut response).await? > 0
            {}
            assert!(response.starts_with(b"HTTP/1.1 101 "), "{}", response.escape_ascii());
            match leaves {
                Leaves::InAFrame => {
                    stream.write_all(&b"\x81\x85mask12345"[..random.usize(1..11)]).await?;
                }
                Leaves::Closing => {
                    stream.shutdown().await?;
                    stream.read_to_end(&mut response).await?;
                }
                _ => {}
            }
        }
    }
    Ok(leaves)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_connections_leave_nothing_behind() {
    let verifier = async |token: Token| {
        sleep(Duration::from_millis(token.expose().parse().unwrap())).await;
        Ok::<_, Rejection>(().into())
    };
    let limit = ConnectionLimit::total(usize::MAX).unwrap();
    let version = |request: &Parts| Some(format!("{:?}", request.version));
    let sessions = Sessions::per_key(usize::MAX, version).unwrap();
    let drain = Drain::new();
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .token(TokenPolicy::bearer(verifier))
        .unwrap()
        .limit(limit.clone())
        .sessions(&sessions)
        .drain(&drain);
    let responder = ResponderLayer::on_upgraded(
        async |mut socket: Upgraded| while socket.read_u8().await.is_ok() {},
    );
    let inner = service_fn(async |_: Request<Incoming>| {
        Ok::<_, Infallible>(Response::new(common::Body::default()))
    });
    let address = serve(ServiceBuilder::new().layer(guard).layer(responder).service(inner)).await;

    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let at_once = Arc::new(Semaphore::new(100));
    let mut clients = JoinSet::new();
    for seed in 0..CONNECTIONS {
        let slot = Arc::clone(&at_once).acquire_owned().await.unwrap();
        clients.spawn(async move {
            let left = client(address, seed).await;
            drop(slot);
            left
        });
    }
    let mut counts = [0; ALL.len()];
    let mut failed = 0;
    while let Some(left) = clients.join_next().await {
        match left.unwrap() {
            Ok(leaves) => counts[leaves as usize] += 1,
            Err(_) => failed += 1,
        }
    }
    // Each point was tried often, and hardly any client failed.
    assert!(counts.iter().all(|&count| count > CONNECTIONS / 10), "{counts:?}");
    assert!(failed < CONNECTIONS / 100, "{failed}");

    let gone = async {
        while (limit.connections(), sessions.keys(), drain.connections(), tasks())
            != (0, 0, 0, before)
        {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), gone).await.unwrap_or_else(|_| {
        panic!(
            "left: {} permits, {} keys, {} in the drain, {} tasks",
            limit.connections(),
            sessions.keys(),
            drain.connections(),
            tasks() - before
        )
    });
}
