use std::{
    convert::Infallible,
    future::ready,
    sync::{Arc, LazyLock, Mutex},
};

use http::{Extensions, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use loom::future::block_on;
use models::{ConnectionLimit, PendingUpgrade, Permit, ResponderLayer, test_util::handshake};
use tokio::{
    io::DuplexStream,
    runtime::{Builder, Runtime},
    task::yield_now,
};
use tower::{Layer, Service, service_fn};

use crate::common::{explore, explore_up_to, guard, now, start};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().unwrap());

/// A handshake whose connection is there as soon as it may be.
fn upgradable() -> (Request<()>, DuplexStream) {
    RUNTIME.block_on(async {
        let upgradable = handshake("/").upgradable(()).await;
        // hyper hands over the connection.
        yield_now().await;
        upgradable
    })
}

/// What the service does with a handshake that others accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reaction {
    Responds(u16),
    /// The client leaves.
    Leaves,
}

use Reaction::{Leaves, Responds};

/// What becomes of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    HandedOver,
    /// It was accepted, and the response was another one.
    Declined,
    /// Nobody accepted it in time.
    TooLate,
}

use Outcome::{Declined, HandedOver, TooLate};

/// Two threads accept a pending upgrade while a third one responds.
fn race(reaction: Reaction) -> Outcome {
    let limit = ConnectionLimit::total(1).unwrap();
    let shared = Arc::new(Mutex::new(None));
    let share = Arc::clone(&shared);
    let inner = service_fn(move |mut request: Request<()>| {
        *share.lock().unwrap() = request.extensions_mut().remove::<PendingUpgrade>();
        let mut response = Response::new(());
        if let Responds(status) = reaction {
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
        }
        ready(Ok::<_, Infallible>(response))
    });
    let (request, _client) = upgradable();
    let future = ResponderLayer::new().limit(limit.clone()).layer(inner).call(request);
    let pending = shared.lock().unwrap().take().unwrap();

    let accepting = [pending.clone(), pending.clone()].map(|pending| {
        start(move || {
            let upgrade = pending.accept()?;
            drop(pending);
            Some(block_on(upgrade).ok())
        })
    });
    let status = match reaction {
        Leaves => {
            drop(future);
            None
        }
        Responds(_) => {
            let Ok(response) = now(future);
            Some(response.status())
        }
    };
    let late = pending.accept();
    let accepted =
        accepting.map(|thread| thread.join().unwrap()).into_iter().flatten().collect::<Vec<_>>();
    assert!(late.is_none(), "the service has responded");
    assert!(accepted.len() <= 1, "two threads have accepted");
    let is_completed = status == Some(StatusCode::SWITCHING_PROTOCOLS);
    let outcome = match accepted.first() {
        Some(Some(_)) => HandedOver,
        Some(None) => Declined,
        None => TooLate,
    };
    assert_eq!(is_completed, outcome == HandedOver, "{status:?}, {outcome:?}");
    assert_eq!(limit.connections(), usize::from(is_completed));
    drop(accepted);
    assert_eq!(limit.connections(), 0);
    outcome
}

#[test]
fn a_pending_upgrade_is_handed_over_once_with_the_101() {
    explore_up_to(4, [HandedOver, TooLate], || race(Responds(200)));
}

#[test]
fn a_pending_upgrade_is_declined_by_another_response() {
    explore_up_to(4, [Declined, TooLate], || race(Responds(403)));
}

#[test]
fn a_pending_upgrade_is_declined_when_the_client_leaves() {
    explore_up_to(4, [Declined, TooLate], || race(Leaves));
}

#[test]
fn a_permit_is_claimed_once_with_its_upgrade() {
    explore([false, true], || {
        let limit = ConnectionLimit::total(1).unwrap();
        let shared = Arc::new(Mutex::new(Extensions::new()));
        let share = Arc::clone(&shared);
        let inner = service_fn(move |request: Request<()>| {
            *share.lock().unwrap() = request.extensions().clone();
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            ready(Ok::<_, Infallible>(response))
        });
        let (request, _client) = upgradable();
        let future = guard().limit(limit.clone()).layer(inner).call(request);
        let extensions = std::mem::take(&mut *shared.lock().unwrap());

        let claiming = [extensions.clone(), extensions].map(|mut extensions| {
            start(move || {
                let permit = Permit::claim(&mut extensions);
                assert_eq!(permit.is_some(), extensions.get::<OnUpgrade>().is_some());
                permit
            })
        });
        let Ok(response) = now(future);
        let permits =
            claiming.map(|thread| thread.join().unwrap()).into_iter().flatten().collect::<Vec<_>>();
        assert!(permits.len() <= 1);
        let is_completed = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        assert!(!is_completed || permits.len() == 1, "a connection without a permit");
        drop(permits);
        assert_eq!(limit.connections(), 0);
        is_completed
    });
}
