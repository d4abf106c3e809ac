//! Sessions that several servers share.

use std::{
    convert::Infallible,
    env,
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use http::{Request, Response, request::Parts};
use hyper::body::Incoming;
use serde_json::Value;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
    sync::Barrier,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::{Layer, service_fn};
use tower_ws_guard::{
    AllowOrigin, Ended, GuardLayer, ProblemJson, Redis, Rejection, Sessions, Token, TokenPolicy,
    Upgraded, WhenFull, WhenUnavailable,
};

use super::{PATIENT, client, contains, patient_client, proxy::Proxy, soon};
use crate::{
    common::{self, ORIGIN, Raw, eventually, handshake, plain, send, serve},
    redis_server::RedisServer,
    server::Server,
};

const OTHER_ORIGIN: &str = "https://other.example";
const FULL: &str = "too-many-connections";
const ENDED: &str = "token-invalid";
const FAILED: &str = "verifier-failed";
const LEASE: Duration = Duration::from_secs(15);

fn sessions_of(redis: &Redis, max: usize) -> Sessions<String> {
    let header = |request: &Parts, name| Some(request.headers.get(name)?.to_str().ok()?.to_owned());
    Sessions::per_key(max, move |request| header(request, "x-user"))
        .unwrap()
        .address(move |request| header(request, "x-address")?.parse().ok())
        .on_redis(redis, "users")
        .unwrap()
}

/// The sockets that are open, and the most that there were.
#[derive(Default)]
struct Open {
    now: AtomicUsize,
    most: AtomicUsize,
}

struct OpenSocket(Arc<Open>);

impl Open {
    fn enter(self: Arc<Self>) -> OpenSocket {
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        OpenSocket(self)
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, SeqCst);
    }
}

/// A server that echoes bytes, and sends a close frame when a socket must end.
struct Node {
    sessions: Sessions<String>,
    address: SocketAddr,
    open: Arc<Open>,
}

impl Node {
    async fn start(sessions: Sessions<String>) -> Self {
        Self::start_with(sessions, Arc::default(), guard()).await
    }

    async fn start_with(sessions: Sessions<String>, open: Arc<Open>, guard: GuardLayer) -> Self {
        let opened = Arc::clone(&open);
        let callback = move |mut socket: Upgraded| {
            let open = Arc::clone(&opened);
            async move {
                // Dropped before the socket, which has the permit.
                let _open = open.enter();
                let ended = socket.ended();
                tokio::select! {
                    () = echo(&mut socket) => return,
                    ended = ended => socket.write_all(&close_frame(ended)).await.ok(),
                };
                echo(&mut socket).await;
            }
        };
        let inner = service_fn(async |_: Request<Incoming>| {
            Ok::<_, Infallible>(Response::new(common::Body::default()))
        });
        let guard = guard.sessions(&sessions).reject_with(ProblemJson::new());
        let address = serve(guard.on_upgraded(callback).layer(inner)).await;
        Self { sessions, address, open }
    }

    async fn connect(&self, user: &str) -> Result<Socket, String> {
        connect(self.address, &of(user)).await
    }

    /// Waits until a slot is free.
    async fn connect_eventually(&self, user: &str) -> Socket {
        soon(async {
            loop {
                match self.connect(user).await {
                    Ok(socket) => return socket,
                    // The last one is for a handshake at the moment of an end.
                    Err(code) => assert!([FULL, FAILED, ENDED].contains(&&*code), "{code}"),
                }
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await
    }

    /// Waits until the server reaches Redis.
    async fn assert_full_eventually(&self, user: &str) {
        soon(async {
            loop {
                match &*self.rejection(user).await {
                    FULL => return,
                    code => assert_eq!(code, FAILED),
                }
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    async fn rejection(&self, user: &str) -> String {
        self.connect(user).await.map(drop).expect_err("it is rejected")
    }

    async fn count(&self, user: &str) -> Option<usize> {
        self.sessions.list(&user.to_owned()).await.ok().map(|list| list.len())
    }

    async fn count_eventually(&self, user: &str, expected: usize) {
        let mut count = None;
        let waiting = async {
            loop {
                count = self.count(user).await;
                if count == Some(expected) {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(Duration::from_secs(40), waiting).await.is_err() {
            panic!("{count:?} sessions in place of {expected}");
        }
    }
}

fn guard() -> GuardLayer {
    GuardLayer::new(AllowOrigin::list([ORIGIN, OTHER_ORIGIN]).unwrap())
}

async fn echo(socket: &mut Upgraded) {
    let mut bytes = [0; 64];
    while let Ok(read @ 1..) = socket.read(&mut bytes).await {
        if socket.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

fn close_frame(ended: Ended) -> Vec<u8> {
    let (code, reason) = (ended.close_code().to_be_bytes(), ended.reason().as_bytes());
    let length = u8::try_from(code.len() + reason.len()).unwrap();
    [&[0x88, length], &code[..], reason].concat()
}

fn of(user: &str) -> Raw {
    handshake().and("X-User", user)
}

/// A client's end. Dropping it resets the connection, as if the client had lost it.
struct Socket(TcpStream);

impl Socket {
    fn new(stream: TcpStream) -> Self {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        Self(stream)
    }

    /// The reason in the close frame, which is the next thing that the server sends.
    async fn ended(&mut self) -> String {
        let mut head = [0; 4];
        soon(self.0.read_exact(&mut head)).await.unwrap();
        assert_eq!(head[0], 0x88, "{head:?}");
        let mut reason = vec![0; usize::from(head[1]) - 2];
        soon(self.0.read_exact(&mut reason)).await.unwrap();
        String::from_utf8(reason).unwrap()
    }

    /// It is open, and was not told to end.
    async fn assert_open(&mut self) {
        soon(self.0.write_all(b"echo")).await.unwrap();
        let mut bytes = [0; 4];
        soon(self.0.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(&bytes, b"echo", "{}", bytes.escape_ascii());
    }
}

/// Returns the code of a rejection.
async fn connect(address: SocketAddr, raw: &Raw) -> Result<Socket, String> {
    let mut response = soon(send(address, &raw.bytes())).await;
    if response.status == 101 {
        return Ok(Socket::new(response.stream));
    }
    let problem: Value = serde_json::from_str(&response.read_rest().await).unwrap();
    // A reset, so that the port is free at once.
    drop(Socket::new(response.stream));
    Err(problem["code"].as_str().unwrap().to_owned())
}

async fn two_nodes(redis: &RedisServer, max: usize) -> [Node; 2] {
    let node = || Node::start(sessions_of(&patient_client(redis), max));
    [node().await, node().await]
}

/// After all sessions have gone, Redis only has the times when keys were ended.
async fn assert_nothing_is_left(redis: &RedisServer) {
    let mut left = Vec::new();
    let waiting = async {
        loop {
            left = redis.ask("EVAL \"local left = {}; for _, key in ipairs(redis.call('KEYS', '*')) do if not string.find(key, ':ended:') then left[#left + 1] = key end end; return left\" 0").await;
            if left == b"*0\r\n" {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(Duration::from_secs(10), waiting).await.is_err() {
        panic!("{}", left.escape_ascii());
    }
}

/// A size of a test: for continuous integration, unless the variable says another.
fn size(variable: &str, default: usize) -> usize {
    env::var(variable).map_or(default, |size| size.parse().unwrap())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// `SESSION_ROUNDS=1000` is the full size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn maximum_is_never_exceeded_by_handshakes_on_three_servers() {
    const MAX: usize = 5;
    const HANDSHAKES: usize = 200;
    let rounds = size("SESSION_ROUNDS", 40);
    let redis = RedisServer::start().await;
    let open = Arc::<Open>::default();
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let sessions = sessions_of(&patient_client(&redis), MAX);
        nodes.push(Node::start_with(sessions, Arc::clone(&open), guard()).await);
    }
    let start = Instant::now();
    let mut accepted_meanwhile = 0;
    for round in 0..rounds {
        // In every other round a client leaves at once, and another one may get its slot.
        let leaves = round % 2 == 1;
        let handshakes =
            (0..HANDSHAKES).map(|i| {
                let address = nodes[i % 3].address;
                async move {
                    connect(address, &of("alice")).await.map(|socket| (!leaves).then_some(socket))
                }
            });
        let outcomes = handshakes.collect::<JoinSet<_>>().join_all().await;
        let (accepted, rejected): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert!(rejected.iter().all(|rejected| rejected.as_ref().is_err_and(|code| code == FULL)));
        if leaves {
            assert!(accepted.len() >= MAX);
            accepted_meanwhile += accepted.len();
        } else {
            assert_eq!(accepted.len(), MAX, "round {round}");
            soon(eventually(|| open.now.load(SeqCst) == MAX)).await;
            assert_eq!(nodes[round % 3].count("alice").await, Some(MAX));
        }
        drop(accepted);
        nodes[round % 3].count_eventually("alice", 0).await;
    }
    assert_eq!(open.most.load(SeqCst), MAX);
    println!(
        "{rounds} rounds of {HANDSHAKES} handshakes in {:?}; {accepted_meanwhile} accepted in the rounds in which clients left at once",
        start.elapsed()
    );
    assert_nothing_is_left(&redis).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn oldest_socket_is_evicted_whatever_server_it_is_on() {
    let redis = RedisServer::start().await;
    let node =
        || Node::start(sessions_of(&patient_client(&redis), 2).when_full(WhenFull::EvictOldest));
    let nodes = [node().await, node().await, node().await];
    let mut sockets = Vec::new();
    for i in 0..8 {
        sockets.push(nodes[i % 3].connect("alice").await.unwrap());
        if i >= 2 {
            assert_eq!(sockets[i - 2].ended().await, "evicted");
        }
        let newest = i.saturating_sub(1);
        for socket in &mut sockets[newest..] {
            socket.assert_open().await;
        }
        assert_eq!(nodes[i % 3].count("alice").await, Some((i + 1).min(2)));
        // The order of sessions of the same millisecond is random.
        sleep(Duration::from_millis(3)).await;
    }
    // Who was evicted has no slot to release.
    drop(sockets.drain(..6));
    eventually(|| nodes.iter().all(|node| node.sessions.connections() <= 1)).await;
    assert_eq!(nodes[0].count("alice").await, Some(2));
    drop(sockets);
    assert_nothing_is_left(&redis).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn list_has_the_sockets_of_all_servers_from_the_oldest() {
    let redis = RedisServer::start().await;
    let nodes = two_nodes(&redis, 10).await;
    let opened = [
        (0, ORIGIN, "192.0.2.1:4000"),
        (1, OTHER_ORIGIN, "[2001:db8::1]:5000"),
        (0, OTHER_ORIGIN, "192.0.2.2:6000"),
        (1, ORIGIN, ""),
    ];
    let mut sockets = Vec::new();
    for (node, origin, address) in opened {
        let raw = of("alice").with("Origin", origin).and("X-Address", address);
        sockets.push(connect(nodes[node].address, &raw).await.unwrap());
        sleep(Duration::from_millis(3)).await;
    }
    let _bob = nodes[0].connect("bob").await.unwrap();
    for node in &nodes {
        let list = node.sessions.list(&"alice".to_owned()).await.unwrap();
        assert_eq!(list.len(), opened.len());
        for (session, (_, origin, address)) in list.iter().zip(opened) {
            assert_eq!((session.origin(), session.address()), (Some(origin), address.parse().ok()));
            assert!(session.since().elapsed().unwrap() < Duration::from_secs(60));
        }
        assert!(list.is_sorted_by_key(tower_ws_guard::SessionInfo::since));
        assert_eq!(node.count("carol").await, Some(0));
    }
    // What identifies a user is not in Redis.
    let keys = redis.ask("KEYS *").await;
    assert!(contains(&keys, "ws-guard:sessions:users:lease:"), "{}", keys.escape_ascii());
    assert!(!contains(&keys, "alice"), "{}", keys.escape_ascii());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn end_closes_the_sockets_of_one_key_and_name() {
    let redis = RedisServer::start().await;
    let nodes = two_nodes(&redis, 10).await;
    let other = sessions_of(&patient_client(&redis).prefix("other:"), 10);
    let other = Node::start(other).await;
    let mut kept = [nodes[0].connect("bob").await.unwrap(), other.connect("alice").await.unwrap()];
    for reason in [Ended::Revoked, Ended::Expired, Ended::Evicted, Ended::Drained] {
        let mut sockets = Vec::new();
        for node in [&nodes[0], &nodes[1], &nodes[1]] {
            sockets.push(node.connect_eventually("alice").await);
        }
        assert_eq!(nodes[0].sessions.end(&"alice".into(), reason).await.unwrap(), 3);
        for socket in &mut sockets {
            assert_eq!(socket.ended().await, reason.reason());
        }
        assert_eq!(nodes[1].count("alice").await, Some(0));
        assert_eq!(nodes[1].sessions.end(&"alice".into(), reason).await.unwrap(), 0);
    }
    for socket in &mut kept {
        socket.assert_open().await;
    }
    drop(kept);
    assert_nothing_is_left(&redis).await;
}

/// A handshake whose token was verified before its key was ended is rejected.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn handshake_that_began_before_its_key_was_ended_on_another_server_is_rejected() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(&redis).await;
    let slow = Redis::new(&proxy.url).unwrap().timeout(PATIENT).unwrap();
    let verified = Arc::new(Barrier::new(2));
    let verifier = {
        let verified = Arc::clone(&verified);
        move |_: Token| {
            let verified = Arc::clone(&verified);
            async move {
                verified.wait().await;
                verified.wait().await;
                Ok::<_, Rejection>(().into())
            }
        }
    };
    let guard = guard().token(TokenPolicy::bearer(verifier)).unwrap();
    let slow = Node::start_with(sessions_of(&slow, 10), Arc::default(), guard).await;
    let other = Node::start(sessions_of(&patient_client(&redis), 10)).await;
    // It connects to Redis.
    assert_eq!(slow.count("alice").await, Some(0));

    // The key is ended while the token is verified, or while Redis is asked.
    for (ended, is_asked, expected) in [
        ("alice", false, Some(ENDED)),
        ("bob", false, None),
        ("alice", true, Some(ENDED)),
        ("bob", true, None),
    ] {
        let address = slow.address;
        let opening = tokio::spawn(async move {
            connect(address, &of("alice").and("Authorization", "Bearer x")).await
        });
        verified.wait().await;
        if is_asked {
            // Longer than what a clock rounds off.
            sleep(Duration::from_millis(20)).await;
            proxy.hold_requests(&redis);
            verified.wait().await;
            sleep(Duration::from_millis(300)).await;
        }
        other.sessions.end(&ended.into(), Ended::Revoked).await.unwrap();
        sleep(Duration::from_millis(300)).await;
        if is_asked {
            proxy.lead_to(&redis);
        } else {
            verified.wait().await;
        }
        let outcome = opening.await.unwrap();
        assert_eq!(outcome.as_ref().err().map(|code| &**code), expected, "{ended} {is_asked}");
        drop(outcome);
        other.count_eventually("alice", 0).await;
    }
    // The next one is accepted.
    other.connect_eventually("alice").await.assert_open().await;
}

/// Faults of Redis that end no socket.
#[derive(Clone, Copy, Debug)]
enum Fault {
    RestartsEmpty,
    IsPaused(Duration),
    IsFlushed,
    LosesScripts,
    LosesSubscriptions,
    LosesConnections,
}

/// While Redis fails, no socket is told to end. Afterwards each has its slot again.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn sockets_survive_faults_of_redis_and_keep_their_slots() {
    for fault in [
        Fault::IsFlushed,
        Fault::LosesScripts,
        Fault::LosesSubscriptions,
        Fault::LosesConnections,
        Fault::RestartsEmpty,
        Fault::IsPaused(Duration::from_secs(3)),
    ] {
        assert_survived(fault).await;
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn sockets_survive_a_pause_of_redis_for_longer_than_a_lease() {
    assert_survived(Fault::IsPaused(LEASE + Duration::from_secs(1))).await;
}

async fn assert_survived(fault: Fault) {
    let mut redis = RedisServer::start().await;
    let node = || Node::start(sessions_of(&client(&redis), 2));
    let nodes = [node().await, node().await];
    let mut sockets =
        [nodes[0].connect_eventually("alice").await, nodes[1].connect_eventually("alice").await];
    assert_eq!(nodes[0].rejection("alice").await, FULL);
    match fault {
        Fault::IsFlushed => drop(redis.ask("FLUSHALL").await),
        Fault::LosesScripts => drop(redis.ask("SCRIPT FLUSH").await),
        Fault::LosesSubscriptions => drop(redis.ask("CLIENT KILL TYPE pubsub").await),
        Fault::LosesConnections => drop(redis.ask("CLIENT KILL TYPE normal").await),
        Fault::RestartsEmpty => {
            redis.stop();
            assert_eq!(nodes[0].rejection("bob").await, FAILED, "{fault:?}");
            redis.start_again().await;
        }
        Fault::IsPaused(time) => {
            redis.pause();
            assert_eq!(nodes[0].rejection("bob").await, FAILED, "{fault:?}");
            sleep(time).await;
            redis.resume();
        }
    }
    nodes[0].count_eventually("alice", 2).await;
    for (socket, node) in sockets.iter_mut().zip(&nodes) {
        node.assert_full_eventually("alice").await;
        socket.assert_open().await;
    }
    // They can be ended.
    assert_eq!(nodes[0].sessions.end(&"alice".into(), Ended::Revoked).await.unwrap(), 2);
    for socket in &mut sockets {
        assert_eq!(socket.ended().await, "revoked", "{fault:?}");
    }
    drop(sockets);
    assert_nothing_is_left(&redis).await;
}

/// After a loss, sockets that find their key full are evicted.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn slot_that_redis_lost_and_another_socket_took_evicts() {
    let redis = RedisServer::start().await;
    let nodes = two_nodes(&redis, 1).await;
    let mut lost = nodes[0].connect("alice").await.unwrap();
    redis.ask("FLUSHALL").await;
    let mut taken = nodes[1].connect("alice").await.unwrap();
    assert_eq!(lost.ended().await, "evicted");
    taken.assert_open().await;
    assert_eq!(nodes[0].count("alice").await, Some(1));
    drop((lost, taken));
    assert_nothing_is_left(&redis).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn replica_that_takes_over_keeps_sessions_and_limits() {
    let mut primary = RedisServer::start().await;
    let replica = RedisServer::start().await;
    let proxy = Proxy::start(&primary).await;
    let node = || Node::start(sessions_of(&Redis::new(&proxy.url).unwrap(), 2));
    let nodes = [node().await, node().await];
    let mut sockets =
        [nodes[0].connect_eventually("alice").await, nodes[1].connect_eventually("alice").await];
    let port = primary.url().rsplit(':').next().unwrap().to_owned();
    replica.ask(&format!("REPLICAOF 127.0.0.1 {port}")).await;
    soon(async {
        while !contains(&replica.ask("INFO keyspace").await, "keys=2") {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;

    primary.stop();
    assert_eq!(nodes[0].rejection("alice").await, FAILED);
    // Before it takes over, it takes no writes.
    proxy.lead_to(&replica);
    assert_eq!(nodes[0].rejection("bob").await, FAILED);
    replica.ask("REPLICAOF NO ONE").await;
    nodes[0].count_eventually("alice", 2).await;
    for (socket, node) in sockets.iter_mut().zip(&nodes) {
        node.assert_full_eventually("alice").await;
        socket.assert_open().await;
    }
    assert_eq!(nodes[1].sessions.end(&"alice".into(), Ended::Revoked).await.unwrap(), 2);
    for socket in &mut sockets {
        assert_eq!(socket.ended().await, "revoked");
    }
    drop(sockets);
    assert_nothing_is_left(&replica).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn full_redis_rejects_handshakes_and_still_lists_renews_ends_and_releases() {
    let redis = RedisServer::start().await;
    let nodes = two_nodes(&redis, 2).await;
    let [mut first, mut second] =
        [nodes[0].connect("alice").await.unwrap(), nodes[1].connect("alice").await.unwrap()];
    let mut bob = nodes[1].connect("bob").await.unwrap();
    redis.ask("CONFIG SET maxmemory 1").await;
    assert_eq!(nodes[0].rejection("carol").await, FAILED);
    first.assert_open().await;
    drop(first);
    nodes[1].count_eventually("alice", 1).await;
    assert_eq!(nodes[0].rejection("alice").await, FAILED);
    // The others are renewed.
    sleep(LEASE + Duration::from_secs(2)).await;
    assert_eq!(nodes[0].count("alice").await, Some(1));
    second.assert_open().await;

    assert_eq!(nodes[0].sessions.end(&"alice".into(), Ended::Revoked).await.unwrap(), 1);
    assert_eq!(second.ended().await, "revoked");
    bob.assert_open().await;

    redis.ask("CONFIG SET maxmemory 0").await;
    let again = nodes[0].connect_eventually("alice").await;
    drop((second, bob, again));
    assert_nothing_is_left(&redis).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn redis_that_does_not_respond_rejects_or_counts_alone() {
    for (policy, expected) in [(WhenUnavailable::Reject, 0), (WhenUnavailable::CountAlone, 3)] {
        for when_full in [WhenFull::RejectNewest, WhenFull::EvictOldest] {
            let mut redis = RedisServer::start().await;
            redis.stop();
            let node = || {
                let sessions = sessions_of(&client(&redis), 3);
                Node::start(sessions.when_unavailable(policy).when_full(when_full))
            };
            let nodes = [node().await, node().await];
            // At the same time, so that many ask when Redis fails.
            let handshakes = (0..40).map(|i| {
                let address = nodes[i % 2].address;
                async move { connect(address, &of("alice")).await }
            });
            let outcomes = handshakes.collect::<JoinSet<_>>().join_all().await;
            let (accepted, rejected): (Vec<_>, Vec<_>) =
                outcomes.into_iter().partition(Result::is_ok);
            let mut sockets =
                accepted.into_iter().map(|accepted| accepted.unwrap()).collect::<Vec<_>>();
            let codes = rejected.iter().map(|rejected| rejected.as_ref().err().unwrap());
            for code in codes {
                assert_eq!(code, if expected == 0 { FAILED } else { FULL });
            }
            for node in &nodes {
                assert_eq!(node.sessions.connections(), expected, "{policy:?} {when_full:?}");
                assert_eq!(node.count("alice").await, None);
                assert!(node.sessions.end(&"bob".into(), Ended::Revoked).await.is_err());
            }
            let all =
                if when_full == WhenFull::EvictOldest && expected > 0 { 40 } else { 2 * expected };
            assert_eq!(sockets.len(), all);

            redis.start_again().await;
            nodes[0].count_eventually("alice", expected).await;
            // Those above the maximum are evicted.
            soon(async {
                while sockets.len() > expected {
                    sleep(Duration::from_millis(50)).await;
                    sockets.retain(|socket| socket.0.try_read(&mut [0; 64]).is_err());
                }
            })
            .await;
            for socket in &mut sockets {
                socket.assert_open().await;
            }
            if expected > 0 && when_full == WhenFull::RejectNewest {
                assert_eq!(nodes[0].rejection("alice").await, FULL);
            }
            drop(sockets);
            assert_nothing_is_left(&redis).await;
        }
    }
}

/// A server that does not reach Redis hears later what happened to its sockets.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn server_without_redis_hears_later_of_ends_and_evictions() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(&redis).await;
    let alone = Node::start(sessions_of(&Redis::new(&proxy.url).unwrap(), 1)).await;
    let other = Node::start(sessions_of(&patient_client(&redis), 1)).await;
    let mut ended = alone.connect_eventually("alice").await;
    let mut taken = alone.connect_eventually("bob").await;
    let mut kept = alone.connect_eventually("carol").await;

    proxy.cut();
    assert_eq!(other.sessions.end(&"alice".into(), Ended::Revoked).await.unwrap(), 1);
    // Its slots are free within a lease.
    let mut bob = other.connect_eventually("bob").await;
    assert_eq!(other.count("carol").await, Some(0));
    for socket in [&mut ended, &mut taken, &mut kept] {
        socket.assert_open().await;
    }

    proxy.lead_to(&redis);
    assert_eq!(ended.ended().await, "revoked");
    assert_eq!(taken.ended().await, "evicted");
    other.count_eventually("carol", 1).await;
    for socket in [&mut kept, &mut bob] {
        socket.assert_open().await;
    }
    drop((ended, taken, kept, bob));
    assert_nothing_is_left(&redis).await;
}

/// Messages only make it faster.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn end_is_heard_without_messages() {
    let redis = RedisServer::start().await;
    redis.ask("ACL SETUSER default -subscribe").await;
    let nodes = two_nodes(&redis, 2).await;
    let mut socket = nodes[0].connect("alice").await.unwrap();
    socket.assert_open().await;
    assert_eq!(nodes[1].sessions.end(&"alice".into(), Ended::Expired).await.unwrap(), 1);
    assert_eq!(socket.ended().await, "expired");

    // With them, but not at this moment.
    redis.ask("ACL SETUSER default +subscribe").await;
    for _ in 0..5 {
        let mut socket = nodes[0].connect_eventually("alice").await;
        redis.ask("CLIENT KILL TYPE pubsub").await;
        assert_eq!(nodes[1].sessions.end(&"alice".into(), Ended::Revoked).await.unwrap(), 1);
        assert_eq!(socket.ended().await, "revoked");
    }
    assert_nothing_is_left(&redis).await;
}

/// A user without the right to channels neither publishes nor subscribes. There are more sessions
/// than fit into one call of a script.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn sessions_work_without_the_right_to_channels() {
    const MANY: usize = 600;
    let redis = RedisServer::start().await;
    redis.ask("ACL SETUSER default resetchannels").await;
    let nodes = two_nodes(&redis, MANY).await;
    let mut sockets = Vec::new();
    for _ in 0..MANY {
        sockets.push(nodes[0].connect("alice").await.unwrap());
    }
    sleep(LEASE + Duration::from_secs(2)).await;
    assert_eq!(nodes[1].count("alice").await, Some(MANY));
    assert_eq!(nodes[1].rejection("alice").await, FULL);
    assert_eq!(nodes[1].sessions.end(&"alice".into(), Ended::Revoked).await.unwrap(), MANY);
    for socket in &mut sockets {
        assert_eq!(socket.ended().await, "revoked");
    }
    drop(sockets);
    assert_nothing_is_left(&redis).await;
}

/// The clock of a new primary may be ahead of that of the old one, or behind it.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn end_is_heard_although_the_clock_of_redis_jumps() {
    for jump in ["+ 10000000", "- 10000000"] {
        let redis = RedisServer::start().await;
        redis.ask("ACL SETUSER default -subscribe").await;
        let nodes = two_nodes(&redis, 2).await;
        let mut socket = nodes[0].connect("alice").await.unwrap();
        assert_eq!(nodes[1].sessions.end(&"alice".into(), Ended::Revoked).await.unwrap(), 1);
        let script = format!(
            "for _, key in ipairs(redis.call('KEYS', '*:ended:*')) do \
             local at = string.match(redis.call('GET', key), '%d+') \
             redis.call('SET', key, string.format('%.0f revoked', at {jump})) end return 1"
        );
        assert_eq!(redis.ask(&format!("EVAL \"{script}\" 0")).await, b":1\r\n");
        assert_eq!(socket.ended().await, "revoked", "{jump}");
    }
}

/// The connection for messages is silent from its first command.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn subscription_that_hangs_is_replaced() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(&redis).await;
    proxy.freeze_subscriptions(true);
    let node = Node::start(sessions_of(&Redis::new(&proxy.url).unwrap(), 2)).await;
    let _socket = node.connect_eventually("alice").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(redis.ask("PUBSUB CHANNELS").await, b"*0\r\n");
    proxy.freeze_subscriptions(false);
    soon(async {
        while redis.ask("PUBSUB CHANNELS").await == b"*0\r\n" {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// The server does not know that it has a slot, because the response is lost.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn slot_whose_response_was_lost_is_free_within_a_lease() {
    for is_cut in [false, true] {
        let redis = RedisServer::start().await;
        let proxy = Proxy::start(&redis).await;
        let lossy = Node::start(sessions_of(&Redis::new(&proxy.url).unwrap(), 1)).await;
        let other = Node::start(sessions_of(&patient_client(&redis), 1)).await;
        // Redis has the script.
        drop(lossy.connect_eventually("bob").await);
        other.count_eventually("bob", 0).await;

        proxy.hold_responses(&redis);
        let start = Instant::now();
        assert_eq!(lossy.rejection("alice").await, FAILED);
        assert_eq!(other.count("alice").await, Some(1));
        if is_cut {
            proxy.cut();
        } else {
            proxy.lead_to(&redis);
        }
        other.connect_eventually("alice").await.assert_open().await;
        assert!(start.elapsed() < LEASE + Duration::from_secs(3), "{:?}", start.elapsed());
        assert_eq!(lossy.sessions.connections(), 0);
        assert_nothing_is_left(&redis).await;
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn client_that_leaves_while_redis_is_asked_leaves_no_slot() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(&redis).await;
    let slow = Redis::new(&proxy.url).unwrap().timeout(PATIENT).unwrap();
    let node = Node::start(sessions_of(&slow, 1)).await;
    let other = Node::start(sessions_of(&patient_client(&redis), 1)).await;
    drop(node.connect("bob").await.unwrap());
    for hold in [Proxy::hold_requests, Proxy::hold_responses] {
        hold(&proxy, &redis);
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(&of("alice").bytes()).await.unwrap();
        eventually(|| node.sessions.connections() == 1).await;
        drop(Socket::new(stream));
        eventually(|| node.sessions.connections() == 0).await;
        proxy.lead_to(&redis);
        // Before a lease is over.
        let start = Instant::now();
        other.connect_eventually("alice").await.assert_open().await;
        assert!(start.elapsed() < LEASE - Duration::from_secs(3), "{:?}", start.elapsed());
        assert_nothing_is_left(&redis).await;
    }
    assert_eq!(node.open.most.load(SeqCst), 1);
}

/// Releases, however many, do not delay the renewal of the other leases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn leases_are_renewed_while_other_sockets_come_and_go() {
    let redis = RedisServer::start().await;
    // There is always something to release.
    let proxy = Proxy::start(&redis).await;
    proxy.delay_requests(Duration::from_millis(20));
    let slow = Redis::new(&proxy.url).unwrap().timeout(PATIENT).unwrap();
    let nodes = [
        Node::start(sessions_of(&slow, 1)).await,
        Node::start(sessions_of(&patient_client(&redis), 1)).await,
    ];
    let mut socket = nodes[0].connect("alice").await.unwrap();
    let address = nodes[0].address;
    let clients = (0..64).map(|i| async move {
        let start = Instant::now();
        let user = format!("user-{i}");
        let mut connections = 0;
        while start.elapsed() < LEASE + Duration::from_secs(2) {
            let socket = connect(address, &of(&user)).await;
            connections += usize::from(socket.is_ok());
            // So that the clients do not leave all at once.
            sleep(Duration::from_millis(fastrand::u64(..20))).await;
        }
        connections
    });
    let connections = clients.collect::<JoinSet<_>>().join_all().await;
    println!("{} connections came and went", connections.iter().sum::<usize>());
    assert_eq!(nodes[1].rejection("alice").await, FULL);
    socket.assert_open().await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn tasks_end_with_the_sessions() {
    let redis = RedisServer::start().await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let sessions = sessions_of(&patient_client(&redis), 1);
    assert_eq!(tasks(), before);
    let callback = async |mut socket: Upgraded| echo(&mut socket).await;
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let service = guard().sessions(&sessions).on_upgraded(callback).layer(inner);
    let (request, client) = tower_ws_guard::test_util::handshake("/ws")
        .host(common::HOST)
        .origin(ORIGIN)
        .header("x-user", "alice")
        .upgradable(())
        .await;
    let response = tower::ServiceExt::oneshot(service, request).await.unwrap();
    assert_eq!(response.status(), 101);
    // The layer is gone, and the socket keeps the tasks alive.
    drop(sessions);
    sleep(Duration::from_millis(100)).await;
    assert!(tasks() > before);
    drop((response, client));
    eventually(|| tasks() == before).await;
    assert_nothing_is_left(&redis).await;
}

fn start_servers(redis: &RedisServer, max: usize) -> [Server; 3] {
    [(); 3].map(|()| {
        let (url, max) = (redis.url(), max.to_string());
        Server::start(&[
            "--allow-any-host",
            "--sessions",
            &url,
            "--max-per-key",
            &max,
            "--token",
            "s3cr3t",
        ])
    })
}

fn with_token(raw: Raw) -> Raw {
    raw.and("Authorization", "Bearer s3cr3t")
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn slots_of_a_killed_server_are_free_within_a_lease() {
    let redis = RedisServer::start().await;
    let servers = start_servers(&redis, 3);
    let raw = with_token(handshake());
    let mut sockets = Vec::new();
    for server in [0, 0, 1] {
        sockets.push(connect(servers[server].address, &raw).await.unwrap());
    }
    // Until just after a renewal.
    sleep(Duration::from_secs(6)).await;
    for server in &servers {
        assert_eq!(connect(server.address, &raw).await.err().as_deref(), Some(FULL));
    }
    let kill = format!("kill -KILL {}", servers[0].id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let start = Instant::now();
    let mut accepted = Vec::new();
    while accepted.len() < 2 {
        accepted.extend(connect(servers[2].address, &raw).await.ok());
        assert!(start.elapsed() < LEASE + Duration::from_secs(3));
        sleep(Duration::from_millis(50)).await;
    }
    println!("the slots of a killed server were free after {:?}", start.elapsed());
    assert_eq!(connect(servers[1].address, &raw).await.err().as_deref(), Some(FULL));
}

/// `SESSION_SOCKETS=10000` is the full size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn end_reaches_all_sockets_of_three_servers() {
    let count = size("SESSION_SOCKETS", 1500);
    let redis = RedisServer::start().await;
    let servers = start_servers(&redis, count);
    let addresses = [0, 1, 2].map(|server: usize| servers[server].address);
    let mut times = Vec::new();
    for _ in 0..size("SESSION_RUNS", 1) {
        let mut clients = JoinSet::new();
        for batch in 0..count.div_ceil(50) {
            let opening = (batch * 50..count.min(batch * 50 + 50)).map(|i| async move {
                connect(addresses[i % 3], &with_token(handshake())).await.unwrap()
            });
            for mut socket in opening.collect::<JoinSet<_>>().join_all().await {
                clients.spawn(async move {
                    // The others are opened meanwhile.
                    timeout(Duration::from_secs(300), socket.0.readable()).await.unwrap().unwrap();
                    assert_eq!(socket.ended().await, "revoked");
                    Instant::now()
                });
            }
        }
        let raw = with_token(plain().method("POST").target("/sessions/end"));
        let raw = raw.and("Connection", "close");
        let start = Instant::now();
        let mut response = send(addresses[0], &raw.bytes()).await;
        let body: Value = serde_json::from_str(&response.read_rest().await).unwrap();
        assert_eq!(body["ended"], count);
        let last = clients.join_all().await.into_iter().max().unwrap();
        times.push(last - start);
        println!("{count} sockets: {:?}", last - start);
        assert_nothing_is_left(&redis).await;
    }
    println!("{count} sockets: median {:?}, all {times:?}", median(times.clone()));
}
