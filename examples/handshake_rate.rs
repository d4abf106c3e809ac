//! A limit on the rate of handshakes per client, with governor. The response above it is 429 with
//! `Retry-After`.
//!
//! `cargo run --example handshake_rate`, then six times
//! `websocat --origin http://127.0.0.1:3000 ws://127.0.0.1:3000/ws`.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, ws::Message},
    response::Response,
    routing::any,
};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use http::StatusCode;
use tower_ws_guard::{
    AllowHost, AllowOrigin, Check, GuardLayer, Handshake, ProblemJson, Rejection,
    axum::GuardedUpgrade,
};

pub(crate) struct HandshakeRate(DefaultKeyedRateLimiter<IpAddr>);

impl HandshakeRate {
    pub(crate) fn per_minute(handshakes: NonZeroU32) -> Arc<Self> {
        Arc::new(Self(RateLimiter::keyed(Quota::per_minute(handshakes))))
    }

    /// Forgets the clients that have their whole quota again, and returns the number of the others.
    /// Call it regularly: it bounds the memory by the number of recent clients.
    pub(crate) fn forget_idle_clients(&self) -> usize {
        self.0.retain_recent();
        self.0.shrink_to_fit();
        self.0.len()
    }
}

/// Runs after the checks of Host and Origin and before the token check, so it also limits guesses
/// of tokens. Behind a proxy, take the address from the header that the proxy sets.
impl Check for HandshakeRate {
    fn check(&self, handshake: &mut Handshake<'_>) -> Result<(), Rejection> {
        let Some(ConnectInfo(address)) = handshake.extensions().get::<ConnectInfo<SocketAddr>>()
        else {
            return Err(Rejection::custom("address-unknown", StatusCode::INTERNAL_SERVER_ERROR)
                .with_fix("serve `app.into_make_service_with_connect_info::<SocketAddr>()`"));
        };
        let client = client(address.ip());
        self.0.check_key(&client).map_err(|later| {
            Rejection::custom("too-many-handshakes", StatusCode::TOO_MANY_REQUESTS)
                .with_title("there are too many attempts to connect")
                .with_value(client.to_string())
                .with_fix("raise the quota, or tell the client to back off")
                .with_retry_after(later.wait_time_from(DefaultClock::default().now()))
        })
    }
}

/// A client with IPv6 has a whole /64 network to itself.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

pub(crate) fn app(rate: Arc<HandshakeRate>) -> Router {
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(AllowHost::loopback())
        .check(rate)
        .reject_with(ProblemJson::new());
    Router::new().route("/ws", any(handler).layer(guard))
}

async fn handler(upgrade: GuardedUpgrade) -> Response {
    upgrade.on_upgrade(async |mut socket, ()| {
        let _ = socket.send(Message::text("hello")).await;
    })
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let rate = HandshakeRate::per_minute(const { NonZeroU32::new(5).unwrap() });
    let app = app(Arc::clone(&rate)).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            rate.forget_idle_clients();
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await
}
