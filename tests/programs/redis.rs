//! One-time tickets of several servers that share a Redis, and outages of Redis.

use std::{convert::Infallible, error::Error, fmt::Write as _, net::SocketAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, Response};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::{ServiceBuilder, service_fn};
use tower_ws_guard::{
    AllowOrigin, CancellationToken, GuardLayer, ProblemJson, ResponderLayer, StaticTokens,
    TokenPolicy, TokenSource,
    token::ticket::{RedisTicketStore, Ticket, TicketError, TicketIssuer, TicketVerifier},
};

use crate::{
    common::{Body, ORIGIN, Raw, handshake, plain, send, serve},
    redis_server::Redis,
    server::Server,
};

const REDEEMED: &str = "101";
const REJECTED: &str = "401 token-invalid";
const FAILED: &str = "503 verifier-failed";

/// For tests that do not wait for it: a busy machine may need more than a second.
const PATIENT: Duration = Duration::from_secs(10);

/// Longer than any expected wait.
async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(30), future).await.expect("it happens in time")
}

fn store(redis: &Redis) -> RedisTicketStore {
    RedisTicketStore::new(&redis.url()).unwrap()
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
        .layer(ResponderLayer::on_upgraded(async |socket, _| drop(socket)));
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

fn with_sources(error: &TicketError) -> String {
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

#[tokio::test]
#[ignore = "needs redis-server"]
async fn ticket_of_one_server_is_redeemed_once_by_another() {
    let redis = Redis::start().await;
    let stores = [store(&redis).timeout(PATIENT).unwrap(), store(&redis).timeout(PATIENT).unwrap()];
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
    let redis = Redis::start().await;
    let stores = [store(&redis).timeout(PATIENT).unwrap(), store(&redis).timeout(PATIENT).unwrap()];
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
    let redis = Redis::start().await;
    let store = store(&redis).timeout(PATIENT).unwrap();
    let (chat, mail) = (store.clone().prefix("chat:"), store.clone().prefix("mail:"));
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

    let redis = Redis::start().await;
    let issuer = TicketIssuer::new(store(&redis).timeout(PATIENT).unwrap());
    let ticket = issuer.issue(&"alice").await.unwrap();
    let dump = redis.ask(DUMP).await;
    assert!(dump.starts_with(b"*3\r\n"), "{}", dump.escape_ascii());
    assert!(contains(&dump, "ws-ticket:") && contains(&dump, "alice"), "{}", dump.escape_ascii());
    for secret in [ticket.expose().into(), URL_SAFE_NO_PAD.decode(ticket.expose()).unwrap()] {
        assert!(!secret.windows(8).any(|part| contains(&dump, part)), "{}", dump.escape_ascii());
    }
    let ttl = String::from_utf8_lossy(&dump);
    let ttl: i64 = ttl.trim_end().rsplit(':').next().unwrap().parse().unwrap();
    assert!((1..=30_000).contains(&ttl), "{ttl}");

    // A redeemed ticket is deleted.
    assert_knock(
        start(&store(&redis).timeout(PATIENT).unwrap()).await,
        &with(ticket.expose()),
        REDEEMED,
    )
    .await;
    assert_eq!(redis.ask("DBSIZE").await, b":0\r\n");
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn redis_deletes_expired_tickets() {
    let redis = Redis::start().await;
    let store = store(&redis).timeout(PATIENT).unwrap();
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
    let mut redis = Redis::start().await;
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
    let redis = Redis::start().await;
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

#[tokio::test]
#[ignore = "needs redis-server"]
async fn store_may_be_created_before_redis_runs() {
    let mut redis = Redis::start().await;
    redis.stop();
    let store = store(&redis);
    let address = start(&store).await;
    let issuer = TicketIssuer::new(store);
    for _ in 0..3 {
        assert!(soon(issuer.issue(&"alice")).await.is_err());
        assert_knock(address, &with(&"A".repeat(43)), FAILED).await;
    }
    redis.start_again().await;
    let ticket = redeem_eventually(address, &issuer).await;
    assert_knock(address, &with(ticket.expose()), REJECTED).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn password_is_used_and_never_shown() {
    let redis = Redis::start().await;
    assert_eq!(redis.ask("CONFIG SET requirepass tr0ub4dor").await, b"+OK\r\n");
    let with_password = |password| {
        RedisTicketStore::new(&redis.url().replace("//", &format!("//:{password}@"))).unwrap()
    };
    let store = with_password("tr0ub4dor");
    assert!(!format!("{store:?}").contains("tr0ub4dor"));
    let address = start(&store).await;
    redeem_eventually(address, &TicketIssuer::new(store)).await;

    let wrong = TicketIssuer::new(with_password("hunter2").timeout(PATIENT).unwrap());
    let shown = with_sources(&soon(wrong.issue(&"alice")).await.unwrap_err());
    assert!(!shown.contains("hunter2") && !shown.contains("within"), "{shown}");
    assert_eq!(redis.ask("AUTH tr0ub4dor\r\nDBSIZE").await, b"+OK\r\n:0\r\n");
}

/// Errors that only a new connection can mend, although Redis still responds on the old one.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn store_reconnects_after_any_error() {
    let redis = Redis::start().await;
    let url = redis.url().replace("//", "//:tr0ub4dor@");
    let issuer = TicketIssuer::new(RedisTicketStore::new(&url).unwrap());
    for (breaks, mends, cause) in [
        ("PING", "CONFIG SET requirepass tr0ub4dor", "assword"),
        ("AUTH tr0ub4dor\r\nREPLICAOF 127.0.0.1 1", "AUTH tr0ub4dor\r\nREPLICAOF NO ONE", "read"),
        (
            "AUTH tr0ub4dor\r\nCONFIG SET requirepass other\r\nCLIENT KILL TYPE normal",
            "AUTH other\r\nCONFIG SET requirepass tr0ub4dor",
            "assword",
        ),
    ] {
        redis.ask(breaks).await;
        let mut shown = String::new();
        soon(async {
            while !shown.contains(cause) {
                if let Err(error) = issuer.issue(&"alice").await {
                    shown = with_sources(&error);
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert!(!shown.contains("tr0ub4dor"), "{shown}");
        redis.ask(mends).await;
        issue_eventually(&issuer).await;
    }
}

/// An old Redis, or one with renamed commands, quotes the unknown command.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn quotes_of_redis_errors_are_not_shown() {
    let redis =
        Redis::start_with(&["--rename-command", "PSETEX", "", "--rename-command", "GETDEL", ""])
            .await;
    let store = store(&redis);
    let error = soon(TicketIssuer::new(store.clone()).issue(&"secret-record")).await.unwrap_err();
    let shown = with_sources(&error);
    assert!(shown.contains("PSETEX") && !shown.contains("secret-record"), "{shown}");
    assert_knock(start(&store).await, &with(&"A".repeat(43)), FAILED).await;
}

/// The old connection is dead, a new one would work: a firewall or a proxy has forgotten it.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn silent_connection_is_replaced() {
    let redis = Redis::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let upstream = redis.url().replace("redis://", "");
    let frozen = CancellationToken::new();
    let freeze = frozen.clone();
    tokio::spawn(async move {
        for connection in 0.. {
            let (mut client, _) = listener.accept().await.unwrap();
            let (upstream, frozen) = (upstream.clone(), frozen.clone());
            tokio::spawn(async move {
                let mut redis = TcpStream::connect(upstream).await.unwrap();
                let forward = tokio::io::copy_bidirectional(&mut client, &mut redis);
                if connection > 0 {
                    forward.await.ok();
                } else {
                    frozen.run_until_cancelled(forward).await;
                    // Both ends stay open.
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    let issuer = TicketIssuer::new(RedisTicketStore::new(&url).unwrap());
    issue_eventually(&issuer).await;
    freeze.cancel();
    assert!(soon(issuer.issue(&"alice")).await.is_err());
    issue_eventually(&issuer).await;
}

fn start_servers(redis: &Redis) -> [Server; 2] {
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
    let redis = Redis::start().await;
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
async fn example_servers_survive_a_redis_outage() {
    let mut redis = Redis::start().await;
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
