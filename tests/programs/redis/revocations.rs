//! Revoked tokens on several servers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Request;
use tokio::time::sleep;
use tower_ws_guard::{Redis, Revocations, StaticTokens, Token, TokenIdentity, VerifyToken};

use super::{client, contains, patient_client, soon, with_sources};
use crate::redis_server::RedisServer;

const HOUR: Duration = Duration::from_secs(3600);

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn on(redis: &Redis) -> Revocations {
    Revocations::on_redis(redis, HOUR).unwrap()
}

/// The id, the subject and the seconds of issue of a token.
type Claims = (String, String, u64);

/// Returns the code of the rejection.
async fn verdict(revocations: &Revocations, token: (&str, &str, u64)) -> Result<(), &'static str> {
    let claims = (token.0.to_owned(), token.1.to_owned(), token.2);
    let tokens = StaticTokens::new([("x", claims)]).unwrap();
    let verifier = tokens.unless_revoked(revocations, |(id, subject, issued_at): &Claims| {
        TokenIdentity::new().id(id).subject(subject, at(*issued_at))
    });
    let (parts, ()) = Request::new(()).into_parts();
    // It must not wait, so it cannot tell.
    assert!(verifier.verify_now(&Token::new("x"), &parts).is_none());
    let verdict = soon(verifier.verify(Token::new("x"), &parts)).await;
    verdict.map(drop).map_err(|rejection| rejection.kind().code())
}

const REVOKED: Result<(), &str> = Err("token-invalid");
const FAILED: Result<(), &str> = Err("verifier-failed");

#[tokio::test]
#[ignore = "needs redis-server"]
async fn token_revoked_on_one_server_is_rejected_by_all() {
    let redis = RedisServer::start().await;
    let servers = [on(&patient_client(&redis)), on(&patient_client(&redis))];
    let other = on(&patient_client(&redis).prefix("mail:"));
    for token in [("t1", "alice", 100), ("t2", "bob", 100)] {
        for server in &servers {
            assert_eq!(verdict(server, token).await, Ok(()));
        }
    }
    servers[0].revoke_token("t1").await.unwrap();
    servers[1].revoke_subject("bob", at(100)).await.unwrap();
    for (token, expected) in [
        (("t1", "alice", 100), REVOKED),
        (("t2", "alice", 100), Ok(())),
        (("t2", "bob", 99), REVOKED),
        (("t2", "bob", 100), REVOKED),
        (("t2", "bob", 101), Ok(())),
        (("t1", "bob", 101), REVOKED),
        (("bob", "t1", 100), Ok(())),
        (("t2", "alice", 0), Ok(())),
    ] {
        for server in &servers {
            assert_eq!(verdict(server, token).await, expected, "{token:?}");
        }
        assert_eq!(verdict(&other, token).await, Ok(()), "{token:?}");
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn later_time_and_longer_lifetime_count() {
    let redis = RedisServer::start().await;
    let client = patient_client(&redis);
    let short = Revocations::on_redis(&client, Duration::from_millis(1500)).unwrap();
    for (subject, times) in [("alice", [100, 200]), ("bob", [200, 100])] {
        for (revocations, time) in [(on(&client), times[0]), (short.clone(), times[1])] {
            revocations.revoke_subject(subject, at(time)).await.unwrap();
        }
        assert_eq!(verdict(&short, ("", subject, 200)).await, REVOKED);
        assert_eq!(verdict(&short, ("", subject, 201)).await, Ok(()));
    }
    // Extreme times and lifetimes.
    let longest = Revocations::on_redis(&client, Duration::MAX).unwrap();
    let far = UNIX_EPOCH + Duration::from_secs(u64::MAX / 4);
    for time in [UNIX_EPOCH - HOUR, far, SystemTime::now()] {
        longest.revoke_subject("carol", time).await.unwrap();
    }
    longest.revoke_token("t1").await.unwrap();
    assert_eq!(verdict(&longest, ("t2", "carol", 99_999_999_999)).await, REVOKED);
    assert_eq!(verdict(&longest, ("t1", "dave", 99_999_999_999)).await, REVOKED);
    assert!(Revocations::on_redis(&client, Duration::ZERO).is_err());

    short.revoke_token("t4").await.unwrap();
    soon(async {
        while verdict(&short, ("t4", "", 0)).await == REVOKED {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // It was revoked with both lifetimes.
    assert_eq!(verdict(&short, ("", "alice", 200)).await, REVOKED);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn redis_holds_only_hashes_that_expire() {
    let redis = RedisServer::start().await;
    let revocations = on(&patient_client(&redis));
    revocations.revoke_token("secret-id").await.unwrap();
    revocations.revoke_subject(&"alice".repeat(10_000), at(100)).await.unwrap();
    let keys = redis.ask("KEYS *").await;
    assert!(keys.starts_with(b"*2\r\n"), "{}", keys.escape_ascii());
    assert!(contains(&keys, "ws-guard:revoked:") && keys.len() < 200, "{}", keys.escape_ascii());
    assert!(!contains(&keys, "secret") && !contains(&keys, "alice"), "{}", keys.escape_ascii());
    for key in String::from_utf8(keys).unwrap().lines().filter(|line| line.starts_with("ws-")) {
        let ttl = String::from_utf8(redis.ask(&format!("PTTL {key}")).await).unwrap();
        let ttl: i64 = ttl.trim_end().trim_start_matches(':').parse().unwrap();
        assert!((1..=3_600_000).contains(&ttl), "{ttl}");
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn handshake_asks_redis_once() {
    let redis = RedisServer::start().await;
    let revocations = on(&patient_client(&redis));
    for _ in 0..10 {
        assert_eq!(verdict(&revocations, ("t1", "alice", 100)).await, Ok(()));
    }
    let statistics = String::from_utf8(redis.ask("INFO commandstats").await).unwrap();
    assert!(statistics.contains("cmdstat_mget:calls=10,"), "{statistics}");
    assert!(!statistics.contains("cmdstat_get:"), "{statistics}");
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn revocations_fail_closed_in_an_outage() {
    let mut redis = RedisServer::start().await;
    let revocations = on(&client(&redis).timeout(Duration::from_millis(500)).unwrap());
    let token = ("t1", "alice", 100);
    soon(async {
        while verdict(&revocations, token).await != Ok(()) {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;

    redis.pause();
    assert_eq!(verdict(&revocations, token).await, FAILED);
    let shown = with_sources(&soon(revocations.revoke_token("t1")).await.unwrap_err());
    assert!(shown.contains("within 500ms"), "{shown}");
    redis.resume();

    redis.stop();
    assert_eq!(verdict(&revocations, token).await, FAILED);
    assert!(soon(revocations.revoke_subject("alice", at(100))).await.is_err());
    redis.start_again().await;
    soon(async {
        while revocations.revoke_token("t1").await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
        while verdict(&revocations, token).await != REVOKED {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn flushed_scripts_are_loaded_again() {
    let redis = RedisServer::start().await;
    let revocations = on(&patient_client(&redis));
    for (id, before) in [("t1", "PING"), ("t2", "SCRIPT FLUSH"), ("t3", "FLUSHALL")] {
        redis.ask(before).await;
        revocations.revoke_token(id).await.unwrap();
        assert_eq!(verdict(&revocations, (id, "", 0)).await, REVOKED);
    }
    // Flushed with everything else.
    assert_eq!(verdict(&revocations, ("t1", "", 0)).await, Ok(()));
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn full_redis_keeps_its_revocations() {
    let redis = RedisServer::start().await;
    let revocations = on(&patient_client(&redis));
    revocations.revoke_token("t1").await.unwrap();
    redis.ask("CONFIG SET maxmemory 1").await;
    let shown = with_sources(&revocations.revoke_token("secret-id").await.unwrap_err());
    assert!(shown.contains("OOM") && !shown.contains("secret"), "{shown}");
    assert_eq!(verdict(&revocations, ("t1", "", 0)).await, REVOKED);
    assert_eq!(verdict(&revocations, ("secret-id", "", 0)).await, Ok(()));
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn restart_keeps_revocations_in_an_append_only_file() {
    for (persistence, expected) in [("yes", REVOKED), ("no", Ok(()))] {
        let options = ["--appendonly", persistence, "--appendfsync", "always"];
        let mut redis = RedisServer::start_with(&options).await;
        let revocations = on(&patient_client(&redis));
        revocations.revoke_token("t1").await.unwrap();
        redis.stop();
        redis.start_again_with(&options).await;
        let verdict = soon(async {
            loop {
                match verdict(&revocations, ("t1", "", 0)).await {
                    FAILED => sleep(Duration::from_millis(50)).await,
                    verdict => return verdict,
                }
            }
        });
        assert_eq!(verdict.await, expected, "{persistence}");
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn value_of_another_program_rejects_the_handshake() {
    let redis = RedisServer::start().await;
    let revocations = on(&patient_client(&redis));
    revocations.revoke_token("t1").await.unwrap();
    let keys = String::from_utf8(redis.ask("KEYS *").await).unwrap();
    let key = keys.lines().find(|line| line.starts_with("ws-")).unwrap();
    redis.ask(&format!("SET {key} odd")).await;
    assert_eq!(verdict(&revocations, ("t1", "", 0)).await, FAILED);
}
