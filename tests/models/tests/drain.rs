use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::LazyLock,
};

use loom::future::block_on;
use models::{Drain, Ended};
use tokio::runtime::{Builder, Runtime};

use crate::common::{LONG, enter, explore, explore_up_to, guard, start};

/// For the timeout of `wait`, which does not pass.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());

async fn with_timers<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let _guard = RUNTIME.enter();
        future.as_mut().poll(cx)
    })
    .await
}

#[test]
fn a_handshake_during_the_start_is_rejected_or_counted_and_told() {
    explore([false, true], || {
        let drain = Drain::new();
        let layer = guard().drain(&drain);
        let connection = start(move || match enter(&layer) {
            Ok(permit) => {
                assert_eq!(block_on(permit.ended()), Ended::Drained);
                Some(permit)
            }
            Err(code) => {
                assert_eq!(code, "shutting-down");
                None
            }
        });
        drain.start();
        let counted = drain.connections();
        let permit = connection.join().unwrap();
        let accepted = permit.is_some();
        if accepted {
            assert_eq!(counted, 1);
        }
        drop(permit);
        assert_eq!(drain.connections(), 0);
        accepted
    });
}

#[test]
fn connections_of_two_lanes_are_told() {
    explore_up_to(2, [()], || {
        let drain = Drain::new();
        let layer = guard().drain(&drain);
        let permits = [enter(&layer).unwrap(), enter(&layer).unwrap()];
        let told = permits.map(|permit| start(move || block_on(permit.ended())));
        drain.start();
        assert_eq!(told.map(|told| told.join().unwrap()), [Ended::Drained; 2]);
        assert_eq!(drain.connections(), 0);
    });
}

#[test]
fn the_wait_ends_when_the_last_connection_is_closed() {
    explore_up_to(3, [0, 1, 2], || {
        let drain = Drain::new();
        let connections = [(); 2].map(|()| {
            let layer = guard().drain(&drain);
            start(move || enter(&layer).is_ok())
        });
        drain.start();
        assert_eq!(block_on(with_timers(drain.wait(LONG))), 0);
        connections
            .map(|connection| usize::from(connection.join().unwrap()))
            .into_iter()
            .sum::<usize>()
    });
}
