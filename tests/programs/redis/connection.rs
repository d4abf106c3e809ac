//! The connection to Redis: errors, outages, memory limits, clusters and TLS.

use std::{fs, path::PathBuf, time::Duration};

use redis::{Client, TlsCertificates, aio::ConnectionManager};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tower_ws_guard::{
    CancellationToken, Redis,
    token::ticket::{RedisTicketStore, TicketIssuer},
};

use super::{
    FAILED, PATIENT, REDEEMED, REJECTED, assert_knock, issue_eventually, patient_client,
    patient_store, redeem_eventually, soon, start, store, with, with_sources,
};
use crate::redis_server::{RedisServer, free_port};

fn issuer(redis: &Redis) -> TicketIssuer<RedisTicketStore> {
    TicketIssuer::new(RedisTicketStore::new(redis))
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn store_may_be_created_before_redis_runs() {
    let mut redis = RedisServer::start().await;
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
    let redis = RedisServer::start().await;
    assert_eq!(redis.ask("CONFIG SET requirepass tr0ub4dor").await, b"+OK\r\n");
    let with_password =
        |password| Redis::new(&redis.url().replace("//", &format!("//:{password}@"))).unwrap();
    let store = RedisTicketStore::new(&with_password("tr0ub4dor"));
    assert!(!format!("{store:?}").contains("tr0ub4dor"));
    let address = start(&store).await;
    redeem_eventually(address, &TicketIssuer::new(store)).await;

    let wrong = with_password("hunter2").timeout(PATIENT).unwrap();
    let wrong = TicketIssuer::new(RedisTicketStore::new(&wrong));
    let shown = with_sources(&soon(wrong.issue(&"alice")).await.unwrap_err());
    assert!(!shown.contains("hunter2") && !shown.contains("within"), "{shown}");
    assert_eq!(redis.ask("AUTH tr0ub4dor\r\nDBSIZE").await, b"+OK\r\n:0\r\n");
}

/// Errors that only a new connection can mend, although Redis still responds on the old one.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn store_reconnects_after_any_error() {
    let redis = RedisServer::start().await;
    let url = redis.url().replace("//", "//:tr0ub4dor@");
    let issuer = TicketIssuer::new(RedisTicketStore::new(&Redis::new(&url).unwrap()));
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
    let redis = RedisServer::start_with(&[
        "--rename-command",
        "PSETEX",
        "",
        "--rename-command",
        "GETDEL",
        "",
    ])
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
    let redis = RedisServer::start().await;
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
    let issuer = TicketIssuer::new(RedisTicketStore::new(&Redis::new(&url).unwrap()));
    issue_eventually(&issuer).await;
    freeze.cancel();
    assert!(soon(issuer.issue(&"alice")).await.is_err());
    issue_eventually(&issuer).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn clones_share_one_connection() {
    let redis = RedisServer::start().await;
    let first = patient_client(&redis);
    for prefix in ["chat:", "mail:", "chat:"] {
        issuer(&first.clone().prefix(prefix)).issue(&"alice").await.unwrap();
    }
    // The connection that asks is the second one.
    let clients = redis.ask("CLIENT LIST TYPE normal").await;
    let clients = String::from_utf8(clients).unwrap();
    assert_eq!(clients.matches("id=").count(), 2, "{clients}");
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn given_connection_is_used_for_commands() {
    let mut redis = RedisServer::start().await;
    let unused = format!("redis://127.0.0.1:{}", free_port());
    let manager = ConnectionManager::new(Client::open(redis.url()).unwrap()).await.unwrap();
    let shared = Redis::new(&unused).unwrap().timeout(PATIENT).unwrap().use_connection(manager);
    let store = RedisTicketStore::new(&shared);
    let address = start(&store).await;
    let issuer = TicketIssuer::new(store);
    redeem_eventually(address, &issuer).await;

    redis.stop();
    assert!(soon(issuer.issue(&"alice")).await.is_err());
    redis.start_again().await;
    redeem_eventually(address, &issuer).await;
}

/// At its memory limit Redis stores nothing, and still redeems.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn full_redis_issues_no_tickets_and_redeems_them() {
    let redis = RedisServer::start().await;
    let store = patient_store(&redis);
    let address = start(&store).await;
    let issuer = TicketIssuer::new(store);
    let ticket = issuer.issue(&"alice").await.unwrap();

    redis.ask("CONFIG SET maxmemory 1").await;
    let error = issuer.issue(&"secret-record").await.unwrap_err();
    let shown = with_sources(&error);
    assert!(shown.contains("OOM") && !shown.contains("secret-record"), "{shown}");
    assert_knock(address, &with(ticket.expose()), REDEEMED).await;
    assert_knock(address, &with(ticket.expose()), REJECTED).await;

    redis.ask("CONFIG SET maxmemory 0").await;
    redeem_eventually(address, &issuer).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn flushed_redis_knows_no_tickets_and_issues_new_ones() {
    let redis = RedisServer::start().await;
    let store = patient_store(&redis);
    let address = start(&store).await;
    let issuer = TicketIssuer::new(store);
    let ticket = issuer.issue(&"alice").await.unwrap();
    redis.ask("FLUSHALL").await;
    assert_knock(address, &with(ticket.expose()), REJECTED).await;
    redeem_eventually(address, &issuer).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn cluster_is_rejected_with_a_clear_error() {
    let redis = RedisServer::start_with(&["--cluster-enabled", "yes"]).await;
    // The only node has all slots, so that commands would succeed.
    redis.ask("CLUSTER ADDSLOTSRANGE 0 16383").await;
    let issuer = issuer(&patient_client(&redis));
    for _ in 0..2 {
        let shown = with_sources(&soon(issuer.issue(&"alice")).await.unwrap_err());
        assert!(shown.contains("is a cluster"), "{shown}");
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn user_needs_no_right_to_read_the_mode() {
    let redis = RedisServer::start().await;
    redis.ask("ACL SETUSER tickets on >s3cr3t ~ws-guard:* +psetex +getdel").await;
    let url = redis.url().replace("//", "//tickets:s3cr3t@");
    let redis = Redis::new(&url).unwrap().timeout(PATIENT).unwrap();
    issuer(&redis).issue(&"alice").await.unwrap();
    let shown = with_sources(&issuer(&redis.prefix("mail:")).issue(&"alice").await.unwrap_err());
    assert!(shown.contains("permission"), "{shown}");
}

/// A Redis with TLS on a second port.
struct TlsRedis {
    _redis: RedisServer,
    certificate: String,
    url: String,
}

async fn start_with_tls() -> TlsRedis {
    let port = free_port();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("redis-tls-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, content: String| {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = made.cert.pem();
    let (cert_file, key_file) =
        (file("cert.pem", certificate.clone()), file("key.pem", made.signing_key.serialize_pem()));
    let redis = RedisServer::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &cert_file,
        "--tls-key-file",
        &key_file,
        "--tls-ca-cert-file",
        &cert_file,
        "--tls-auth-clients",
        "no",
    ])
    .await;
    fs::remove_dir_all(&directory).unwrap();
    TlsRedis { _redis: redis, certificate, url: format!("rediss://127.0.0.1:{port}") }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn redis_with_tls_needs_a_trusted_certificate() {
    let redis = start_with_tls().await;
    let trusting = |certificate: String| {
        let certificates =
            TlsCertificates { client_tls: None, root_cert: Some(certificate.into_bytes()) };
        let client = Client::build_with_tls(&*redis.url, certificates).unwrap();
        Redis::from_client(client).timeout(PATIENT).unwrap()
    };
    let store = RedisTicketStore::new(&trusting(redis.certificate.clone()));
    redeem_eventually(start(&store).await, &TicketIssuer::new(store)).await;

    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    for redis in [
        trusting(other.cert.pem()),
        // The roots of the operating system do not have the certificate.
        Redis::new(&redis.url).unwrap().timeout(PATIENT).unwrap(),
    ] {
        let shown = with_sources(&soon(issuer(&redis).issue(&"alice")).await.unwrap_err());
        assert!(shown.contains("certificate"), "{shown}");
    }
}
