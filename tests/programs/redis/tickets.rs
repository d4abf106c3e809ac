//! One-time tickets of several servers.

#[path = "../../../examples/tickets_redis.rs"]
#[allow(dead_code, clippy::duplicate_mod, reason = "two programs share a file")]
mod example;

use std::{error::Error, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tower_ws_guard::token::ticket::{RedisTicketStore, TicketIssuer};

use super::{
    FAILED, REDEEMED, REJECTED, assert_knock, contains, issue_eventually, knock, patient_client,
    patient_store, redeem_eventually, soon, start, store, with, with_sources, with_static_token,
};
use crate::{
    common::{ORIGIN, Raw, handshake, plain, send},
    redis_server::RedisServer,
    server::Server,
};

#[tokio::test]
#[ignore = "needs redis-server"]
async fn ticket_of_one_server_is_redeemed_once_by_another() {
    let redis = RedisServer::start().await;
    let stores = [patient_store(&redis), patient_store(&redis)];
    let servers = [start(&stores[0]).await, start(&stores[1]).await];
    for (issued_by, taken_by) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let ticket = TicketIssuer::new(stores[issued_by].clone()).issue(&"alice").await.unwrap();
        let raw = with(ticket.expose());
        assert_knock(servers[taken_by], &raw, REDEEMED).await;
        assert_knock(servers[0], &raw, REJECTED).await;
        assert_knock(servers[1], &raw, REJECTED).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn ticket_is_redeemed_by_one_of_many_handshakes_on_two_servers() {
    let redis = RedisServer::start().await;
    let stores = [patient_store(&redis), patient_store(&redis)];
    let servers = [start(&stores[0]).await, start(&stores[1]).await];
    let ticket = TicketIssuer::new(stores[0].clone()).issue(&"alice").await.unwrap();
    let raw = with(ticket.expose());
    let handshakes = (0..200).map(|i| {
        let raw = raw.clone();
        async move { knock(servers[i % 2], &raw).await }
    });
    let mut outcomes = handshakes.collect::<JoinSet<_>>().join_all().await;
    outcomes.sort_unstable();
    assert_eq!((outcomes.len(), &*outcomes[0]), (200, REDEEMED));
    assert!(outcomes[1..].iter().all(|outcome| outcome == REJECTED), "{outcomes:?}");
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn stores_with_different_prefixes_share_no_tickets() {
    let redis = RedisServer::start().await;
    let store = patient_store(&redis);
    let client = patient_client(&redis);
    let with_prefix = |prefix| RedisTicketStore::new(&client.clone().prefix(prefix));
    let (chat, mail) = (with_prefix("chat:"), with_prefix("mail:"));
    let ticket = TicketIssuer::new(chat.clone()).issue(&"alice").await.unwrap();
    let raw = with(ticket.expose());
    for (store, expected) in [(mail, REJECTED), (store, REJECTED), (chat, REDEEMED)] {
        assert_knock(start(&store).await, &raw, expected).await;
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn redis_holds_only_hashed_tickets_that_expire() {
    const DUMP: &str = "EVAL \"local all = {}; for _, key in ipairs(redis.call('KEYS', '*')) do \
        all[#all + 1] = key; all[#all + 1] = redis.call('GET', key); all[#all + 1] = redis.call('PTTL', key) end; \
        return all\" 0";

    let redis = RedisServer::start().await;
    let issuer = TicketIssuer::new(patient_store(&redis));
    let ticket = issuer.issue(&"alice").await.unwrap();
    let dump = redis.ask(DUMP).await;
    assert!(dump.starts_with(b"*3\r\n"), "{}", dump.escape_ascii());
    assert!(
        contains(&dump, "ws-guard:ticket:") && contains(&dump, "alice"),
        "{}",
        dump.escape_ascii()
    );
    for secret in [ticket.expose().into(), URL_SAFE_NO_PAD.decode(ticket.expose()).unwrap()] {
        assert!(!secret.windows(8).any(|part| contains(&dump, part)), "{}", dump.escape_ascii());
    }
    let ttl = String::from_utf8_lossy(&dump);
    let ttl: i64 = ttl.trim_end().rsplit(':').next().unwrap().parse().unwrap();
    assert!((1..=30_000).contains(&ttl), "{ttl}");

    // A redeemed ticket is deleted.
    assert_knock(start(&patient_store(&redis)).await, &with(ticket.expose()), REDEEMED).await;
    assert_eq!(redis.ask("DBSIZE").await, b":0\r\n");
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn redis_deletes_expired_tickets() {
    let redis = RedisServer::start().await;
    let store = patient_store(&redis);
    let address = start(&store).await;
    let issuer = TicketIssuer::new(store);
    let short =
        issuer.clone().lifetime(Duration::from_secs(1)).unwrap().issue(&"alice").await.unwrap();
    let long = issuer.issue(&"alice").await.unwrap();
    soon(async {
        while redis.ask("KEYS *").await.starts_with(b"*2\r\n") {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_knock(address, &with(short.expose()), REJECTED).await;
    assert_knock(address, &with(long.expose()), REDEEMED).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn redis_outage_rejects_tickets_until_redis_is_back() {
    let mut redis = RedisServer::start().await;
    let store = store(&redis);
    let address = start(&store).await;
    let issuer = TicketIssuer::new(store);
    let taken = redeem_eventually(address, &issuer).await;
    let kept = issue_eventually(&issuer).await;

    for _ in 0..2 {
        redis.stop();
        let error = soon(issuer.issue(&"alice")).await.unwrap_err();
        for error in [error, soon(issuer.issue(&"alice")).await.unwrap_err()] {
            // The error is the cause and not a timeout.
            assert!(!with_sources(&error).contains("within"), "{error:?}");
            assert_knock(address, &with(kept.expose()), FAILED).await;
            assert_knock(address, &with_static_token(), REDEEMED).await;
        }
        redis.start_again().await;
        redeem_eventually(address, &issuer).await;
        for ticket in [taken.expose(), kept.expose(), &"A".repeat(43)] {
            assert_knock(address, &with(ticket), REJECTED).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn silent_redis_times_out() {
    let redis = RedisServer::start().await;
    let store = store(&redis);
    let address = start(&store).await;
    let issuer = TicketIssuer::new(store);
    let taken = redeem_eventually(address, &issuer).await;

    redis.pause();
    let error = soon(issuer.issue(&"alice")).await.unwrap_err();
    assert!(error.source().unwrap().to_string().contains("within 1s"), "{error:?}");
    for _ in 0..2 {
        assert_knock(address, &with(taken.expose()), FAILED).await;
    }
    assert_knock(address, &with_static_token(), REDEEMED).await;

    redis.resume();
    let taken_too = redeem_eventually(address, &issuer).await;
    for ticket in [taken.expose(), taken_too.expose(), &"A".repeat(43)] {
        assert_knock(address, &with(ticket), REJECTED).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn quota_counts_on_all_servers() {
    let redis = RedisServer::start().await;
    let issuers = [0, 1].map(|_| TicketIssuer::new(patient_store(&redis)));
    let requests = (0..100).map(|i| {
        let issuer = issuers[i % 2].quota("alice", 20);
        async move { issuer.issue(&"alice").await.map_err(|error| error.retry_after().unwrap()) }
    });
    let results = requests.collect::<JoinSet<_>>().join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 20);
    for delay in results.into_iter().filter_map(Result::err) {
        assert!((1..=30).contains(&delay.as_secs()) && delay.subsec_nanos() == 0, "{delay:?}");
    }
    issuers[0].quota("bob", 1).issue(&"bob").await.unwrap();
    for issuer in &issuers {
        assert!(issuer.quota("alice", 20).issue(&"alice").await.is_err());
        assert!(issuer.quota("bob", 1).issue(&"bob").await.is_err());
        assert!(issuer.quota("carol", 0).issue(&"carol").await.is_err());
    }
    // A larger quota counts what was issued before.
    for _ in 0..5 {
        issuers[1].quota("alice", 25).issue(&"alice").await.unwrap();
    }
    assert!(issuers[0].quota("alice", 25).issue(&"alice").await.is_err());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn quota_renews_and_leaves_nothing_in_redis() {
    let redis = RedisServer::start().await;
    let issuer = TicketIssuer::new(patient_store(&redis)).lifetime(Duration::from_secs(1)).unwrap();
    let issuer = issuer.quota("alice-secret", 2);
    issuer.issue(&"alice").await.unwrap();
    let keys = redis.ask("KEYS *").await;
    assert!(contains(&keys, "ws-guard:ticket-quota:"), "{}", keys.escape_ascii());
    assert!(!contains(&keys, "secret"), "{}", keys.escape_ascii());
    // The list does not grow beyond the quota.
    soon(async {
        let mut issued = 1;
        while issued < 6 {
            match issuer.issue(&"alice").await {
                Ok(_) => issued += 1,
                Err(error) => assert_eq!(error.retry_after().unwrap().as_secs(), 1),
            }
            sleep(Duration::from_millis(20)).await;
        }
        let keys = String::from_utf8(redis.ask("KEYS ws-guard:ticket-quota:*").await).unwrap();
        let key = keys.lines().find(|line| line.starts_with("ws-")).unwrap();
        assert_eq!(redis.ask(&format!("LLEN {key}")).await, b":2\r\n");
        while redis.ask("DBSIZE").await != b":0\r\n" {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn quota_survives_flushed_scripts_and_fails_with_redis() {
    let mut redis = RedisServer::start().await;
    let issuer = TicketIssuer::new(patient_store(&redis)).quota("alice", 2);
    for _ in 0..2 {
        redis.ask("SCRIPT FLUSH").await;
        issuer.issue(&"alice").await.unwrap();
    }
    assert!(issuer.issue(&"alice").await.unwrap_err().retry_after().is_some());
    redis.ask("FLUSHALL").await;
    issuer.issue(&"alice").await.unwrap();

    redis.ask("CONFIG SET maxmemory 1").await;
    let full = issuer.issue(&"alice").await.unwrap_err();
    assert!(full.retry_after().is_none() && with_sources(&full).contains("OOM"), "{full:?}");
    redis.stop();
    assert!(soon(issuer.issue(&"alice")).await.unwrap_err().retry_after().is_none());
}

fn start_servers(redis: &RedisServer) -> [Server; 2] {
    [0, 1].map(|_| {
        Server::start(&["--allow-any-host", "--tickets", &redis.url(), "--token", "s3cr3t"])
    })
}

fn post() -> Raw {
    plain().method("POST").target("/tickets").and("Connection", "close")
}

fn post_with_token() -> Raw {
    post().and("Authorization", "Bearer s3cr3t")
}

/// Returns the status and the body.
async fn ask(server: &Server, raw: &Raw) -> (u16, Value) {
    let mut response = soon(send(server.address, &raw.bytes())).await;
    assert_eq!(response.all("cache-control"), ["no-store"]);
    (response.status, serde_json::from_str(&response.read_rest().await).unwrap())
}

async fn ticket_of(server: &Server, raw: &Raw) -> String {
    let (status, body) = ask(server, raw).await;
    assert_eq!((status, body["expires_in"].as_u64()), (201, Some(30)), "{body}");
    body["ticket"].as_str().unwrap().to_owned()
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn example_servers_share_tickets() {
    let redis = RedisServer::start().await;
    let servers = start_servers(&redis);
    for rejected in [
        post(),
        post().and("Authorization", "Bearer wrong"),
        post().and("Authorization", "Basic s3cr3t"),
    ] {
        let (status, body) = ask(&servers[0], &rejected).await;
        assert_eq!((status, &body["ticket"]), (401, &Value::Null), "{rejected:?}");
    }

    let ticket = ticket_of(&servers[0], &post_with_token()).await;
    assert_eq!(ticket.len(), 43);
    assert_knock(
        servers[1].address,
        &handshake().and("Authorization", format!("Bearer {ticket}")),
        REJECTED,
    )
    .await;
    assert_knock(servers[1].address, &with("s3cr3t"), REJECTED).await;
    assert_knock(servers[1].address, &with(&ticket), REDEEMED).await;
    for server in &servers {
        assert_knock(server.address, &with(&ticket), REJECTED).await;
    }
    let logged = [
        servers[0].rejection(),
        servers[1].rejection(),
        servers[1].rejection(),
        servers[1].rejection(),
    ];
    for rejection in logged {
        assert!(rejection.starts_with("token-invalid: "), "{rejection}");
        assert!(!rejection.contains(&ticket) && !rejection.contains("s3cr3t"), "{rejection}");
    }

    // A request of a page gets a ticket for its origin.
    for (origin, expected) in [(ORIGIN, REDEEMED), ("https://evil.example", REJECTED)] {
        let ticket = ticket_of(&servers[0], &post_with_token().and("Origin", origin)).await;
        assert_knock(servers[1].address, &with(&ticket), expected).await;
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn example_servers_limit_the_tickets_of_a_token() {
    let redis = RedisServer::start().await;
    let servers = [0, 1].map(|_| {
        let url = redis.url();
        Server::start(&["--allow-any-host", "--tickets", &url, "--token", "t1", "--token", "t2"])
    });
    let post_with = |token| post().and("Authorization", format!("Bearer {token}"));
    for i in 0..100 {
        ticket_of(&servers[i % 2], &post_with("t1")).await;
    }
    for server in &servers {
        let mut response = soon(send(server.address, &post_with("t1").bytes())).await;
        assert_eq!(response.status, 429);
        let delay: u64 = response.all("retry-after")[0].parse().unwrap();
        assert!((1..=30).contains(&delay), "{delay}");
        assert!(response.read_rest().await.contains("too many tickets"));
        ticket_of(server, &post_with("t2")).await;
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn example_servers_survive_a_redis_outage() {
    let mut redis = RedisServer::start().await;
    let servers = start_servers(&redis);
    let taken = ticket_of(&servers[0], &post_with_token()).await;
    assert_knock(servers[1].address, &with(&taken), REDEEMED).await;
    let kept = ticket_of(&servers[0], &post_with_token()).await;

    redis.stop();
    for server in &servers {
        let (status, body) = ask(server, &post_with_token()).await;
        assert_eq!((status, &body["ticket"]), (503, &Value::Null), "{body}");
        assert_knock(server.address, &with(&kept), FAILED).await;
        assert!(server.rejection().contains("because: "));
        assert_knock(server.address, &with_static_token(), REDEEMED).await;
    }

    redis.start_again().await;
    for (server, other) in [(&servers[0], &servers[1]), (&servers[1], &servers[0])] {
        let ticket = soon(async {
            loop {
                if let (201, body) = ask(server, &post_with_token()).await {
                    let ticket = body["ticket"].as_str().unwrap().to_owned();
                    match &*knock(other.address, &with(&ticket)).await {
                        REDEEMED => return ticket,
                        rejection => assert_eq!(rejection, FAILED),
                    }
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        for ticket in [&ticket.await, &taken, &kept] {
            assert_knock(other.address, &with(ticket), REJECTED).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn example_redeems_the_tickets_of_all_its_servers() {
    let redis = RedisServer::start().await;
    let mut servers = Vec::new();
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        servers.push(listener.local_addr().unwrap());
        let url = redis.url();
        tokio::spawn(async move { example::serve(listener, &url).await.unwrap() });
    }
    let own = |raw: Raw| raw.with("Host", "chat.localhost").with("Origin", "http://chat.localhost");
    let post = plain().method("POST").target("/tickets").and("Content-Length", "0");
    let post = own(post).and("Authorization", "Bearer s3cr3t").and("Connection", "close");
    // The first commands may take longer than a second on a busy machine.
    let mut issued = soon(async {
        loop {
            let issued = send(servers[0], &post.bytes()).await;
            if issued.status == 201 {
                return issued;
            }
        }
    })
    .await;
    let body: Value = serde_json::from_str(&issued.read_rest().await).unwrap();
    let ticket = body["ticket"].as_str().unwrap();
    let used = own(handshake().target(&format!("/ws?ticket={ticket}")));
    for (server, expected) in [(servers[1], REDEEMED), (servers[0], REJECTED)] {
        assert_knock(server, &used, expected).await;
    }
}
