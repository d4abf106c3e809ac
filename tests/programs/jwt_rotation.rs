//! The example `jwt_rotation` with an issuer that rotates its keys while clients connect.

#[path = "../../examples/jwt_rotation.rs"]
#[allow(dead_code)]
mod example;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Json, Router, extract::State, routing::get};
use futures_util::StreamExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use tower_ws_guard::token::jwt::{JwtKeys, JwtRefresh};

use super::examples::connect;
use crate::common::serve_axum;

const TIMEOUT: Duration = Duration::from_secs(60);
const COOL_DOWN: Duration = Duration::from_secs(1);
const CLIENTS: usize = 8;
const ROTATIONS: usize = 6;
/// A client may present a token that was issued one or two rotations ago.
const PUBLISHED: usize = 3;

#[derive(Clone)]
struct Issuer {
    url: Arc<str>,
    keys: Arc<Mutex<IssuerKeys>>,
    fetches: Arc<AtomicUsize>,
}

/// The published keys, oldest first.
#[derive(Default)]
struct IssuerKeys {
    published: VecDeque<Arc<IssuerKey>>,
    signs: Option<Arc<IssuerKey>>,
    created: usize,
}

struct IssuerKey {
    kid: String,
    key: EncodingKey,
}

impl IssuerKey {
    fn new(kid: String) -> Self {
        // A private key of Ed25519 in PKCS #8 (RFC 8410 7).
        let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
        der.extend(std::iter::repeat_with(|| fastrand::u8(..)).take(32));
        Self { kid, key: EncodingKey::from_ed_der(&der) }
    }

    fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, Algorithm::EdDSA).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!(self.kid);
        jwk
    }

    fn sign(&self, issuer: &str) -> String {
        let claims =
            json!({ "iss": issuer, "aud": "account", "sub": "alice", "exp": 4_102_444_800_u64 });
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        encode(&header, &claims, &self.key).unwrap()
    }
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).into();
        let issuer = Self { url, keys: Arc::default(), fetches: Arc::default() };
        issuer.publish();
        issuer.sign_with_the_newest();
        let app = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(async |State(issuer): State<Self>| {
                    let jwks_uri = format!("{}/keys", issuer.url);
                    Json(json!({ "issuer": &*issuer.url, "jwks_uri": jwks_uri }))
                }),
            )
            .route(
                "/keys",
                get(async |State(issuer): State<Self>| {
                    let set = issuer.key_set();
                    // Handshakes with a key of this set arrive while it is on its way.
                    sleep(Duration::from_millis(100)).await;
                    Json(set)
                }),
            )
            .with_state(issuer.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        issuer
    }

    fn key_set(&self) -> Value {
        let keys = self.keys.lock().unwrap();
        let set = json!({ "keys": keys.published.iter().map(|key| key.jwk()).collect::<Vec<_>>() });
        // Counted together with the keys that it shows.
        self.fetches.fetch_add(1, SeqCst);
        set
    }

    /// Publishes a new key, and withdraws the oldest.
    fn publish(&self) {
        let mut keys = self.keys.lock().unwrap();
        keys.created += 1;
        let key = IssuerKey::new(format!("key {}", keys.created));
        keys.published.push_back(Arc::new(key));
        if keys.published.len() > PUBLISHED {
            keys.published.pop_front();
        }
    }

    fn sign_with_the_newest(&self) {
        let mut keys = self.keys.lock().unwrap();
        keys.signs = keys.published.back().cloned();
    }

    fn token(&self) -> String {
        let key = self.keys.lock().unwrap().signs.clone().unwrap();
        key.sign(&self.url)
    }

    async fn wait_for_fetches(&self, count: usize) {
        let wait = async {
            while self.fetches.load(SeqCst) < count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(TIMEOUT, wait).await.expect("the keys are fetched");
    }
}

async fn status(address: SocketAddr, token: &str) -> u16 {
    let token = format!("Bearer {token}");
    match connect(address, &[("authorization", &token)]).await {
        Ok((mut socket, _)) => {
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello alice"));
            101
        }
        Err(status) => status,
    }
}

/// Clients that connect again and again until they are stopped; each with a fresh token.
struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<usize>,
}

impl Load {
    fn start(address: SocketAddr, issuer: &Issuer) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (issuer, stop) = (issuer.clone(), Arc::clone(&stop));
            clients.spawn(async move {
                let mut accepted = 0;
                while !stop.load(SeqCst) {
                    assert_eq!(status(address, &issuer.token()).await, 101);
                    accepted += 1;
                }
                accepted
            });
        }
        Self { stop, clients }
    }

    /// The number of accepted handshakes. None was rejected.
    async fn stop(self) -> usize {
        self.stop.store(true, SeqCst);
        self.clients.join_all().await.iter().sum()
    }
}

async fn serve(issuer: &Issuer, settings: JwtRefresh) -> (SocketAddr, JwtKeys) {
    let keys = example::keys(&issuer.url, settings);
    timeout(TIMEOUT, keys.ready()).await.unwrap();
    (serve_axum(example::app(&issuer.url, keys.clone()).unwrap()).await, keys)
}

/// The issuer signs with a key in the same moment in which it publishes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_handshake_is_lost_when_the_issuer_signs_with_a_new_key_at_once() {
    let issuer = Issuer::start().await;
    let withdrawn = issuer.token();
    let settings = JwtRefresh::new().cool_down(COOL_DOWN).unwrap();
    let (address, _keys) = serve(&issuer, settings).await;
    assert_eq!(status(address, &withdrawn).await, 101);

    let load = Load::start(address, &issuer);
    for rotation in 1..=ROTATIONS {
        issuer.publish();
        issuer.sign_with_the_newest();
        issuer.wait_for_fetches(1 + rotation).await;
        // Its early fetch began before the issuer saw it.
        sleep(COOL_DOWN).await;
    }
    let accepted = load.stop().await;
    println!("{accepted} handshakes, none rejected, during {ROTATIONS} rotations");
    // One fetch for each new key, however many handshakes waited for it.
    assert_eq!(issuer.fetches.load(SeqCst), 1 + ROTATIONS);
    assert_eq!(status(address, &issuer.token()).await, 101);
    assert_eq!(status(address, &withdrawn).await, 401);
}

/// An attacker uses up the early fetches, and the issuer publishes each key before it signs with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_handshake_is_lost_while_an_attacker_uses_up_the_early_fetches() {
    let issuer = Issuer::start().await;
    let settings = JwtRefresh::new().interval(Duration::from_secs(1)).unwrap();
    let (address, _keys) = serve(&issuer, settings).await;

    let load = Load::start(address, &issuer);
    let attacker = tokio::spawn({
        let issuer = Arc::clone(&issuer.url);
        async move {
            for number in 0_usize.. {
                let forged = IssuerKey::new(format!("random {number}")).sign(&issuer);
                assert_eq!(status(address, &forged).await, 401);
            }
        }
    });
    for _ in 0..ROTATIONS / 2 {
        issuer.publish();
        // A handshake waits for a fetch that is in flight.
        issuer.wait_for_fetches(issuer.fetches.load(SeqCst) + 1).await;
        issuer.sign_with_the_newest();
    }
    let accepted = load.stop().await;
    println!("{accepted} handshakes, none rejected, beside an attacker");
    assert!(accepted > 0);
    assert!(!attacker.is_finished(), "{:?}", attacker.await);
    attacker.abort();
}
