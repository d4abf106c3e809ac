//! A proxy before Redis, which a test can cut.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use super::contains;
use crate::redis_server::RedisServer;

#[derive(Clone)]
enum Link {
    To(String),
    /// Requests wait in the proxy.
    HoldRequests(String),
    /// Requests arrive, and their responses wait in the proxy.
    HoldResponses(String),
    Cut,
}

pub(super) struct Proxy {
    pub(super) url: String,
    link: Arc<watch::Sender<Link>>,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    freezes_subscriptions: AtomicBool,
    delay_millis: AtomicU64,
}

impl Proxy {
    pub(super) async fn start(redis: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let link = Arc::new(watch::Sender::new(Link::To(address(redis))));
        let faults = Arc::<Faults>::default();
        let (links, those) = (Arc::clone(&link), Arc::clone(&faults));
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(forward(client, links.subscribe(), Arc::clone(&those)));
            }
        });
        Self { url, link, faults }
    }

    /// Whether a connection that subscribes is silent from then on, for ever.
    pub(super) fn freeze_subscriptions(&self, freezes: bool) {
        self.faults.freezes_subscriptions.store(freezes, Relaxed);
    }

    pub(super) fn delay_requests(&self, delay: Duration) {
        let millis = delay.as_millis().try_into().unwrap();
        self.faults.delay_millis.store(millis, Relaxed);
    }

    pub(super) fn cut(&self) {
        self.link.send_replace(Link::Cut);
    }

    pub(super) fn lead_to(&self, redis: &RedisServer) {
        self.link.send_replace(Link::To(address(redis)));
    }

    pub(super) fn hold_requests(&self, redis: &RedisServer) {
        self.link.send_replace(Link::HoldRequests(address(redis)));
    }

    pub(super) fn hold_responses(&self, redis: &RedisServer) {
        self.link.send_replace(Link::HoldResponses(address(redis)));
    }
}

fn address(redis: &RedisServer) -> String {
    redis.url().replace("redis://", "")
}

/// Forwards until the link is cut or leads elsewhere.
async fn forward(mut client: TcpStream, mut link: watch::Receiver<Link>, faults: Arc<Faults>) {
    let (Link::To(to) | Link::HoldRequests(to) | Link::HoldResponses(to)) =
        link.borrow_and_update().clone()
    else {
        return;
    };
    let Ok(mut redis) = TcpStream::connect(&to).await else { return };
    let (from_client, to_client) = client.split();
    let (from_redis, to_redis) = redis.split();
    let requests = link.clone();
    let requests = copy(from_client, to_redis, requests, &faults, |link| {
        matches!(link, Link::HoldRequests(_))
    });
    let responses = link.clone();
    let responses = copy(from_redis, to_client, responses, &NO_FAULTS, |link| {
        matches!(link, Link::HoldResponses(_))
    });
    let leads_elsewhere = link.wait_for(|link| match link {
        Link::To(other) | Link::HoldRequests(other) | Link::HoldResponses(other) => *other != to,
        Link::Cut => true,
    });
    tokio::select! {
        () = requests => {}
        () = responses => {}
        _ = leads_elsewhere => {}
    }
}

static NO_FAULTS: Faults =
    Faults { freezes_subscriptions: AtomicBool::new(false), delay_millis: AtomicU64::new(0) };

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut link: watch::Receiver<Link>,
    faults: &Faults,
    is_held: fn(&Link) -> bool,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let subscribes = contains(&bytes[..read], "SUBSCRIBE");
        if subscribes && faults.freezes_subscriptions.load(Relaxed) {
            pending::<()>().await;
        }
        sleep(Duration::from_millis(faults.delay_millis.load(Relaxed))).await;
        let is_open = link.wait_for(|link| !is_held(link)).await.is_ok();
        if !is_open || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
