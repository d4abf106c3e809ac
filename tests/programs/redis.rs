//! Servers that share a Redis, and outages of Redis.

mod connection;
mod handshake_rate;
mod proxy;
mod revocations;
mod sessions;
mod tickets;

use std::{convert::Infallible, error::Error, fmt::Write as _, net::SocketAddr, time::Duration};

use http::{Request, Response};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tower::{ServiceBuilder, service_fn};
use tower_ws_guard::{
    AllowOrigin, GuardLayer, ProblemJson, Redis, ResponderLayer, StaticTokens, TokenPolicy,
    TokenSource,
    token::ticket::{RedisTicketStore, Ticket, TicketIssuer, TicketVerifier},
};

use crate::{
    common::{Body, Raw, handshake, send, serve},
    redis_server::RedisServer,
};

const REDEEMED: &str = "101";
const REJECTED: &str = "401 token-invalid";
const FAILED: &str = "503 verifier-failed";

/// For tests that do not wait for it: a busy machine may need more than a second.
const PATIENT: Duration = Duration::from_secs(5);

/// Longer than any expected wait.
async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(30), future).await.expect("it happens in time")
}

fn client(redis: &RedisServer) -> Redis {
    Redis::new(&redis.url()).unwrap()
}

fn patient_client(redis: &RedisServer) -> Redis {
    client(redis).timeout(PATIENT).unwrap()
}

fn store(redis: &RedisServer) -> RedisTicketStore {
    RedisTicketStore::new(&client(redis))
}

fn patient_store(redis: &RedisServer) -> RedisTicketStore {
    RedisTicketStore::new(&patient_client(redis))
}

/// A server with tickets in the query, and a static token in `Authorization`.
async fn start(store: &RedisTicketStore) -> SocketAddr {
    let inner = service_fn(async |_: Request<hyper::body::Incoming>| {
        Ok::<_, Infallible>(Response::new(Body::default()))
    });
    let query = || TokenSource::query("ticket").unwrap();
    let operators =
        TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "operator".to_owned())]).unwrap());
    let tickets = TokenPolicy::from_sources([query()], TicketVerifier::new(store.clone())).unwrap();
    let policy = operators.or(tickets).unwrap();
    let stack = ServiceBuilder::new()
        .layer(
            GuardLayer::new(AllowOrigin::same_origin())
                .token(policy)
                .unwrap()
                .reject_with(ProblemJson::new()),
        )
        .layer(ResponderLayer::on_upgraded(async |socket| drop(socket)));
    serve(stack.service(inner)).await
}

fn with(ticket: &str) -> Raw {
    handshake().target(&format!("/ws?ticket={ticket}"))
}

fn with_static_token() -> Raw {
    handshake().and("Authorization", "Bearer s3cr3t")
}

/// Returns the status, and the code of a rejection.
async fn knock(address: SocketAddr, raw: &Raw) -> String {
    let mut response = soon(send(address, &raw.bytes())).await;
    if response.status == 101 {
        return REDEEMED.to_owned();
    }
    let problem: Value = serde_json::from_str(&response.read_rest().await).unwrap();
    format!("{} {}", response.status, problem["code"].as_str().unwrap())
}

async fn assert_knock(address: SocketAddr, raw: &Raw, expected: &str) {
    assert_eq!(knock(address, raw).await, expected, "{raw:?}");
}

/// Retries until the store is back.
async fn issue_eventually(issuer: &TicketIssuer<RedisTicketStore>) -> Ticket {
    soon(async {
        loop {
            match issuer.issue(&"alice").await {
                Ok(ticket) => return ticket,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await
}

/// Retries with new tickets until one is redeemed.
async fn redeem_eventually(address: SocketAddr, issuer: &TicketIssuer<RedisTicketStore>) -> Ticket {
    soon(async {
        loop {
            let ticket = issue_eventually(issuer).await;
            match &*knock(address, &with(ticket.expose())).await {
                REDEEMED => return ticket,
                rejection => assert_eq!(rejection, FAILED),
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

fn with_sources(error: &dyn Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        write!(text, " {error} {error:?}").unwrap();
        source = error.source();
    }
    text
}

fn contains(bytes: &[u8], part: impl AsRef<[u8]>) -> bool {
    let part = part.as_ref();
    bytes.windows(part.len()).any(|window| window == part)
}
