//! The example that limits the rate of handshakes on several servers.

#[path = "../../../examples/handshake_rate_redis.rs"]
#[allow(dead_code)]
mod example;

use std::{net::SocketAddr, time::Duration};

use redis::Client;

use self::example::{HandshakeRate, app};
use super::soon;
use crate::{
    common::{handshake, send, serve_axum},
    redis_server::RedisServer,
};

async fn start(redis: &RedisServer) -> SocketAddr {
    let client = Client::open(redis.url()).unwrap();
    let rate = HandshakeRate::per_minute(&client, 2.try_into().unwrap()).unwrap();
    serve_axum(app(rate).unwrap()).await
}

/// Returns the status and `Retry-After`.
async fn knock(address: SocketAddr, token: &str) -> (u16, Option<u64>) {
    let raw = handshake().with("Host", "localhost").with("Origin", "http://localhost");
    let raw = raw.and("Authorization", format!("Bearer {token}"));
    let response = soon(send(address, &raw.bytes())).await;
    (response.status, response.all("retry-after").first().map(|delay| delay.parse().unwrap()))
}

/// Until the connection of a busy machine is there, handshakes are not counted.
async fn wait_until_counted(redis: &RedisServer, address: SocketAddr) {
    soon(async {
        while redis.ask("DBSIZE").await == b":0\r\n" {
            assert_eq!(knock(address, "tr0ub4dor").await, (101, None));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        redis.ask("FLUSHALL").await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn rate_of_a_user_counts_on_all_servers() {
    let redis = RedisServer::start().await;
    let servers = [start(&redis).await, start(&redis).await];
    for server in servers {
        wait_until_counted(&redis, server).await;
    }
    assert_eq!(knock(servers[0], "s3cr3t").await, (101, None));
    redis.ask("SCRIPT FLUSH").await;
    assert_eq!(knock(servers[1], "s3cr3t").await, (101, None));
    for server in servers {
        let (status, delay) = knock(server, "s3cr3t").await;
        assert_eq!(status, 429);
        assert!((1..=30).contains(&delay.unwrap()), "{delay:?}");
        assert_eq!(knock(server, "guess").await, (401, None));
        assert_eq!(knock(server, "tr0ub4dor").await, (101, None));
    }
    assert_eq!(knock(servers[0], "tr0ub4dor").await.0, 429);

    let ttl = redis.ask("PTTL handshake-rate:alice").await;
    let ttl = String::from_utf8(ttl).unwrap();
    let ttl: u64 = ttl.trim_end().trim_start_matches(':').parse().unwrap();
    assert!((1..=60_000).contains(&ttl), "{ttl}");
    // Half of the quota is there again after half of the time.
    let time = String::from_utf8(redis.ask("TIME").await).unwrap();
    let now: u64 = time.lines().nth(2).unwrap().parse().unwrap();
    redis.ask(&format!("SET handshake-rate:alice {}", now * 1000 + 29_000)).await;
    assert_eq!(knock(servers[0], "s3cr3t").await, (101, None));
    assert_eq!(knock(servers[0], "s3cr3t").await.0, 429);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn handshakes_are_accepted_while_redis_is_away() {
    let mut redis = RedisServer::start().await;
    let address = start(&redis).await;
    wait_until_counted(&redis, address).await;
    redis.pause();
    for _ in 0..4 {
        assert_eq!(knock(address, "s3cr3t").await, (101, None));
    }
    redis.resume();
    redis.stop();
    for _ in 0..4 {
        assert_eq!(knock(address, "s3cr3t").await, (101, None));
    }
    assert_eq!(knock(address, "guess").await, (401, None));
    redis.start_again().await;
    soon(async {
        while knock(address, "s3cr3t").await.0 != 429 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}
