//! A limit on the rate of handshakes per user, which several servers share, in Redis. The response
//! above it is 429 with `Retry-After`.
//!
//! `cargo run --example handshake_rate_redis -- redis://127.0.0.1:6379`, then six times, at either
//! port:
//! `websocat --origin http://127.0.0.1:3000 -H 'Authorization: Bearer s3cr3t' ws://127.0.0.1:3000/ws`.

use std::{num::NonZeroU32, sync::LazyLock, time::Duration};

use axum::{Router, extract::ws::Message, response::Response, routing::any};
use http::{StatusCode, request::Parts};
use redis::{
    Client, RedisResult, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::timeout;
use tower_ws_guard::{
    AllowHost, AllowOrigin, Authorize, Claims, ConfigError, GuardLayer, ProblemJson, Rejection,
    StaticTokens, TokenPolicy, axum::GuardedUpgrade,
};

const TIMEOUT: Duration = Duration::from_millis(200);

/// The generic cell rate algorithm: a key has the time at which its user has the whole quota again.
/// Returns the milliseconds to wait. The clock is that of Redis.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        local whole = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0)) + interval
        if whole - now > interval * burst then return whole - now - interval * burst end
        redis.call('SET', KEYS[1], whole, 'PX', whole - now)
        return 0",
    )
});

pub(crate) struct HandshakeRate {
    redis: ConnectionManager,
    per_minute: NonZeroU32,
}

impl HandshakeRate {
    /// Connects at the first handshake.
    pub(crate) fn per_minute(client: &Client, handshakes: NonZeroU32) -> RedisResult<Self> {
        let redis = client.get_connection_manager_lazy(ConnectionManagerConfig::new())?;
        Ok(Self { redis, per_minute: handshakes })
    }

    async fn take(&self, user: &str) -> RedisResult<Duration> {
        let mut script = TAKE.key(format!("handshake-rate:{user}"));
        script.arg(60_000 / self.per_minute).arg(self.per_minute.get());
        script.invoke_async(&mut self.redis.clone()).await.map(Duration::from_millis)
    }
}

/// Runs after the token check, so it counts users. The example `handshake_rate` limits addresses,
/// before the token check: have both.
impl<'a> Authorize<'a> for HandshakeRate {
    async fn authorize(&'a self, head: &'a Parts) -> Result<(), Rejection> {
        let user = head.extensions.get::<Claims<&str>>().map_or("", |Claims(user)| user);
        match timeout(TIMEOUT, self.take(user)).await {
            Ok(Ok(Duration::ZERO)) => Ok(()),
            Ok(Ok(delay)) => {
                Err(Rejection::custom("too-many-handshakes", StatusCode::TOO_MANY_REQUESTS)
                    .with_title("there are too many attempts to connect")
                    .with_value(user)
                    .with_fix("raise the quota, or tell the client to back off")
                    .with_retry_after(delay))
            }
            // The user is authenticated, and users must be able to connect while Redis is away. To
            // reject them instead, return `Rejection::verifier_failed`.
            Ok(Err(error)) => {
                eprintln!("the rate of handshakes is not limited: {error}");
                Ok(())
            }
            Err(_) => {
                eprintln!("the rate of handshakes is not limited: Redis does not respond");
                Ok(())
            }
        }
    }
}

pub(crate) fn app(rate: HandshakeRate) -> Result<Router, ConfigError> {
    let users = StaticTokens::new([("s3cr3t", "alice"), ("tr0ub4dor", "bob")])?;
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(AllowHost::loopback())
        .token(TokenPolicy::bearer(users))?
        .authorize(rate)
        .reject_with(ProblemJson::new());
    Ok(Router::new().route("/ws", any(handler).layer(guard)))
}

async fn handler(upgrade: GuardedUpgrade) -> Response {
    upgrade.on_upgrade(async |mut socket, ()| {
        let _ = socket.send(Message::text("hello")).await;
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://127.0.0.1:6379".into());
    let serve = async |port: u16| -> Result<(), Box<dyn std::error::Error>> {
        let five = const { NonZeroU32::new(5).unwrap() };
        let app = app(HandshakeRate::per_minute(&Client::open(&*url)?, five)?)?;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        println!("listening on http://{}", listener.local_addr()?);
        Ok(axum::serve(listener, app).await?)
    };
    tokio::try_join!(serve(3000), serve(3001))?;
    Ok(())
}
